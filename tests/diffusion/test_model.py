"""A model decodes the output of its backbone, and clips the image on request."""

import pytest
import torch
from torch.testing import assert_close

from process_helpers import TARGETS, close, images, schedule
from sampler_helpers import SHAPE
from unnoise import registry
from unnoise.diffusion.model import Diffusion, Prediction, clip_x0
from unnoise.diffusion.process import q_sample
from unnoise.diffusion.target import encode


@pytest.mark.parametrize("name", TARGETS)
def test_diffusion_decodes_the_output_of_its_backbone(name):
    """A backbone that outputs the right answer gives the right image and noise at each image's own level."""
    table, target = schedule("linear"), registry.target.get(name)
    x0, eps = images(2, 1, 3, 3), images(2, 1, 3, 3)
    level = table.level(torch.tensor([100, 600]))
    seen = []

    class Oracle(torch.nn.Module):
        def forward(self, x, time, label):
            seen.append((time, label))
            return encode(x0, eps, level, target)

    model, label = Diffusion(Oracle(), table, target, (1, 3, 3)), torch.tensor([4, 5])
    guess = model(q_sample(x0, eps, level), level, label)
    close(guess.x0, x0, 1e-9)
    close(guess.eps, eps, 1e-9)
    assert [values.tolist() for values in seen[0]] == [[100, 600], [4, 5]]


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
