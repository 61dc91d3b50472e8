"""Every registered sampler keeps the contract and solves closed-form worlds."""

import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Literal, get_args, get_origin

import pytest
import torch
from torch.testing import assert_close

from process_helpers import PAIRS, SCHEDULES, SPACINGS, schedule
from sampler_helpers import GAUSSIAN, PIXELS, SHAPE, Toy, between, diffusion, steps_of
from unnoise import registry
from unnoise.config import Sampling
from unnoise.options import format_value, options_of
from unnoise.samplers.base import Step
from unnoise.samplers.draw import draw, seeded_noise
from unnoise.types import RandnLike
from worlds import Points


def sampler_specs():
    """Return each sampler with its defaults, and with each other value of an option of few values."""
    specs = ["ddim:eta=1", "euler:churn=4", "heun:churn=4"]  # a number has many values: these are other ends
    for name in registry.sampler.names():
        specs.append(name)
        for key, (hint, default) in options_of(registry.sampler.entries[name]).items():
            values = get_args(hint) if get_origin(hint) is Literal else (False, True) if hint is bool else ()
            specs += [f"{name}:{key}={format_value(value)}" for value in values if value != default]
    return sorted(specs)


SAMPLERS = sampler_specs()


def check_contract(spec, scheduled, spaced, target):
    model, calls = diffusion(target, scheduled, Toy(outputs=2 * SHAPE[0])), 0  # with a learned variance

    def counted(x_t, level):
        nonlocal calls
        calls += 1
        return model(x_t, level)

    levels, start = model.schedule.grid(4, spaced), torch.randn(2, *SHAPE)
    given, rng = start.clone(), torch.get_rng_state()
    steps = registry.sampler.get(spec)(counted, given, levels, randn_like=seeded_noise([0, 1]))
    assert isinstance(steps, Iterator)
    done, calls_for_first = [next(steps)], calls
    done += list(steps)
    assert 0 < calls_for_first < calls, "steps are computed as they are asked for"
    assert [step.level for step in done] == [*levels[1:]]
    assert done[-1].level.sigma == 0
    for step in done:
        assert isinstance(step, Step)
        assert step.x.shape == step.x0.shape == start.shape
        assert step.x.dtype == step.x0.dtype == start.dtype
        assert step.x.isfinite().all()
        assert step.x0.isfinite().all()
    assert torch.equal(given, start), "the input is not changed"
    assert torch.equal(torch.get_rng_state(), rng), "all noise comes from randn_like"


CASES = [  # every sampler with every pair and with every spacing, and every pair with every spacing
    (spec, *pair, SPACINGS[(i + j) % len(SPACINGS)])
    for (i, spec), (j, pair) in product(enumerate(SAMPLERS), enumerate(PAIRS))
]


@pytest.mark.parametrize(("spec", "scheduled", "target", "spaced"), CASES)
def test_contract(spec, scheduled, target, spaced):
    check_contract(spec, scheduled, spaced, target)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", SAMPLERS)
def test_contract_of_all_together(spec):
    for (scheduled, target), spaced in product(PAIRS, SPACINGS):
        check_contract(spec, scheduled, spaced, target)


def test_contract_covers_and_catches_a_new_sampler(monkeypatch):
    """A sampler is tested once it is registered: nothing here names the samplers."""

    def careless(
        denoise, x, levels, *, sign: Literal["plus", "minus"] = "plus", randn_like: RandnLike = torch.randn_like
    ):
        for t, s in pairwise(levels):
            x0 = denoise(x, t).x0
            yield Step(x.copy_(x0), x0, s)

    monkeypatch.setitem(registry.sampler.entries, "careless", careless)
    assert {"careless", "careless:sign=minus"} <= set(sampler_specs())
    with pytest.raises(AssertionError, match="the input is not changed"):
        check_contract("careless", "linear", "trailing", "x0")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("spec", SAMPLERS)
def test_image_depends_on_its_seed_only(spec, clip):
    """The other images of the batch and its size change nothing."""
    model, how = diffusion("v", backbone=Toy(outputs=2 * SHAPE[0])), Sampling(spec, steps=6, clip=clip)

    def images(seeds):
        *_, last = draw(model, seeds, how)
        return last.x

    together = images([3, 4, 5, 6, 7])
    for split in ([[3], [4, 5], [6, 7]], [[3, 4, 5], [6], [7]], [[5, 3, 4], [7, 6]]):
        for seeds in split:
            assert_close(images(seeds), together[[seed - 3 for seed in seeds]], rtol=0, atol=1e-10)
    assert (together[0] - together[1]).abs().max() > 0.01


@pytest.mark.parametrize("spec", SAMPLERS)
def test_clip_keeps_images_in_range(spec):
    backbone = Toy(outputs=2 * SHAPE[0])
    with torch.no_grad():
        backbone.last.weight.mul_(30)
    model = diffusion(backbone=backbone)
    reach = {}
    for clip in (True, False):
        steps = list(draw(model, [0, 1], Sampling(spec, steps=8, clip=clip)))
        reach[clip] = max(step.x0.abs().max() for step in steps), steps[-1].x.abs().max()
    assert max(reach[True]) <= 1 + 1e-5
    assert min(reach[False]) > 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", SAMPLERS)
def test_gaussian_data_comes_back(spec):
    """The best denoiser gives samples with the mean and the variance of the data, within Monte-Carlo error."""
    count, levels = 10_000, schedule("linear").grid(1000)
    *_, last = steps_of(spec, GAUSSIAN, GAUSSIAN.draw(count, levels[0]), levels)
    assert ((last.x.mean(0) - GAUSSIAN.mean) / GAUSSIAN.std).abs().max() < 5 / math.sqrt(count)
    # 1000 steps are not infinitely many: with ddpm's small variance the narrowest pixel's is 1.9 % too narrow
    assert (last.x.std(0) / GAUSSIAN.std - 1).abs().max() < 5 / math.sqrt(2 * count) + 0.02


def is_deterministic(spec):
    levels, x = schedule("linear").grid(5), torch.randn(2, *PIXELS, dtype=torch.float64)
    noisy, quiet = (steps_of(spec, GAUSSIAN, x, levels, noise)[-1].x for noise in (torch.randn_like, torch.zeros_like))
    return torch.equal(noisy, quiet)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", [spec for spec in SAMPLERS if is_deterministic(spec)])
def test_deterministic_samplers_follow_the_probability_flow(spec):
    """At every level, x_s = mean_s + (std_s / std_t) (x_t - mean_t)."""
    levels = schedule("linear").grid(1000)
    x = GAUSSIAN.draw(8, levels[0])
    for step in steps_of(spec, GAUSSIAN, x, levels):
        assert_close(step.x, GAUSSIAN.flow(x, levels[0], step.level), rtol=0, atol=0.02)


def declared(spec):
    return registry.sampler.facts[spec.partition(":")[0]]


@pytest.mark.parametrize("spec", [spec for spec in SAMPLERS if not declared(spec).get("adaptive")])
def test_evaluations_are_those_declared(spec):
    calls = 0

    def counted(x_t, level):
        nonlocal calls
        calls += 1
        return GAUSSIAN(x_t, level)

    steps_of(spec, counted, torch.randn(1, *PIXELS), schedule("linear").grid(7))
    each = declared(spec)["evaluations"]
    assert calls in (7 * each, 7 * each - (each - 1)), "all steps alike, or the last takes one"


def moments(spec, levels, first):
    """Return the exact mean and variance at the end for Gaussian data, on which every sampler is linear.

    Each image of the batch has one impulse: in the start, or in one of the noises drawn. Their squares add up.
    """
    drawn = 0

    def count(x):
        nonlocal drawn
        drawn += 1
        return torch.zeros_like(x)

    mean0 = (first.alpha * GAUSSIAN.mean)[None]
    steps_of(spec, GAUSSIAN, mean0, levels, count)
    impulses = iter(torch.eye(drawn + 2, dtype=torch.float64)[2:].reshape(drawn, -1, 1, 1, 1))
    x = mean0.repeat(drawn + 2, 1, 1, 1)
    x[1] += GAUSSIAN.variance(first).sqrt()
    end = steps_of(spec, GAUSSIAN, x, levels, lambda x: next(impulses).expand_as(x))[-1].x
    return end[0], (end[1:] - end[0]).square().sum(0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "spec", [spec for spec in SAMPLERS if "order" in declared(spec) and not is_deterministic(spec)]
)
def test_weak_order(spec):
    """The mean and the variance converge to their limits at x_s at the declared order."""
    first, last = schedule("linear").level(800.5), schedule("linear").level(50.25)
    errors = []
    for steps in (40, 80, 160, 320):
        mean, variance = moments(spec, between(first, last, steps), first)
        apart = torch.cat([mean - last.alpha * GAUSSIAN.mean, variance - GAUSSIAN.variance(last)])
        errors.append(apart.abs().max())
    for coarse, fine in pairwise(errors):
        assert -0.15 < math.log2(coarse / fine) - declared(spec)["order"] < 0.5


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "spec", [spec for spec in SAMPLERS if is_deterministic(spec) and not declared(spec).get("adaptive")]
)
def test_order_of_the_solvers(spec):
    """Doubling the steps divides the error by 2^order, as declared; the deviation from this falls with the steps.

    The start is nearly pure noise. From a cleaner level, the low order of the first steps of dpmpp_3m and unipc,
    which do not have earlier images yet, would show.
    """
    order = declared(spec)["order"]
    first, last = schedule("linear").level(990.5), schedule("linear").level(100.25)
    x = GAUSSIAN.draw(16, first)
    exact = GAUSSIAN.flow(x, first, last)
    errors = [
        (steps_of(spec, GAUSSIAN, x, between(first, last, steps))[-1].x - exact).square().mean().sqrt()
        for steps in (20, 40, 80, 160, 320)
    ]
    for (coarse, fine), most in zip(pairwise(errors), (0.35, 0.2, 0.1, 0.06), strict=True):
        assert abs(math.log2(coarse / fine) - order) < most


# In 100 steps the first level has hardly any image and the last hardly any noise; else a sample may end between points
CALM = [name for name in SCHEDULES if (table := schedule(name)).alpha[-1] < 0.1 and table.sigma[table.T // 100] < 0.1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", SAMPLERS)
@pytest.mark.parametrize("scheduled", CALM)
def test_samples_of_a_finite_set_are_its_members(spec, scheduled):
    corners = Points(torch.tensor(list(product([-0.9, 0.6], repeat=2)), dtype=torch.float64).reshape(4, 1, 2, 1))
    x = torch.randn(400, 1, 2, 1, dtype=torch.float64)
    *_, last = steps_of(spec, corners, x, schedule(scheduled).grid(100))
    distance, index = corners.nearest(last.x)
    assert distance.max() < 1e-3
    assert (torch.bincount(index, minlength=4) - 100).abs().max() < 5 * math.sqrt(400 * 3 / 16)
