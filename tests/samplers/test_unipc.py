"""UniPC solves its paper's equation and agrees with diffusers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import (
    UniPCMultistepScheduler,
)
from torch.testing import assert_close

from diffusers_helpers import BETAS, PREDICTION, float32_inside, their_states
from process_helpers import schedule
from sampler_helpers import FIRST, GAUSSIAN, LAST, SHAPE, agree, between, diffusion, error, steps_of
from unnoise.diffusion.level import CLEAN
from unnoise.errors import InputError
from unnoise.samplers.unipc import weights


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_is_of_order_one_more(order, variant):
    x = GAUSSIAN.draw(16, FIRST)
    errors = [error(f"unipc:order={order},variant={variant}", between(FIRST, LAST, n), x) for n in (40, 80, 160)]
    for coarse, fine in pairwise(errors):
        assert abs(math.log2(coarse / fine) - (order + 1)) < 0.15


def test_unipc_has_an_order_from_1_to_3():
    with pytest.raises(InputError, match="1, 2 or 3, got 4"):
        steps_of("unipc:order=4", GAUSSIAN, GAUSSIAN.draw(1, FIRST), schedule("linear").grid(5))


def paper_weights(places, h):
    """Solve R_p(h) a B(h) = phi_p(h) as it is written, h^n n! phi_{n + 1}(-h) by quadrature: a B(h) / r."""
    nodes, masses = np.polynomial.legendre.leggauss(30)
    part = (nodes + 1) / 2
    R, phi = np.empty((len(places), len(places))), np.empty(len(places))
    for n in range(1, len(places) + 1):
        R[n - 1] = [(r * h) ** (n - 1) for r in places]
        integral = np.sum(masses / 2 * np.exp(-(1 - part) * h) * part**n) / math.factorial(n)
        phi[n - 1] = -(h**n) * math.factorial(n) * integral
    return np.linalg.solve(R, phi) / places


@pytest.mark.parametrize("h", [1e-2, 0.3, 2.0])
@pytest.mark.parametrize("places", [(-0.7, -1.9), (-0.7, 1.0), (-0.7, -1.9, 1.0)], ids=["UniP-3", "UniC-2", "UniC-3"])
def test_unipc_solves_the_papers_equation(places, h):
    r, step = torch.tensor(places, dtype=torch.float64), torch.tensor(h, dtype=torch.float64)
    ours = [weights(r, step, variant) for variant in ("bh1", "bh2")]
    assert torch.equal(*ours), "B(h) cancels"
    assert_close(ours[0].numpy(), paper_weights(np.array(places), h), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("variant", "B"), [("bh1", lambda h: -h), ("bh2", lambda h: math.expm1(-h))])
@pytest.mark.parametrize("place", [-0.7, 1.0], ids=["UniP-2", "UniC-1"])
def test_unipc_takes_one_half_for_a_single_weight(place, variant, B):
    """The paper's equation has 1/2 + O(h) for a single weight, which does not change the order."""
    for h in (0.1, 0.01):
        ours = weights(torch.tensor([place], dtype=torch.float64), torch.tensor(h, dtype=torch.float64), variant)
        assert_close(float(ours) * place / B(h), 0.5, rtol=1e-12, atol=0)
        assert abs(paper_weights(np.array([place]), h)[0] * place / B(h) - 0.5) < h


def unipc_pair(order, steps, spaced="trailing", scheduled="linear", target="v", **options):
    """Return our states and those of diffusers, from the same noise and the same network."""
    model = diffusion(target, scheduled)
    scheduler = UniPCMultistepScheduler(
        beta_schedule=BETAS[scheduled],
        solver_order=order,
        prediction_type=PREDICTION[target],
        timestep_spacing=spaced,
        **options,
    )
    scheduler.set_timesteps(steps)
    last = CLEAN if scheduler.sigmas[-1] == 0 else model.schedule.level(0)
    levels = [*map(model.schedule.level, scheduler.timesteps), last]
    scheduler.sigmas = torch.stack([level.ratio for level in levels])  # theirs are float32
    x = torch.randn(2, *SHAPE)
    ours = steps_of(f"unipc:order={order},variant={scheduler.config.solver_type}", model, x, levels)
    return [step.x for step in ours], their_states(scheduler, model, x)


@pytest.mark.usefixtures("float64")
@float32_inside
@pytest.mark.parametrize(("scheduled", "target"), [("linear", "eps"), ("linear", "v"), ("cosine", "x0")])
@pytest.mark.parametrize("spaced", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [3, 15, 50])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_is_that_of_diffusers(order, variant, steps, spaced, scheduled, target):
    """All steps of theirs are of full order here; they then have to end at the cleanest level of the schedule."""
    options = {"solver_type": variant, "lower_order_final": False, "final_sigmas_type": "sigma_min"}
    if spaced == "leading":
        options["steps_offset"] = 1  # else the cleanest level comes twice
    agree(*unipc_pair(order, steps, spaced, scheduled, target, **options), 1e-10)


@pytest.mark.usefixtures("float64")
@float32_inside
def test_unipc_of_diffusers_lowers_the_order_at_the_end():
    """Ours keeps the order until the last step, which is x0; the test above shows that nothing else differs."""
    ours, theirs = unipc_pair(2, 20)
    agree(ours, theirs, 1e-10)
    ours, theirs = unipc_pair(3, 20)
    agree(ours[:18], theirs[:18], 1e-10)
    assert (ours[18] - theirs[18]).abs().max() > 1e-4
