"""DDIM, its inversion and its straight steps on a rectified flow agree with diffusers."""

from itertools import pairwise

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from diffusers_helpers import BETAS, PREDICTION, exact_table, their_states
from process_helpers import schedule
from sampler_helpers import GAUSSIAN, PIXELS, SHAPE, agree, diffusion, replay, steps_of
from unnoise.diffusion.level import CLEAN
from unnoise.errors import InputError
from unnoise.samplers.ddim import invert


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("exact", [True, False], ids=["our table", "their table"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [4, 20, 100])
@pytest.mark.parametrize("spaced", ["trailing", "leading"])
@pytest.mark.parametrize(("scheduled", "target"), [("linear", "eps"), ("linear", "v"), ("cosine", "x0")])
def test_ddim_is_that_of_diffusers(scheduled, target, spaced, steps, eta, exact):
    model = diffusion(target, scheduled)
    scheduler = DDIMScheduler(
        beta_schedule=BETAS[scheduled], clip_sample=False, prediction_type=PREDICTION[target], timestep_spacing=spaced
    )
    scheduler.set_timesteps(steps)
    if exact:
        exact_table(scheduler, model)
    x, *noises = torch.randn(steps + 1, 2, *SHAPE)
    ours = steps_of(f"ddim:eta={eta}", model, x, model.schedule.grid(steps, spaced), replay(noises))
    theirs = their_states(scheduler, model, x, eta=eta, variance_noise=noises)
    # if cosine's beta is 0.999, 1 - beta has 1 / 1000 of float32's precision
    agree((step.x for step in ours), theirs, 1e-10 if exact else 1e-4 if scheduled == "linear" else 1e-3)


@pytest.mark.parametrize("steps", [3, 50])
def test_ddim_with_eta_1_is_ddpm(steps):
    """Song et al. 2021, section 4.1: the posterior's variance makes the process Markovian."""
    levels = schedule("cosine").grid(steps)
    x, *noises = torch.randn(steps + 1, 4, *PIXELS, dtype=torch.float64)
    ddim, ddpm = (steps_of(spec, GAUSSIAN, x, levels, replay(noises)) for spec in ("ddim:eta=1", "ddpm"))
    agree((step.x for step in ddim), [step.x for step in ddpm], 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("scheduled", ["linear", "cosine"])
def test_inversion_and_back(scheduled):
    """The error of the way to noise and back falls with the steps, and with the iterations."""
    table, x = schedule(scheduled), GAUSSIAN.draw(16, CLEAN)

    def error(steps, iterations):
        levels = table.grid(steps)
        *_, noise = invert(GAUSSIAN, x, levels, iterations=iterations)
        assert noise.level is levels[0]
        return float((steps_of("ddim", GAUSSIAN, noise.x, levels)[-1].x - x).abs().max())

    once = [error(steps, 1) for steps in (20, 40, 80, 160)]
    assert once[0] < 0.3
    assert all(coarse / fine > 1.5 for coarse, fine in pairwise(once))
    assert error(20, 10) < once[0] / 2
    if scheduled == "linear":  # cosine's first level is 20,000 parts noise: there the fixed point is slow to come
        assert error(80, 10) < 1e-9


def test_inversion_needs_an_iteration():
    with pytest.raises(InputError, match="1 or more iterations, got 0"):
        next(invert(GAUSSIAN, torch.zeros(1, *PIXELS), schedule("linear").grid(5), iterations=0))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [3, 20, 100])
@pytest.mark.parametrize("scheduled", ["linear", "cosine"])
def test_inversion_is_that_of_diffusers(scheduled, steps):
    """Only the target eps agrees: for others, theirs computes eps at the level before, ours at the network's."""
    model = diffusion("eps", scheduled)
    scheduler = exact_table(DDIMInverseScheduler(beta_schedule=BETAS[scheduled], clip_sample=False), model)
    scheduler.set_timesteps(steps)
    x = torch.randn(2, *SHAPE)
    ours = [step.x for step in invert(model, x, model.schedule.grid(steps, "leading"))]
    agree(ours, their_states(scheduler, model, x), 1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [3, 20, 100])
@pytest.mark.parametrize("spec", ["ddim", "euler"])
def test_rectified_flow_is_that_of_diffusers(spec, steps):
    """Both step straight along eps - x0, at our levels; their states are float32."""
    model = diffusion("flow", "flow")
    levels = model.schedule.grid(steps)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[float(level.sigma) for level in levels[:-1]])
    scheduler.timesteps = torch.stack([level.time for level in levels[:-1]])  # theirs are 1000 sigma
    x = torch.randn(2, *SHAPE)
    agree((step.x for step in steps_of(spec, model, x, levels)), their_states(scheduler, model, x), 1e-5)
