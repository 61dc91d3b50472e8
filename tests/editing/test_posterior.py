"""Posterior samplers keep the known part, and are exact for Gaussian data."""

import pytest
import torch
from torch.testing import assert_close

from editing_helpers import SCHEDULE
from unnoise import registry
from unnoise.editing.measurements import Gray, Pixels
from unnoise.editing.posterior import Known, keeping, pigdm, pulled, repaint, replace
from worlds import Correlated, Gaussian


def test_known_pixels_are_kept_and_no_others_change(measure):
    x, y = torch.randn(4, 3, 8, 8), measure(torch.randn(1, 3, 8, 8))
    kept = Known(measure, y).keep(x)
    assert_close(measure(kept), measure(measure.inverse(y)).expand_as(measure(kept)), atol=1e-5, rtol=0)
    assert_close(kept - x, measure.inverse(measure(kept - x)), atol=1e-5, rtol=0)  # all of it lies in the range of A+


def test_predictions_with_known_pixels_are_consistent(measure):
    world = Gaussian(torch.zeros(3, 8, 8), torch.ones(3, 8, 8))
    level, x_t = SCHEDULE.level(300), torch.randn(2, 3, 8, 8)
    predicted = keeping(world, Known(measure, measure(torch.randn(1, 3, 8, 8))))(x_t, level)
    assert_close((level.alpha * predicted.x0 + level.sigma * predicted.eps).float(), x_t, atol=1e-4, rtol=0)


def posterior_of(world, known, x_t, level):
    """E[x0 | x_t, y] of independent pixels of one deviation: two linear measurements of a Gaussian."""
    prior = world(x_t, level).x0
    return prior + known.surprise(prior)


@pytest.mark.parametrize("std", [0.3, 1.0])
def test_guidance_by_the_pseudoinverse_is_exact_for_gaussians(measure, std, float64):
    world = Gaussian(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), std))
    known = Known(measure, measure(torch.randn(1, 3, 8, 8)))
    for time in (10, 500, 990):
        level = SCHEDULE.level(time)
        x_t = world.draw(4, level)
        predicted = pulled(world, known, std)(x_t, level)
        assert_close(predicted.x0, posterior_of(world, known, x_t, level), atol=1e-8, rtol=0)
        assert_close(level.alpha * predicted.x0 + level.sigma * predicted.eps, x_t)


@pytest.mark.parametrize("method", [replace, repaint, pigdm])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde"])
def test_samples_are_those_of_the_gaussian_posterior(method, sampler, measure, float64):
    """Mean A+ y + (1 - A+ A) mean, and the world's own variance where nothing is known."""
    world = Gaussian(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.5))
    known, n = Known(measure, measure(0.5 * torch.randn(1, 3, 8, 8))), 400
    levels = SCHEDULE.grid(40, "log_snr")
    options = {"resamplings": 2} if method is repaint else {}
    start = torch.randn(n, 3, 8, 8)
    for step in method(registry.sampler.get(sampler), known, **options)(
        world, start, levels, randn_like=torch.randn_like
    ):
        x = step.x
    mean = known.keep(world.mean[None])
    assert_close(x.mean(dim=0), mean[0], atol=0.12, rtol=0)
    free = x - known.keep(torch.zeros_like(x) + world.mean)  # what is left to chance
    share = (
        1
        - torch.stack([measure.inverse(measure(e)) for e in torch.eye(192).view(192, 1, 3, 8, 8)])
        .view(192, 192)
        .trace()
        / 192
    )
    assert_close(free.square().mean(), 0.25 * share, atol=0.02, rtol=0.05)


def test_repaint_agrees_with_the_known_pixels_better_than_replacement(float64):
    """Two pixels of correlation 0.9, one known: the other is N(0.9 y, 1 - 0.81)."""
    world = Correlated(torch.zeros(1, 1, 2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    known = Known(Pixels(torch.tensor([[[[True, False]]]])), torch.tensor([[[[1.5, 0.0]]]]))
    levels, start = SCHEDULE.grid(50, "log_snr"), torch.randn(4000, 1, 1, 2)
    found = {}
    for name, method in (("replace", replace), ("repaint", lambda s, k: repaint(s, k, resamplings=10, jump=5))):
        for step in method(registry.sampler.get("ddpm"), known)(world, start, levels, randn_like=torch.randn_like):
            x = step.x
        assert_close(x[..., 0], torch.full_like(x[..., 0], 1.5))
        found[name] = float(x[..., 1].mean()) - 0.9 * 1.5
    assert abs(found["repaint"]) < 0.06
    assert abs(found["replace"]) > 3 * abs(found["repaint"])
    assert float(x[..., 1].var()) == pytest.approx(0.19, abs=0.04)


def test_known_parts_are_kept_from_pure_noise_on():
    """The schedule ends in pure noise; no posterior sampler divides by zero."""
    world, known = Gaussian(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)), Known(Gray(), torch.zeros(1, 1, 8, 8))
    levels = registry.schedule.get("flow")().grid(20, "trailing")
    assert levels[0].alpha == 0
    for method in (replace, repaint, pigdm):
        *_, last = method(registry.sampler.get("dpmpp_2m"), known)(
            world, torch.randn(8, 3, 8, 8), levels, randn_like=torch.randn_like
        )
        assert last.x.isfinite().all()
        assert_close(Gray()(last.x), torch.zeros(8, 1, 8, 8), atol=1e-5, rtol=0)
