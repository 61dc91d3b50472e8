"""A model decodes the output of its backbone, and clips the image on request."""

import torch
from torch.testing import assert_close

from sampler_helpers import SHAPE, schedule
from unnoise.diffusion.model import Prediction, clip_x0


def test_clip_x0_keeps_the_image_in_range_and_the_noise_consistent():
    level, x_t = schedule("linear").level(300), 3 * torch.randn(4, *SHAPE, dtype=torch.float64)

    def wild(x_t, level):
        x0 = 2 * x_t
        return Prediction(x0, (x_t - level.alpha * x0) / level.sigma, torch.zeros_like(x_t))

    free, kept = wild(x_t, level), clip_x0(wild)(x_t, level)
    assert free.x0.abs().max() > 2
    assert_close(kept.x0, free.x0.clamp(-1, 1))
    assert_close(level.alpha * kept.x0 + level.sigma * kept.eps, x_t)
    inside = free.x0.abs() < 1
    assert inside.any()
    assert_close(kept.eps[inside], free.eps[inside])
