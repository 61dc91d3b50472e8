"""DPM-Solver++, UniPC and adaptive steps, each against its paper; more samplers against those of diffusers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from test_samplers import (
    BETAS,
    GAUSSIAN,
    PREDICTION,
    SHAPE,
    agree,
    between,
    diffusion,
    exact_table,
    preserving,
    replay,
    schedule,
    steps_of,
    their_states,
)
from torch.testing import assert_close

from unnoise.diffusion.level import CLEAN
from unnoise.diffusion.model import Prediction
from unnoise.diffusion.schedule import Levels
from unnoise.errors import InputError
from unnoise.samplers.ddim import invert
from unnoise.samplers.sde import reverse_step
from unnoise.samplers.unipc import weights

FIRST, LAST = schedule("linear").level(800.5), schedule("linear").level(50.25)
float32_inside = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy 2


def error(spec, levels, x):
    """Root mean square distance at the end to the exact flow of Gaussian data."""
    *_, last = steps_of(spec, GAUSSIAN, x, levels)
    return float((last.x - GAUSSIAN.flow(x, levels[0], levels[-1])).square().mean().sqrt())


# DPM-Solver++


def by_the_paper(name, x, x0, lam, z):
    """Lu et al. 2022 (arXiv:2211.01095) literally: from level 0 of lam to 1, knowing x0 at 0, -1 and -2 of them."""
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
    """One step of each, the last of three, from images that nothing but chance relates."""
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


# UniPC


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
    """The paper's equation has 1/2 + O(h) there, which leaves the order as it is."""
    for h in (0.1, 0.01):
        ours = weights(torch.tensor([place], dtype=torch.float64), torch.tensor(h, dtype=torch.float64), variant)
        assert_close(float(ours) * place / B(h), 0.5, rtol=1e-12, atol=0)
        assert abs(paper_weights(np.array([place]), h)[0] * place / B(h) - 0.5) < h


def unipc_pair(order, steps, spaced="trailing", scheduled="linear", target="v", **options):
    """States of ours and of diffusers', from the same noise by the same network."""
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
    """With all their steps of full order, which they can only end at the cleanest level of the schedule."""
    options = {"solver_type": variant, "lower_order_final": False, "final_sigmas_type": "sigma_min"}
    if spaced == "leading":
        options["steps_offset"] = 1  # else the cleanest level comes twice
    agree(*unipc_pair(order, steps, spaced, scheduled, target, **options), 1e-10)


@pytest.mark.usefixtures("float64")
@float32_inside
def test_unipc_of_diffusers_lowers_the_order_at_the_end():
    """Ours keeps it until the last step, which is x0; the test above shows that this is all that sets us apart."""
    ours, theirs = unipc_pair(2, 20)
    agree(ours, theirs, 1e-10)
    ours, theirs = unipc_pair(3, 20)
    agree(ours[:18], theirs[:18], 1e-10)
    assert (ours[18] - theirs[18]).abs().max() > 1e-4


# Adaptive steps


def counted(denoise):
    calls = []

    def noted(x, level):
        calls.append(level)
        return denoise(x, level)

    return noted, calls


def adaptive(tolerance, x, levels, denoise=GAUSSIAN):
    """The images at the end, and the number of evaluations."""
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
    """From noise to image in one given step: its own are enough, few, and many times better than as many of Heun's."""
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
    """An image that is no longer one neither holds up those beside it, nor changes them."""
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
    """Noise in place of predictions: no step is small enough, but there is a smallest."""

    def senseless(x, level):
        return GAUSSIAN(1e4 * torch.randn_like(x), level)

    _, calls = adaptive(1e-3, GAUSSIAN.draw(1, FIRST), Levels((FIRST, LAST), schedule("linear")), senseless)
    assert 1000 < calls < 2000


def test_adaptive_has_a_tolerance_above_0():
    with pytest.raises(InputError, match="above 0, got 0"):
        adaptive(0.0, GAUSSIAN.draw(1, FIRST), schedule("linear").grid(5))


# Agreement with diffusers: those that work on x / alpha, the SDE, inversion, and rectified flow


def rescaled_states(scheduler, model, x):
    """Run a scheduler whose states are x / alpha; what it has at each level, times alpha."""
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
    """Theirs counts each evaluation of Heun as a step: every other is one of ours, and so is the last.

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


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [3, 20, 100])
@pytest.mark.parametrize("scheduled", ["linear", "cosine"])
def test_inversion_is_that_of_diffusers(scheduled, steps):
    """Of eps: from another output theirs takes eps by the level where the step begins, ours by that of the network."""
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
    """Straight steps along eps - x0, from the levels of ours; the states of theirs are float32."""
    model = diffusion("flow", "flow")
    levels = model.schedule.grid(steps)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[float(level.sigma) for level in levels[:-1]])
    scheduler.timesteps = torch.stack([level.time for level in levels[:-1]])  # theirs are 1000 sigma
    x = torch.randn(2, *SHAPE)
    agree((step.x for step in steps_of(spec, model, x, levels)), their_states(scheduler, model, x), 1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("time", [400, 700, 999])
def test_euler_maruyama_steps_as_the_sde_of_diffusers(time, monkeypatch):
    """One step of their variance-preserving SDE, which has the betas of linear where its time is t / 999.

    Theirs is drift times a time step, ours the discretised process: 1 + beta / 2 for 2 - sqrt(1 - beta), and the noise
    left of continuous time for that of 1000 levels. Both differ by less than 1e-4 of a step once there is some noise.
    """
    from diffusers.schedulers.deprecated import scheduling_sde_vp

    scheduler = scheduling_sde_vp.ScoreSdeVpScheduler()
    scheduler.set_timesteps(1000)
    x, eps, z = torch.randn(3, 2, *SHAPE)
    monkeypatch.setattr(scheduling_sde_vp, "randn_tensor", lambda *_, **__: z)
    theirs, _ = scheduler.step_pred(eps, x, torch.tensor(time / 999))
    t, s = schedule("linear").level(time), schedule("linear").level(time - 1)
    assert_close(reverse_step(x, eps, t, s, lambda _: z), theirs, rtol=0, atol=1e-4 * float(x.abs().max()))
