"""Data for trainings that take a second."""

import numpy as np
import pytest

from unnoise.training import loop


@pytest.fixture
def gray(tmp_path, monkeypatch):
    """20 gray images of 8 x 8, in the folder the test runs in."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "gray.npy", np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    return tmp_path / "gray.npy"


@pytest.fixture
def often(monkeypatch):
    """A state is saved after every step."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(loop, "SAVE_SHARE", float("inf"))
