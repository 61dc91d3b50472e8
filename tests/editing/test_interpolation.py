"""Interpolations begin and end at the two given images."""

import itertools

import pytest
import torch
from torch.testing import assert_close

import unnoise
from editing_helpers import SCHEDULE, Echo
from unnoise import registry
from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.editing.inputs import EditInputs
from unnoise.editing.interpolation import interpolate_noise, slerp
from unnoise.samplers.ddim import ddim, invert
from unnoise.samplers.draw import seeded_noise
from worlds import Gaussian


def test_interpolated_noise_begins_and_ends_at_the_two_seeds():
    first, last = (seeded_noise([seed]) for seed in (3, 9))
    x = interpolate_noise(first, last, torch.linspace(0, 1, 5))(torch.empty(5, 1, 8, 8))
    assert_close(x[:1], seeded_noise([3])(x[:1]))
    assert_close(x[-1:], seeded_noise([9])(x[:1]))
    assert x.var(dim=(1, 2, 3)).mean() == pytest.approx(1, abs=0.2)
    a, b = torch.randn(2, 1, 1, 8, 8)
    way = slerp(a, b, torch.linspace(0, 1, 5))
    assert_close(way[:1], a)
    assert_close(way[-1:], b)
    angles = [torch.arccos((p * q).sum() / (p.norm() * q.norm())) for p, q in itertools.pairwise(way)]
    assert max(angles) - min(angles) < 0.05  # an even pace
    assert_close(slerp(a, 2 * a, torch.tensor([0.5])), 1.5 * a)


def test_interpolation_between_equal_noises_is_that_noise():
    for seed in range(50):
        noise = seeded_noise([seed])(torch.empty(1, 3, 16, 16))
        assert_close(slerp(noise, noise, torch.tensor([0.0, 0.5, 1.0])), noise.expand(3, -1, -1, -1), atol=1e-3, rtol=0)


def test_interpolation_ends_in_the_images_of_the_two_seeds(run):
    way = unnoise.edit(run, seed=3, task="interpolate:to=7", n=5)
    assert_close(way[:1], unnoise.sample(run, 1, seed=3, precision="fp32"), atol=1e-4, rtol=0)
    assert_close(way[-1:], unnoise.sample(run, 1, seed=7, precision="fp32"), atol=1e-4, rtol=0)
    apart = [(a - b).square().mean() for a, b in itertools.pairwise(way)]
    assert max(apart) < (way[0] - way[-1]).square().mean()


def test_a_blend_lies_between_the_images_of_two_rows_of_seeds(run):
    ends = [unnoise.sample(run, 3, seed=seed, precision="fp32") for seed in (3, 40)]
    for share, end in zip((0, 1), ends, strict=True):
        assert_close(unnoise.edit(run, seed=3, task=f"blend:to=40,share={share}", n=3), end, atol=1e-4, rtol=0)
    way = [unnoise.edit(run, seed=3, task=f"blend:to=40,share={share}", n=3) for share in (0.25, 0.5, 0.75)]
    steps = [(a - b).square().mean() for a, b in itertools.pairwise([ends[0], *way, ends[1]])]
    assert max(steps) < (ends[0] - ends[1]).square().mean()


def test_morphs_end_in_the_images_in_a_gaussian_world(float64):
    """DDIM forth and back is exact where the fixed point is found."""
    world = Gaussian(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.5))
    levels, x = SCHEDULE.grid(50, "log_snr")[1:], torch.randn(2, 3, 8, 8)
    *_, noise = invert(world, x, levels, iterations=60)
    *_, back = ddim(world, noise.x, levels)
    assert_close(back.x, x, atol=1e-6, rtol=0)


def test_a_morph_ends_in_the_two_images(image_path):
    """The network is exact for Gaussian data, so the way back is known."""
    world, images = Gaussian(torch.zeros(3, 16, 16), torch.full((3, 16, 16), 0.5)), torch.rand(2, 3, 16, 16) - 0.5
    model = Diffusion(Echo(), SCHEDULE, registry.target.get("x0"), (3, 16, 16))
    how = Sampling(steps=100)
    work = EditInputs(model, how, "RGB", range(5), images=tuple(images))
    object.__setattr__(work, "denoise", lambda count=0: world)
    *_, last = registry.edit.get("morph:iterations=20")(work).steps
    assert_close(last.x[[0, -1]], images, atol=1e-2, rtol=0)
    assert (last.x[2] - images).abs().mean(dim=(1, 2, 3)).min() > 0.05  # another one
