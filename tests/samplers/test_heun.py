"""Euler and Heun agree with diffusers."""

import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from diffusers_helpers import PREDICTION, float32_inside
from sampler_helpers import SHAPE, agree, diffusion, steps_of
from unnoise.diffusion.level import CLEAN
from unnoise.diffusion.schedule import Levels


def rescaled_states(scheduler, model, x):
    """Run a scheduler whose states are x / alpha, and return its state at each level, times alpha."""
    states, x = [], x * (1 + scheduler.sigmas[0].square()).sqrt()
    for t in scheduler.timesteps:
        output = model.output(scheduler.scale_model_input(x, t), model.schedule.level(t))
        x = scheduler.step(output, t, x).prev_sample
        states.append(x / (1 + scheduler.sigmas[scheduler.step_index].square()).sqrt())
    return states


@pytest.mark.usefixtures("float64")
@float32_inside
@pytest.mark.parametrize("target", ["eps", "v", "x0"])
@pytest.mark.parametrize("spaced", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [3, 20, 50])
@pytest.mark.parametrize(("spec", "theirs"), [("euler", EulerDiscreteScheduler), ("heun", HeunDiscreteScheduler)])
def test_euler_and_heun_are_those_of_diffusers(spec, theirs, steps, spaced, target):
    """Their scheduler counts each evaluation of Heun as a step: every second one is a step of ours, and the last.

    They have our sigmas: their own are float32, and at times between the levels (linspace) not interpolated in the
    logarithm. The states of their Euler are float32 all the same.
    """
    model = diffusion(target)
    scheduler = theirs(beta_start=1e-4, beta_end=0.02, prediction_type=PREDICTION[target], timestep_spacing=spaced)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.unique().flip(0)
    levels = Levels((*map(model.schedule.level, times), CLEAN), model.schedule)
    sigmas, x = torch.stack([level.ratio for level in levels]), torch.randn(2, *SHAPE)
    scheduler.sigmas = sigmas if spec == "euler" else sigmas.repeat_interleave(2)[1:-1]
    states = rescaled_states(scheduler, model, x)
    if spec == "heun":
        states = [*states[1::2], states[-1]]
    agree((step.x for step in steps_of(spec, model, x, levels)), states, 1e-10 if spec == "heun" else 1e-5)
