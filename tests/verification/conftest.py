"""A run with scores, an audit and a page, which the tests of verify change in one place."""

import shutil

import numpy as np
import pytest

from tiny import TINY, smooth, train_folder
from unnoise.cli import main
from unnoise.training.monitors import kid


@pytest.fixture(scope="package")
def honest(tmp_path_factory):
    """Write a run with classes, two KIDs, two evaluations and a page; its images lie beside it."""
    folder = tmp_path_factory.mktemp("verification")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        for name, value in {"KID_SHARE": 1e3, "MARKS": (0.4, 1.0), "LEAST_DRAWN": 40, "MOST_DRAWN": 40}.items():
            patch.setattr(kid, name, value)
        np.savez(folder / "data.npz", images=smooth(84, 16, 0), labels=np.arange(84) % 3)
        settings = TINY | {"classes": True, "held_out": 20, "images": "240", "warmup": 100}
        run = train_folder(folder / "data.npz", out=str(folder / "run"), **settings)
        for metrics in ("kid,precision_recall,colour", "bpd,memorization"):
            assert main(["eval", str(run), "-n", "50", "--metrics", metrics, "--levels", "3"]) == 0
        assert main(["report", str(run)]) == 0
        yield run


@pytest.fixture
def run(honest, tmp_path, monkeypatch):
    """Return a run folder of the test's own; the cache that it was measured with is in use."""
    monkeypatch.setenv("UNNOISE_CACHE", str(honest.parent / "cache"))
    return shutil.copytree(honest, tmp_path / "run")
