"""The forward process and its posterior agree with the notebook, with DDPM and with Bayes' rule."""

import math

import pytest
import torch

from process_helpers import SCHEDULES, close, f64, images, schedule
from unnoise.diffusion.level import CLEAN
from unnoise.diffusion.process import posterior_mean, posterior_variance, q_sample, q_step, transition
from unnoise.diffusion.schedule import Schedule


def test_notebook_worked_example():
    """X = 0.80, beta = 0.02: the next value has mean 0.792 and standard deviation 0.1414."""
    t = Schedule.from_betas(torch.tensor([0.02], dtype=f64)).level(0)
    scale, variance = transition(CLEAN, t)
    close(scale, 0.99, 5e-3)
    close(scale * 0.80, 0.792, 5e-4)
    close(variance, 0.02, 1e-15)
    close(variance.sqrt(), 0.1414, 5e-5)

    pixels = torch.full((1, 1, 1000, 1000), 0.80, dtype=f64)
    after = q_step(pixels, torch.randn_like(pixels), CLEAN, t)
    close(after.mean(), 0.98**0.5 * 0.80, 5 * 0.1414 / 1000)  # five standard errors
    close(after.std(), 0.02**0.5, 5 * 0.1414 / (1000 * 2**0.5))


def test_notebook_direct_step_is_the_repeated_one():
    """Four steps of the notebook, beta from 0.03 to 0.3, have the mean and the deviation of one q_sample."""
    coarse = Schedule.from_betas(torch.linspace(0.03, 0.3, 4, dtype=f64))
    x0 = torch.linspace(-1, 1, 5, dtype=f64).expand(200_000, 1, 1, 5)
    walked = x0
    for i in range(4):
        walked = q_step(walked, torch.randn_like(walked), coarse.level(i - 1), coarse.level(i))
    jumped = q_sample(x0, torch.randn_like(x0), coarse.level(3))
    error = 5 / 200_000**0.5
    close(walked.mean(0), jumped.mean(0), 2 * error)
    close(walked.std(0), jumped.std(0), 2 * error)
    close(jumped.mean(0), math.prod([0.97, 0.88, 0.79, 0.7]) ** 0.5 * x0[0], error)


@pytest.mark.parametrize("spec", SCHEDULES)
def test_one_step_transitions_compose_to_the_closed_form(spec):
    table = schedule(spec)
    scale, variance = torch.tensor(1.0, dtype=f64), torch.tensor(0.0, dtype=f64)
    for i in range(table.T):
        step, added = transition(table.level(i - 1), table.level(i))
        scale, variance = step * scale, step**2 * variance + added
        close(scale, table.alpha[i], 1e-12)
        close(variance, table.sigma[i] ** 2, 1e-12)


def test_q_sample_of_a_batch_uses_one_level_an_image():
    table, x0, eps = schedule("cosine"), images(3, 2, 4, 4), images(3, 2, 4, 4)
    batch = q_sample(x0, eps, table.level(torch.tensor([0, 500, 999])))
    for i, t in enumerate([0, 500, 999]):
        close(batch[i], table.alpha[t] * x0[i] + table.sigma[t] * eps[i], 1e-15)


def test_posterior_is_equations_6_and_7_of_ddpm():
    """Ho et al. 2020, with arrays as the paper writes them, at all of the 1000 levels."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=f64)
    alpha_bar = torch.cumprod(1 - beta, 0)
    table, x0, x_t = schedule("linear"), images(2, 1, 3, 3), images(2, 1, 3, 3)
    for t in range(1000):
        before = alpha_bar[t - 1] if t else torch.tensor(1.0, dtype=f64)
        mean = (before.sqrt() * beta[t] * x0 + (1 - beta[t]).sqrt() * (1 - before) * x_t) / (1 - alpha_bar[t])
        variance = (1 - before) / (1 - alpha_bar[t]) * beta[t]
        close(posterior_mean(x0, x_t, table.level(t), table.level(t - 1)), mean, 1e-9)
        close(posterior_variance(table.level(t), table.level(t - 1)), variance, 1e-9)
        close(transition(table.level(t - 1), table.level(t))[1], beta[t], 1e-9)


@pytest.mark.parametrize("spec", SCHEDULES)
@pytest.mark.parametrize(("s", "t"), [(0, 1), (0, 999), (3, 700), (249.5, 250), (10.25, 998.75), (500, 501)])
def test_posterior_between_any_two_levels_is_bayes_rule(spec, s, t):
    """q(x_s | x_t, x0) is proportional to q(x_t | x_s) q(x_s | x0): precisions add, means are weighted by them."""
    table, x0, x_t = schedule(spec), images(2, 1, 3, 3), images(2, 1, 3, 3)
    s, t = (table.level(time * ((table.T - 1) / 999)) for time in (s, t))
    scale, variance = t.alpha / s.alpha, t.sigma**2 - (t.alpha / s.alpha * s.sigma) ** 2
    precision = 1 / s.sigma**2 + scale**2 / variance
    mean = (s.alpha * x0 / s.sigma**2 + scale * x_t / variance) / precision
    close(posterior_variance(t, s), 1 / precision, 1e-9)
    close(posterior_mean(x0, x_t, t, s), mean, 1e-9)


def test_posterior_at_the_clean_level_is_the_image():
    t, x0, x_t = schedule("linear").level(400), images(2, 1, 3, 3), images(2, 1, 3, 3)
    close(posterior_mean(x0, x_t, t, CLEAN), x0, 1e-12)
    close(posterior_variance(t, CLEAN), 0.0, 0)
