"""Guidance: the formula, its interval, and who may guide whom."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import unnoise
from tiny import TINY, train_folder
from unnoise import registry
from unnoise.checkpoint import load
from unnoise.config import Sampling
from unnoise.diffusion.guidance import guide
from unnoise.diffusion.model import Diffusion, clip_x0
from unnoise.errors import InputError
from unnoise.samplers.draw import draw, seeded_noise
from worlds import Gaussian

SHAPE = (1, 8, 8)
SCHEDULE = registry.schedule.get("cosine")()


def gaussian(mean, std=0.5):
    return Gaussian(torch.full(SHAPE, mean, dtype=torch.float64), torch.full(SHAPE, std, dtype=torch.float64))


def refuse(x_t, level):
    pytest.fail("asked where nothing is guided")


def test_guided_score_is_that_of_the_sharpened_density():
    """Scores add: p_good^w / p_poor^(w - 1) of two Gaussians has the mean w a - (w - 1) b."""
    level, x_t = SCHEDULE.level(400), torch.randn(4, *SHAPE, dtype=torch.float64)
    guided = guide(gaussian(0.2), gaussian(-0.1), 3.0)(x_t, level)
    expected = gaussian(3 * 0.2 + 2 * 0.1)(x_t, level)
    assert_close(guided.x0, expected.x0)
    assert_close(guided.eps, expected.eps)
    assert_close(level.alpha * guided.x0 + level.sigma * guided.eps, x_t)


def test_guidance_of_one_and_nought_are_the_two_models():
    level, x_t, (a, b) = SCHEDULE.level(400), torch.randn(4, *SHAPE), (gaussian(0.2), gaussian(-0.1))
    assert_close(guide(a, b, 1.0)(x_t, level).x0, a(x_t, level).x0)
    assert_close(guide(a, b, 0.0)(x_t, level).x0, b(x_t, level).x0)


def test_outside_the_interval_the_poor_model_is_not_asked():
    low, high = SCHEDULE.level(300).ratio.item(), SCHEDULE.level(600).ratio.item()
    x_t, good = torch.randn(2, *SHAPE), gaussian(0.2)
    for time in (300, 299, 601):
        level = SCHEDULE.level(time)
        assert_close(guide(good, refuse, 5.0, (low, high))(x_t, level), good(x_t, level))
    with pytest.raises(pytest.fail.Exception):
        guide(good, refuse, 5.0, (low, high))(x_t, SCHEDULE.level(600))


def test_interval_holds_for_each_image():
    levels, x_t = SCHEDULE.level(torch.tensor([100.0, 500.0])), torch.randn(2, *SHAPE)
    guided = guide(gaussian(0.2), gaussian(-0.1), 5.0, (SCHEDULE.level(300).ratio.item(), math.inf))(x_t, levels)
    assert_close(guided.x0[0], gaussian(0.2)(x_t, levels).x0[0])
    assert (guided.x0[1] - gaussian(0.2)(x_t, levels).x0[1]).abs().min() > 1e-3


class Labelled(nn.Module):
    """Return the label as the image, or -1 without a label."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, time, label=None):
        value = torch.full((len(x),), -1.0) if label is None else label.float()
        return self.weight * value[:, None, None, None].expand_as(x) / 10


def test_run_guides_by_the_model_without_its_label():
    model = Diffusion(Labelled(), SCHEDULE, registry.target.get("x0"), SHAPE, ("a", "b", "c"))
    *_, last = draw(model, [0, 1], Sampling(steps=4, clip=False, guidance=2.0), torch.tensor([1, 2]))
    assert_close(last.x.mean(dim=(1, 2, 3)), torch.tensor([0.1 + 0.2, 0.2 + 0.3]))


def test_run_guides_by_a_weaker_model_with_its_label():
    model, weaker = (
        Diffusion(Labelled(), SCHEDULE, registry.target.get("x0"), SHAPE, ("a", "b", "c")) for _ in range(2)
    )
    weaker.backbone.weight.data.mul_(0.5)
    *_, last = draw(model, [0, 1], Sampling(steps=4, clip=False, guidance=2.0), torch.tensor([1, 2]), weaker)
    assert_close(last.x.mean(dim=(1, 2, 3)), torch.tensor([0.15, 0.3]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train runs with and without classes, label dropout and another schedule on the same images."""
    folder = tmp_path_factory.mktemp("guidance")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(folder / "x.npz", images=images, labels=np.array(["shirt", "boot"] * 10))
    settings = {
        "classes": {"classes": True},
        "certain": {"classes": True, "label_dropout": 0.0},
        "plain": {},
        "linear": {"schedule": "linear"},
    }
    return {
        name: train_folder(folder / "x.npz", images="40", out=str(folder / name), **TINY, **more)
        for name, more in settings.items()
    }


def test_sample_with_guidance_by_label(runs):
    """`sample` gives what its parts give; guidance changes the images, the batch size does not."""
    opened = load(runs["classes"], "cpu")
    for p in opened.model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    images = unnoise.sample(opened, 3, label="shirt", guidance=3.0, batch=2, precision="fp32")
    free = unnoise.sample(opened, 3, label="shirt", precision="fp32")
    label = torch.full((3,), opened.card.classes.index("shirt"))
    denoise = clip_x0(guide(partial(opened.model, label=label), opened.model, 3.0))
    source, how = seeded_noise(range(3)), opened.card.sampling
    noise, levels = source(torch.empty(3, *SHAPE)), SCHEDULE.grid(how.steps, how.spacing)
    *_, last = registry.sampler.get(how.sampler)(denoise, noise, levels, randn_like=source)
    assert_close(images, last.x, rtol=0, atol=1e-4)
    assert (images - free).abs().max() > 1e-3
    outside = unnoise.sample(opened, 3, label="shirt", guidance=3.0, guidance_interval="1e5-1e6", precision="fp32")
    assert_close(outside, free)


def test_sample_with_a_weaker_run(runs):
    opened = load(runs["classes"], "cpu")
    opened.model.backbone.conv_out.weight.data.normal_(std=0.1)
    images = unnoise.sample(opened, 2, guidance=2.0, guide_with=runs["plain"])
    assert images.isfinite().all()
    assert (images - unnoise.sample(opened, 2)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("plain", {"guidance": 2.0}, "needs a run with classes"),
        ("certain", {"guidance": 2.0}, "--label-dropout"),
        ("classes", {"guidance": -1.0}, "0 or more"),
        ("classes", {"guidance": math.nan}, "guidance takes a number, got nan"),
        ("classes", {"guidance": 2.0, "guidance_interval": "5"}, "LOW-HIGH"),
        ("classes", {"guidance": 2.0, "guidance_interval": "5-1"}, "LOW-HIGH"),
        ("plain", {"guide_with": "classes"}, "does nothing at guidance 1"),
        ("plain", {"guidance": 2.0, "guide_with": "linear"}, "its schedule is linear"),
    ],
)
def test_senseless_guidance_is_refused(runs, name, asked, message):
    asked = {key: runs[value] if key == "guide_with" else value for key, value in asked.items()}
    with pytest.raises(InputError, match=message):
        unnoise.sample(runs[name], 2, **asked)
