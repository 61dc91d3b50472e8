"""The ratios of a noise level are those of the papers."""

import math

import torch
from torch.testing import assert_close

from process_helpers import close, schedule
from unnoise.diffusion.level import CLEAN


def test_level_properties():
    level = schedule("linear").level(torch.tensor([0.0, 321.5, 999.0]))
    assert level.time.shape == (3,)
    assert level.alpha.shape == level.sigma.shape == (3, 1, 1, 1)
    close(level.ratio, level.sigma / level.alpha, 1e-15)
    assert_close(level.snr, level.alpha**2 / level.sigma**2)
    assert_close(level.half_log_snr, torch.log(level.alpha) - torch.log(level.sigma))
    assert (CLEAN.time, CLEAN.alpha, CLEAN.sigma, CLEAN.ratio) == (-1, 1, 0, 0)
    assert CLEAN.snr == CLEAN.half_log_snr == math.inf
