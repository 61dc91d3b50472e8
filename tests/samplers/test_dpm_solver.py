"""DPM-Solver++ is its paper's formulas and agrees with diffusers."""

import math

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
)
from torch.testing import assert_close

from diffusers_helpers import BETAS, PREDICTION, float32_inside, their_states
from process_helpers import schedule
from sampler_helpers import SHAPE, agree, diffusion, preserving, replay, steps_of
from unnoise.diffusion.level import CLEAN
from unnoise.diffusion.model import Prediction
from unnoise.diffusion.schedule import Levels
from unnoise.samplers import dpm_solver


def by_the_paper(name, x, x0, lam, z):
    """Return the step of Lu et al. 2022 (arXiv:2211.01095) from lam[0] to lam[1], given x0 at lam[0], [-1] and [-2]."""
    alpha, sigma = torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()
    h, r = lam[1] - lam[0], (lam[0] - lam[-1]) / (lam[1] - lam[0])
    if name == "dpmpp_1s":  # eq. 8, k = 1
        return sigma[1] / sigma[0] * x - alpha[1] * (torch.exp(-h) - 1) * x0[0]
    D = (1 + 1 / (2 * r)) * x0[0] - 1 / (2 * r) * x0[-1]  # algorithm 2
    if name == "dpmpp_2m":
        return sigma[1] / sigma[0] * x - alpha[1] * (torch.exp(-h) - 1) * D
    if name == "dpmpp_2m_sde":  # section 5
        mean = sigma[1] / sigma[0] * torch.exp(-h) * x + alpha[1] * (1 - torch.exp(-2 * h)) * D
        return mean + sigma[1] * (1 - torch.exp(-2 * h)).sqrt() * z
    nodes, masses = np.polynomial.legendre.leggauss(40)  # dpmpp_3m: eq. 7, of the parabola through the three images
    total = torch.zeros_like(x)
    for node, mass in zip(nodes, masses, strict=True):
        at = lam[0] + h * (node + 1) / 2
        parabola = sum(
            x0[i] * math.prod((at - lam[j]) / (lam[i] - lam[j]) for j in (0, -1, -2) if j != i) for i in (0, -1, -2)
        )
        total += mass / 2 * h * torch.exp(at) * parabola
    return sigma[1] / sigma[0] * x + sigma[1] * total


@pytest.mark.parametrize("name", ["dpmpp_1s", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde"])
def test_dpm_solver_is_the_papers_formulas(name):
    """The last of three steps of each agrees, from independent random images."""
    lam = torch.tensor([-0.7, -0.2, 0.1, 0.9], dtype=torch.float64)
    levels = Levels(tuple(map(preserving, lam)), schedule("linear"))
    seen, z = torch.randn(3, 1, *SHAPE, dtype=torch.float64), torch.randn(1, *SHAPE, dtype=torch.float64)
    queue = iter(seen)

    def denoise(x, level):
        x0 = next(queue)
        return Prediction(x0, (x - level.alpha * x0) / level.sigma)

    *_, before, last = steps_of(name, denoise, torch.zeros_like(z), levels, lambda _: z)
    expected = by_the_paper(name, before.x, {0: seen[2], -1: seen[1], -2: seen[0]}, lam.roll(-2), z)
    assert_close(last.x, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and NumPy 2
@pytest.mark.parametrize("spaced", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [3, 10, 20, 50])
@pytest.mark.parametrize(("scheduled", "target"), [("linear", "eps"), ("linear", "v"), ("cosine", "x0")])
def test_dpmpp_2m_is_that_of_diffusers(scheduled, target, steps, spaced):
    """Their sigmas and states are always float32, so the agreement is as close as float32 allows.

    Their leading and linspace leave out the cleanest level: the levels of ours are made of their times.
    """
    model = diffusion(target, scheduled)
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule=BETAS[scheduled],
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        prediction_type=PREDICTION[target],
        timestep_spacing=spaced,
    )
    scheduler.set_timesteps(steps)
    levels = [*map(model.schedule.level, scheduler.timesteps), CLEAN]
    if spaced == "trailing":
        assert [level.time for level in levels] == [level.time for level in model.schedule.grid(steps)]
    x = torch.randn(2, *SHAPE)
    ours = steps_of("dpmpp_2m", model, x, levels)
    agree((step.x for step in ours), their_states(scheduler, model, x), 1e-4)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and NumPy 2
def test_dpmpp_3m_is_that_of_diffusers_with_half_the_second_derivative(monkeypatch):
    """They take the divided difference for the derivative, which is twice that: ours differs by this alone."""
    model = diffusion("v", "linear")
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="linear",
        solver_order=3,
        final_sigmas_type="zero",
        lower_order_final=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(20)
    x, whole = torch.randn(2, *SHAPE), dpm_solver.derivatives
    theirs = their_states(scheduler, model, x)
    ours = [step.x for step in steps_of("dpmpp_3m", model, x, model.schedule.grid(20))]
    assert (ours[-1] - theirs[-1]).abs().max() > 1e-4

    def halved(past):
        first, second = whole(past)
        return first, second / 2

    monkeypatch.setattr(dpm_solver, "derivatives", halved)
    agree((step.x for step in steps_of("dpmpp_3m", model, x, model.schedule.grid(20))), theirs, 1e-4)


@pytest.mark.usefixtures("float64")
@float32_inside
@pytest.mark.parametrize("spaced", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [3, 20, 50])
@pytest.mark.parametrize(("scheduled", "target"), [("linear", "eps"), ("linear", "v"), ("cosine", "x0")])
def test_dpmpp_2m_sde_is_that_of_diffusers(scheduled, target, steps, spaced):
    model = diffusion(target, scheduled)
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule=BETAS[scheduled],
        algorithm_type="sde-dpmsolver++",
        prediction_type=PREDICTION[target],
        timestep_spacing=spaced,
    )
    scheduler.set_timesteps(steps)
    levels = [*map(model.schedule.level, scheduler.timesteps), CLEAN]
    x, *noises = torch.randn(steps + 1, 2, *SHAPE)
    ours = steps_of("dpmpp_2m_sde", model, x, levels, replay(noises))
    agree((step.x for step in ours), their_states(scheduler, model, x, variance_noise=noises), 1e-5)
