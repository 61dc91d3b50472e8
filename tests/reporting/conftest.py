"""Trained and scored runs that the tests of reports share."""

import numpy as np
import pytest

from tiny import TINY, smooth, train_folder
from unnoise.cli import main


@pytest.fixture(scope="package")
def runs(tmp_path_factory):
    """Yield a folder with three runs.

    "one" and "two" have the same images and scores under the same conditions. "three" has other images, whose name
    contains HTML, and no scores.
    """
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        np.savez(folder / "data.npz", images=smooth(120, 16, 0))
        np.savez(folder / "<b>other.npz", images=smooth(120, 16, 1))
        plain = {"objective": "capped_v:gamma=2.5,first=20", "references": 0}  # 200 images change its drawn images
        for name, lr, data in (("one", 1e-3, "data"), ("two", 2e-3, "data"), ("three", 1e-3, "<b>other")):
            train_folder(folder / f"{data}.npz", images="200", lr=lr, out=str(folder / name), **plain, **TINY)
        options = ["-n", "60", "--metrics", "kid,fid,memorization,bpd", "--levels", "3"]
        for name, more in (("one", []), ("two", ["--steps", "3"])):
            assert main(["eval", str(folder / name), *options, *more]) == 0
        yield folder
