"""Adaptive steps keep to the tolerance and need no levels between."""

import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from process_helpers import schedule
from sampler_helpers import FIRST, GAUSSIAN, LAST, SHAPE, counted, diffusion, error, steps_of
from unnoise.diffusion.level import CLEAN
from unnoise.diffusion.schedule import Levels
from unnoise.errors import InputError


def adaptive(tolerance, x, levels, denoise=GAUSSIAN):
    """Return the images at the end, and the number of evaluations."""
    noted, calls = counted(denoise)
    *_, last = steps_of(f"adaptive:tolerance={tolerance}", noted, x, levels)
    return last.x, len(calls)


def test_adaptive_keeps_to_its_tolerance_and_is_of_order_2():
    """The error falls with the tolerance, and with the square of the evaluations, as declared."""
    x, levels = GAUSSIAN.draw(16, FIRST), Levels((FIRST, LAST), schedule("linear"))
    exact, errors, evaluations = GAUSSIAN.flow(x, FIRST, LAST), [], []
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        end, calls = adaptive(tolerance, x, levels)
        errors.append(float((end - exact).square().mean().sqrt()))
        evaluations.append(calls)
        assert 0.1 * tolerance < errors[-1] < tolerance
    for (coarse, few), (fine, many) in pairwise(zip(errors, evaluations, strict=True)):
        assert abs(math.log(coarse / fine) / math.log(many / few) - 2) < 0.4


@pytest.mark.parametrize("scheduled", ["linear", "cosine", "zero_snr", "flow"])
def test_adaptive_needs_no_levels_between(scheduled):
    """The sampler divides one given step itself, with fewer evaluations and a smaller error than Heun's method."""
    levels = schedule(scheduled).grid(1)
    x = GAUSSIAN.draw(16, levels[0])
    end, calls = adaptive(0.02, x, levels)
    off = float((end - GAUSSIAN.flow(x, levels[0], CLEAN)).square().mean().sqrt())
    assert calls < 40
    assert off < 0.01
    assert off < error("heun", schedule(scheduled).grid(14), x) or scheduled == "flow"


def test_adaptive_lands_on_the_given_levels():
    noted, calls = counted(GAUSSIAN)
    levels = schedule("cosine").grid(6)
    steps = steps_of("adaptive", noted, GAUSSIAN.draw(3, levels[0]), levels)
    assert [step.level for step in steps] == [*levels[1:]]
    seen = torch.stack([level.alpha.flatten() for level in calls])
    for level in [*levels[:-1], schedule("cosine").level(0)]:
        assert (seen - level.alpha).abs().amin(0).max() < 1e-12


@pytest.mark.usefixtures("float64")
def test_adaptive_gives_up_on_no_number_alone():
    """An image of NaN neither delays nor changes the other images of its batch."""
    model, levels, x = diffusion("v"), schedule("linear").grid(2), torch.randn(3, *SHAPE)

    def broken(x, level):
        predicted = model(x, level)
        bad = torch.where(torch.arange(3) == 1, math.nan, 1.0)[:, None, None, None]
        return predicted._replace(x0=predicted.x0 * bad)

    (end, calls), (whole, enough) = adaptive(0.02, x, levels, broken), adaptive(0.02, x, levels, model)
    assert calls <= enough
    assert end[1].isnan().all()
    assert_close(end[[0, 2]], whole[[0, 2]], rtol=0, atol=1e-12)


def test_adaptive_ends_whatever_the_network_says():
    """The network returns noise: no step is small enough, but there is a smallest step."""

    def senseless(x, level):
        return GAUSSIAN(1e4 * torch.randn_like(x), level)

    _, calls = adaptive(1e-3, GAUSSIAN.draw(1, FIRST), Levels((FIRST, LAST), schedule("linear")), senseless)
    assert 1000 < calls < 2000


def test_adaptive_has_a_tolerance_above_0():
    with pytest.raises(InputError, match="above 0, got 0"):
        adaptive(0.0, GAUSSIAN.draw(1, FIRST), schedule("linear").grid(5))
