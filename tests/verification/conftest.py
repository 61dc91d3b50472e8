"""Runs that are honest; the tests of verify change a copy of them in one place."""

import shutil

import numpy as np
import pytest

from tiny import TINY, smooth, train_folder
from unnoise.cli import main
from unnoise.training.monitors import kid

BITS = ["--metrics", "bpd", "-n", "8", "--levels", "2", "--no-ode"]
SETTINGS = TINY | {"classes": True, "held_out": 20, "images": "240", "warmup": 100}


@pytest.fixture(scope="package")
def honest(tmp_path_factory):
    """Write a run with classes, an evaluation and a page; its images lie in the same folder."""
    folder = tmp_path_factory.mktemp("verification")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        np.savez(folder / "data.npz", images=smooth(84, 16, 0), labels=np.arange(84) % 3)
        run = train_folder(folder / "data.npz", out=str(folder / "run"), **SETTINGS)
        assert main(["eval", str(run), *BITS]) == 0
        assert main(["report", str(run)]) == 0
        yield run


@pytest.fixture(scope="package")
def scored(honest, tmp_path_factory):
    """Write a run that measured KID while it trained, with scores and an audit."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(honest.parent / "cache"))
        for name, value in {"KID_SHARE": 1e3, "MARKS": (0.4, 1.0), "LEAST_DRAWN": 40, "MOST_DRAWN": 40}.items():
            patch.setattr(kid, name, value)
        run = train_folder(honest.parent / "data.npz", out=str(folder / "run"), **SETTINGS)
        for metrics in ("kid,precision_recall,colour", "memorization"):
            assert main(["eval", str(run), "-n", "50", "--metrics", metrics]) == 0
        assert main(["report", str(run)]) == 0
        yield run


def own_copy(run, honest, folder, monkeypatch):
    """Return a copy of a run; the cache that it was measured with is in use."""
    monkeypatch.setenv("UNNOISE_CACHE", str(honest.parent / "cache"))
    return shutil.copytree(run, folder / "run")


@pytest.fixture
def run(honest, tmp_path, monkeypatch):
    return own_copy(honest, honest, tmp_path, monkeypatch)


@pytest.fixture
def scored_run(scored, honest, tmp_path, monkeypatch):
    return own_copy(scored, honest, tmp_path, monkeypatch)
