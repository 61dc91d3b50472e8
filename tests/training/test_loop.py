"""The loop stops when numbers are not finite."""

import math

import pytest

from tiny import TINY, train_folder
from unnoise.diffusion.objective import simple
from unnoise.errors import InputError


def never_finite(model, batch):
    return math.nan * simple(model, batch)


def test_training_that_never_is_finite_stops_with_a_diagnosis(gray, tmp_path):
    with pytest.raises(InputError, match=r"not finite.*--lr"):
        train_folder(gray, images="2k", out=tmp_path / "run", objective=never_finite, **TINY)
