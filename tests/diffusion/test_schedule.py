"""Schedules are their papers' functions and agree with diffusers; levels between are interpolated."""

import math

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr

from process_helpers import SCHEDULES, close, f64, images, schedule
from unnoise.diffusion.process import q_sample
from unnoise.errors import InputError


@pytest.mark.parametrize("spec", SCHEDULES)
def test_level_is_the_table_at_integers(spec):
    table = schedule(spec)
    level = table.level(torch.arange(table.T))
    assert torch.equal(level.alpha.flatten(), table.alpha)
    assert torch.equal(level.sigma.flatten(), table.sigma)
    for i in (0, 1, table.T // 2, table.T - 1):
        one = table.level(i)
        assert one.alpha.shape == one.time.shape == ()
        assert (one.time, one.alpha, one.sigma) == (i, table.alpha[i], table.sigma[i])


@pytest.mark.parametrize("spec", SCHEDULES)
def test_level_between_integers_is_monotone_and_linear_in_half_log_snr(spec):
    table = schedule(spec)
    level = table.level(torch.linspace(0, table.T - 1, 10 * (table.T - 1) + 1, dtype=f64))
    assert (level.half_log_snr.flatten().diff() < 0).all()
    assert (level.alpha.flatten().diff() <= 0).all()
    assert (level.sigma.flatten().diff() >= 0).all()
    i = table.T // 24
    ends = table.level(torch.tensor([i, i + 1])).half_log_snr.flatten()
    close(table.level(i + 0.25).half_log_snr, 0.75 * ends[0] + 0.25 * ends[1], 1e-12)
    norm = level.alpha.square() + level.sigma.square()
    table_norm = table.alpha.square() + table.sigma.square()
    assert norm.min() >= table_norm.min() - 1e-12
    assert norm.max() <= table_norm.max() + 1e-12


def test_level_minus_one_is_clean():
    level = schedule("cosine").level(torch.tensor([-1, 0]))
    assert level.alpha[0] == 1
    assert level.sigma[0] == 0
    assert level.sigma[1] > 0
    one = schedule("cosine").level(-1)
    assert (one.time, one.alpha, one.sigma) == (-1, 1, 0)


def test_level_beyond_the_table_is_refused():
    for time in (1000, 999.5, -1.5):
        with pytest.raises(AssertionError):
            schedule("linear").level(time)


@pytest.mark.parametrize("spec", SCHEDULES)
def test_time_is_the_inverse_of_level(spec):
    table = schedule(spec)
    last = table.T - 1 if table.alpha[-1] > 0 else table.T - 2  # beyond, half_log_snr has no end
    times = torch.linspace(0, last, 5 * last + 1, dtype=f64)
    close(table.time(table.level(times).half_log_snr.flatten()), times, 1e-6)
    assert table.time(-math.inf) == table.T - 1
    assert table.time(math.inf) == 0
    assert table.at(table.level(last / 2).half_log_snr).time.ndim == 0


def test_linear_is_the_notebooks():
    def get_betas(T=1000, beta_start=1e-4, beta_end=0.02):
        return torch.linspace(beta_start, beta_end, T, dtype=f64)

    table, betas = schedule("linear"), get_betas()
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    close(table.betas, betas, 1e-12)
    close(table.alphas_cumprod, alpha_bar, 1e-12)
    close(table.alpha, alpha_bar.sqrt(), 1e-12)
    close(table.sigma, (1 - alpha_bar).sqrt(), 1e-12)
    close(schedule("linear:T=4,start=0.03,end=0.3").betas, get_betas(4, 0.03, 0.3), 1e-12)


def test_cosine_is_equation_17():
    """Nichol & Dhariwal 2021: alpha_bar = f(t) / f(0), but for the last betas, which are kept below 0.999."""
    table = schedule("cosine")
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    close(table.alphas_cumprod[:-1], torch.tensor(f[1:-1], dtype=f64) / f[0], 1e-12)
    assert table.betas.max() <= 0.999 + 1e-12
    assert schedule("cosine:max_beta=0.5").betas.max() <= 0.5 + 1e-12


def test_flow_is_a_straight_line():
    table, x0, eps = schedule("flow:T=4"), images(1, 1, 2, 2), images(1, 1, 2, 2)
    for i, u in enumerate([0.25, 0.5, 0.75, 1.0]):
        close(q_sample(x0, eps, table.level(i)), (1 - u) * x0 + u * eps, 1e-15)


def test_sigmoid_is_the_papers_function():
    """Chen 2023 (arXiv:2301.10972), algorithm 1, transcribed; the last level is where a beta is kept below 0.999."""

    def gamma(t, start=-3, end=3, tau=1.0):
        v_start, v_end = (1 / (1 + math.exp(-x / tau)) for x in (start, end))
        return (v_end - 1 / (1 + math.exp(-(t * (end - start) + start) / tau))) / (v_end - v_start)

    expected = [gamma((i + 1) / 1000) for i in range(999)]
    close(schedule("sigmoid").alphas_cumprod[:-1], expected, 1e-12)


def test_laplace_levels_are_quantiles():
    """Half of the levels lie on each side of mu; in each half, log(SNR) - mu is exponential with scale b."""
    log_snr = 2 * schedule("laplace:T=2000,mu=0.5,b=0.7").half_log_snr
    below = (0.5 - log_snr[1000:]) / 0.7
    close(torch.exp(-below), 1 - 2 * ((torch.arange(1000, 2000, dtype=f64) + 0.5) / 2000 - 0.5), 1e-12)
    close(log_snr + log_snr.flip(0), torch.ones(2000), 1e-9)


def test_zero_snr_is_that_of_diffusers():
    """Their function, from our betas, also ends in an alpha-bar of 0."""
    expected = torch.cumprod(1 - rescale_zero_terminal_snr(schedule("scaled_linear").betas), 0)
    ours = schedule("zero_snr:of=scaled_linear")
    close(ours.alphas_cumprod, expected, 1e-12)
    assert ours.alpha[-1] == 0


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [("linear", "linear"), ("cosine", "squaredcos_cap_v2"), ("scaled_linear:start=0.0001,end=0.02", "scaled_linear")],
)
@pytest.mark.parametrize("T", [1000, 50])
def test_schedules_agree_with_diffusers(spec, theirs, T):
    """Their betas are float32, so the agreement is as close as float32 allows."""
    expected = DDPMScheduler(num_train_timesteps=T, beta_schedule=theirs).alphas_cumprod
    close(schedule(f"{spec}{',' if ':' in spec else ':'}T={T}").alphas_cumprod, expected, 1e-6)


def test_flow_is_that_of_diffusers():
    """Their schedule is its sigmas, in float32."""
    close(schedule("flow").sigma.flip(0), FlowMatchEulerDiscreteScheduler().sigmas[:1000], 1e-6)


def test_laplace_of_diffusers_takes_alpha_for_its_square():
    """Their alpha-bar is the alpha of b = 0.5, over its value at their start; every second level is one of ours.

    The quantile of level k of 500 is (2 k + 1) / 1000, that of their level 2 k; they add 1e-6 inside the logarithm.
    """
    start = torch.sigmoid(torch.tensor(-0.5 * math.log(1e-6), dtype=f64)).sqrt()
    theirs = DDPMScheduler(beta_schedule="laplace").alphas_cumprod[::2]
    ours = schedule("laplace:T=500,b=0.5")
    close(ours.alpha / start, theirs, 1e-4)
    assert (ours.alphas_cumprod - theirs).abs().max() > 0.2


def test_sigmoid_of_diffusers_is_another_function():
    """Their sigmoid gives betas, ours alphas_cumprod (Jabri et al. 2022); the spec `betas` gives theirs."""
    theirs = DDPMScheduler(beta_schedule="sigmoid")
    values = "-".join(f"{float(beta):.9g}" for beta in theirs.betas)
    close(schedule(f"betas:values={values}").alphas_cumprod, theirs.alphas_cumprod, 1e-6)
    assert (schedule("sigmoid").alphas_cumprod - theirs.alphas_cumprod).abs().max() > 0.2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linear:T=0", "at least 1 level, got 0"),
        ("cosine:T=-3", "at least 1 level, got -3"),
        ("linear:start=0", "between 0 and 1, got 0"),
        ("linear:end=1.5", "between 0 and 1, got 1.5"),
        ("cosine:s=0", "between 0 and 1, got 0"),
        ("cosine:s=nan", "s is a finite number, got nan"),
        ("cosine:max_beta=1", "between 0 and 1, got 1"),
        ("linear:T=2.5", "takes a whole number, got '2.5'"),
        ("linear:beta=0.1", "unknown option of schedule linear 'beta'"),
        ("linaer", "did you mean 'linear'"),
    ],
)
def test_bad_schedules_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        schedule(spec)
