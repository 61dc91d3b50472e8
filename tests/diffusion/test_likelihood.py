"""The bound and the likelihood by the ODE are their papers' formulas, and exact for Gaussian data."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from unnoise import registry
from unnoise.diffusion.level import Level
from unnoise.diffusion.likelihood import (
    bound,
    bounds,
    decode_log_probability,
    decoder_floor,
    discretised_gaussian,
    gaussian_kl,
    ode_bits_per_dim,
    ode_log_density,
    term,
)
from unnoise.diffusion.model import Prediction
from unnoise.diffusion.process import q_sample, reverse_variance
from unnoise.errors import InputError
from unnoise.evaluation.likelihood import without_weak_noise
from unnoise.samplers.draw import seeded_noise
from worlds import Flat, Gaussian

pytestmark = pytest.mark.usefixtures("float64")
NATS = math.log(2)  # of a bit


def schedule(spec):
    return registry.schedule.get(spec)()


def world(size=4, std=(0.1, 0.3)):
    """Return pixels of different brightness and contrast, almost none of them beyond white or black."""
    pixels = size * size
    mean = torch.linspace(-0.3, 0.2, pixels).reshape(1, size, size)
    return Gaussian(mean, torch.linspace(*std, pixels).reshape(1, size, size))


def quantised(x):
    return (x.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1


def digital(of, count):
    """Return images of the world in 256 bins, and the bits/dim that a perfect code spends on each."""
    x0 = quantised(of.mean + of.std * torch.randn(count, *of.mean.shape))
    exact = discretised_gaussian(x0, of.mean.expand_as(x0), of.std.square())
    return x0, -exact.mean(dim=(1, 2, 3)) / NATS


def within(values, expected, errors=5.0):
    """Check that the mean is within `errors` standard errors of the expected one, and return the mean."""
    error = values.std() / len(values) ** 0.5
    assert (values.mean() - expected).abs() <= errors * error, (values.mean(), expected, error)
    return values.mean()


def entropy(of):
    """Return the entropy of the world's images in 256 bins, in bits/dim."""
    values = (torch.arange(256) / 127.5 - 1).reshape(256, 1, 1, 1).expand(256, *of.mean.shape)
    logs = discretised_gaussian(values, of.mean.expand_as(values), of.std.square())
    return -(logs.exp() * logs).sum(dim=0).mean() / NATS


# The bound, written out


def literal(beta, variance, x0, noise, denoise):
    """Ho et al. 2020, eq. 5-8, 11 and 13 with arrays as the paper writes them; t counts from 1. [T + 1, b]."""
    T, table = len(beta), schedule("betas:values=" + "-".join(repr(float(b)) for b in beta))
    alpha, alpha_bar = 1 - beta, torch.cumprod(1 - beta, 0)
    before = torch.cat([torch.ones(1), alpha_bar[:-1]])
    tilde = (1 - before) / (1 - alpha_bar) * beta  # eq. 7
    fixed = beta if variance == "large" else torch.cat([tilde[1:2], tilde[1:]])
    losses = []
    for i, eps in zip(reversed(range(T)), noise, strict=True):
        x_t = alpha_bar[i].sqrt() * x0 + (1 - alpha_bar[i]).sqrt() * eps  # eq. 4
        believed = denoise(x_t, table.level(i)).eps
        mu = (x_t - beta[i] / (1 - alpha_bar[i]).sqrt() * believed) / alpha[i].sqrt()  # eq. 11
        if i:
            mu_tilde = (before[i].sqrt() * beta[i] * x0 + alpha[i].sqrt() * (1 - before[i]) * x_t) / (1 - alpha_bar[i])
            first = torch.distributions.Normal(mu_tilde, tilde[i].sqrt())
            nats = torch.distributions.kl_divergence(first, torch.distributions.Normal(mu, fixed[i].sqrt()))
        else:
            cdf = torch.distributions.Normal(mu, fixed[0].sqrt()).cdf
            top = torch.where(x0 > 0.999, 1.0, cdf(x0 + 1 / 255))  # eq. 13
            nats = -(top - torch.where(x0 < -0.999, 0.0, cdf(x0 - 1 / 255))).log()
        losses.append(nats.mean(dim=(1, 2, 3)) / NATS)
    last = torch.distributions.Normal(alpha_bar[-1].sqrt() * x0, (1 - alpha_bar[-1]).sqrt())
    prior = torch.distributions.kl_divergence(last, torch.distributions.Normal(0.0, 1.0)).mean(dim=(1, 2, 3)) / NATS
    return torch.stack([prior, *losses])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_bound_is_the_papers_formulas(variance, dtype, tolerance):
    """All 1000 terms agree for a wrong denoiser and images with black and white pixels."""
    of, wrong = world(), Gaussian(torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.5))
    x0 = quantised(of.draw(4, schedule("linear").level(-1)) * 4)
    assert x0.abs().max() == 1
    noise = torch.randn(1000, *x0.shape, dtype=dtype)
    draws = iter(noise)
    expected = literal(torch.linspace(1e-4, 0.02, 1000), variance, x0, noise.double(), wrong)
    levels = schedule("linear").grid(1000)
    got = bound(wrong, x0.to(dtype), levels, variance=variance, randn_like=lambda _: next(draws))
    assert got.total.dtype == dtype
    assert_close(got.prior.double(), expected[0], rtol=tolerance, atol=tolerance)
    assert_close(got.terms.double().T, expected[1:], rtol=tolerance, atol=tolerance)
    assert_close(got.total.double(), expected.sum(0), rtol=tolerance, atol=tolerance)


# The bound of the exact model


def closed_form(of, levels, variance):
    """L_T and each KL for images as they are, not in bins: E|x0 - E[x0 | x_t]|^2 is known. [steps]."""
    T, second = levels[0], of.mean.square() + of.std.square()
    nats = [T.alpha**2 * second + T.sigma**2 - 1 - (T.sigma**2).log()]
    for t, s in pairwise(levels[:-1]):
        left = (of.std * t.sigma).square() / of.variance(t)  # of Var[x0 | x_t]
        small = s.sigma**2 - (t.alpha * s.sigma**2 / t.sigma) ** 2 / s.alpha**2
        pull = s.alpha - t.alpha**2 * s.sigma**2 / (s.alpha * t.sigma**2)  # of x0, in the posterior's mean
        spread = small if variance == "small" else t.sigma**2 - (t.alpha * s.sigma / s.alpha) ** 2
        nats.append((spread / small).log() + (small + pull**2 * left) / spread - 1)
    return torch.stack(nats).mean(dim=(1, 2, 3)) / (2 * NATS)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("spec", ["linear", "flow"])
def test_bound_of_the_exact_model_is_its_closed_form(spec, variance):
    of, levels = world(), schedule(spec).grid(10)
    got = bound(of, of.draw(20_000, levels[-1]), levels, variance=variance)
    measured = torch.cat([got.prior[:, None], got.terms[:, :-1]], dim=1)  # the decoder has its own tests
    for values, expected in zip(measured.T, closed_form(of, levels, variance), strict=True):
        within(values, expected)


def test_bound_falls_to_the_entropy_as_levels_are_added():
    """Images in 256 bins, of noise, for which the large variance is the right one (Ho et al. 2020, section 3.2)."""
    of, gaps = world(std=(0.1, 0.25)), []
    x0, _ = digital(of, 20_000)
    for T in (10, 40, 160, 640):
        levels = schedule(f"cosine:T={T}").grid(T)
        decoded = bound(of, x0, levels[-3:], variance="large").terms[:, -1].mean()
        gaps.append(float(closed_form(of, levels, "large").sum() + decoded - entropy(of)))
    assert 0 < gaps[-1] < 0.02
    assert all(fine < 0.4 * coarse for coarse, fine in pairwise(gaps))


# Variances, the decoder


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_learned_variance_lies_between_small_and_large(steps):
    of, levels = world(), schedule("linear").grid(steps)
    x0 = of.draw(3, levels[-1]).clamp(-1, 1)

    def total(variance, mix=None):
        def denoise(x_t, level):
            return of(x_t, level)._replace(variance=None if mix is None else torch.full_like(x_t, mix))

        return bound(denoise, x0, levels, variance=variance, randn_like=seeded_noise([1, 2, 3])).total

    assert_close(total("learned", 0.0), total("small"), rtol=1e-12, atol=1e-12)
    assert_close(total("learned", 1.0), total("large"), rtol=1e-12, atol=1e-12)
    t, s, half = levels[0], schedule("linear").level(5), torch.full((1, 1, 1, 1), 0.5)
    product = reverse_variance("small", None, t, s) * reverse_variance("large", None, t, s)
    assert_close(reverse_variance("learned", half, t, s).squeeze(), product.sqrt())
    with pytest.raises(InputError, match="learned no variance"):
        total("learned")


def test_decoder_floor_is_the_small_variance_of_the_step_before():
    table = schedule("linear")
    beta, alpha_bar = table.betas[1], table.alphas_cumprod
    assert_close(decoder_floor(table.grid(1000)), beta * (1 - alpha_bar[0]) / (1 - alpha_bar[1]))
    assert_close(decoder_floor(table.grid(1)), table.sigma[-1] ** 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("std", [1e-6, 1e-3, 0.007, 0.3, 1.0])
def test_decoder_is_a_distribution_over_the_bins(std, dtype):
    values = (torch.arange(256, dtype=dtype) / 127.5 - 1).reshape(256, 1, 1, 1)
    for mean in (-1.3, -1.0, -0.35, 0.001, 0.1234, 0.99, 2.0):
        logs = discretised_gaussian(values, torch.full_like(values, mean), torch.tensor(std**2, dtype=dtype))
        assert torch.isfinite(logs).all()
        assert_close(
            logs.exp().sum().double(), torch.tensor(1.0), rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-4
        )
        if std < 1 / 255:
            assert (values[logs.argmax()] - max(-1, min(1, mean))).abs() < 1.001 / 255


def test_decoder_is_exact_far_in_the_tail():
    """40 and 128 standard deviations off, where both cdfs are 0 or 1: within the first terms of Mills' ratio."""
    x0 = torch.tensor([0.0, 0.0, 1.0, -1.0]).reshape(4, 1, 1, 1).div(1)
    mean = torch.tensor([0.4, -0.4, -0.28, 0.28]).reshape(4, 1, 1, 1)
    z = torch.tensor([40, 40, 128, 128]) - 100 / 255
    got = discretised_gaussian(x0, mean, torch.tensor(1e-4)).flatten()
    assert_close(got, -z.square() / 2 - (z * (2 * math.pi) ** 0.5).log(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_a_batch_may_mix_steps_to_the_clean_image_with_others(variance, dtype):
    """The term of an image does not depend on its batch, and the unused branch spoils no gradient."""
    table, of = schedule("cosine"), world()
    times = torch.tensor([0.0, 1, 0, 500, 999, 0])
    t, s = table.level(times), table.level(times - 1)
    x0 = quantised(3 * of.draw(6, table.level(-1))).to(dtype)
    x_t = q_sample(x0, torch.randn_like(x0), t)
    floor = decoder_floor(table.grid(1000))
    believed = of(x_t, t).x0 + torch.tensor([0, 0.1, 30, 30, 0, 0], dtype=dtype).reshape(-1, 1, 1, 1)
    x0_, mix = believed.clone().requires_grad_(), torch.rand(6, 1, 4, 4, dtype=dtype).requires_grad_()
    losses = term(Prediction(x0_, x_t, mix), x0, x_t, (t, s), floor, variance)
    losses.sum().backward()
    for leaf in (x0_, mix) if variance == "learned" else (x0_,):
        assert torch.isfinite(leaf.grad).all()
        assert (leaf.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    for i, time in enumerate(times.tolist()):
        part, pair = slice(i, i + 1), (table.level(time), table.level(time - 1))
        alone = term(Prediction(x0_[part], x_t[part], mix[part]), x0[part], x_t[part], pair, floor, variance)
        assert_close(losses[part], alone)


def test_gaussian_kl():
    normal, a, b = torch.distributions.Normal, torch.randn(2, 2, 1, 3, 3), torch.rand(2, 2, 1, 3, 3) + 0.1
    expected = torch.distributions.kl_divergence(normal(a[0], b[0].sqrt()), normal(a[1], b[1].sqrt()))
    assert_close(gaussian_kl(a[0], b[0], a[1], b[1]), expected)


# The probability-flow ODE


@dataclass(frozen=True, eq=False)
class Coupled:
    """Pixels that depend on each other, N(0, covariance) together. Itself the exact `Denoiser`."""

    covariance: Tensor

    def of_x_t(self, level: Level) -> Tensor:
        return level.alpha**2 * self.covariance + level.sigma**2 * torch.eye(len(self.covariance))

    def __call__(self, x_t: Tensor, level: Level) -> Prediction:
        surprise = torch.linalg.solve(self.of_x_t(level), x_t.flatten(1).T).T.reshape(x_t.shape)
        x0 = (surprise.flatten(1) @ self.covariance).reshape(x_t.shape)
        return Prediction(level.alpha * x0, level.sigma * surprise)


def circle(steps, cleanest=0.05):
    """Levels evenly spaced in the angle, from pure noise."""
    angles = torch.linspace(math.pi / 2, cleanest, steps + 1)
    return [Level(angle, angle.cos(), angle.sin()) for angle in angles]


def exact_density(of, x, level):
    normal = torch.distributions.Normal(level.alpha * of.mean, of.variance(level).sqrt())
    return normal.log_prob(x).sum(dim=(1, 2, 3))


def test_ode_density_is_exact_to_second_order():
    """Independent pixels have a diagonal Jacobian; every probe gives its exact trace."""
    of, errors = world(), []
    x = of.draw(20, circle(1)[-1])
    exact = exact_density(of, x, circle(1)[-1])
    for steps in (25, 50, 100, 200):
        got = ode_log_density(of, x, circle(steps), probes=2)
        assert got.standard_error.max() < 1e-9
        errors.append(float((got.value - exact).abs().max()) / of.mean.numel())
    assert errors[-1] < 1e-3
    assert all(3.5 < coarse / fine < 4.5 for coarse, fine in pairwise(errors))


@pytest.mark.parametrize("spec", ["linear", "cosine", "zero_snr", "flow"])
def test_ode_density_on_a_schedule(spec):
    """Also where alpha^2 + sigma^2 is not 1; what is left of the image at the last level is neglected."""
    of, levels = world(), schedule(spec).grid(200, "karras")[:-1]
    x = of.draw(20, levels[-1])
    got = ode_log_density(of, x, levels, probes=1)
    assert got.standard_error.isnan().all()
    error = (got.value - exact_density(of, x, levels[-1])).abs().max() / of.mean.numel()
    assert error < 1e-3


def test_standard_error_of_the_trace_covers_the_truth():
    root = torch.randn(9, 9) * 0.2
    of, levels = Coupled(root @ root.T), circle(100)
    normal = torch.distributions.MultivariateNormal(torch.zeros(9), of.of_x_t(levels[-1]))
    x = normal.sample((100,)).reshape(100, 1, 3, 3)
    got = ode_log_density(of, x, levels, probes=64)
    off = (got.value - normal.log_prob(x.flatten(1))) / got.standard_error
    assert off.abs().max() < 4
    assert 0.8 < off.std() < 1.2
    assert got.standard_error.min() > 1e-3


def test_likelihoods_of_an_image_do_not_depend_on_its_batch():
    root = torch.randn(9, 9) * 0.2
    of, levels, x0 = Coupled(root @ root.T), schedule("cosine:T=20").grid(20), torch.rand(3, 1, 3, 3)

    def measured(part):
        seeds = range(3)[part]
        one = bound(of, x0[part], levels, randn_like=seeded_noise(seeds))
        two = ode_bits_per_dim(of, x0[part], levels, randn_like=seeded_noise(seeds))
        return torch.stack([one.total, two.value, two.standard_error])

    assert_close(measured(slice(0, 3)), torch.cat([measured(slice(0, 1)), measured(slice(1, 3))], dim=1))


def test_both_likelihoods_are_near_the_entropy():
    """Images in 256 bins: what is above their exact bits, image by image, so that less is left to chance."""
    of, table = world(std=(0.1, 0.25)), schedule("cosine")
    x0, exact = digital(of, 1000)
    within(exact, entropy(of))
    by_bound = bound(of, x0, table.grid(1000), variance="large").total - exact
    assert within(by_bound, 0.0).abs() < 0.05
    by_ode = ode_bits_per_dim(of, x0, table.grid(200, "karras"), probes=1).value - exact
    assert within(by_ode, 0.0).abs() < 0.002


# Flat parts


@dataclass(frozen=True, eq=False)
class HalfFlat:
    """Images whose upper half has two values, and whose lower half is noise. Itself the exact `Denoiser`."""

    flat: Flat
    noise: Gaussian

    def draw(self, count):
        x0, _ = digital(self.noise, count)
        return torch.cat([self.flat.draw(count, 1, 2, 4), x0[:, :, 2:]], dim=2), (1 + entropy(self.noise)) / 2

    def __call__(self, x_t, level):
        above, below = self.flat(x_t, level), self.noise(x_t, level)
        return Prediction(*(torch.cat([a[:, :, :2], b[:, :, 2:]], dim=2) for a, b in zip(above, below, strict=True)))


FLAT = Flat(-63 / 127.5 - 0.5 / 127.5, 64 / 127.5 - 0.5 / 127.5)


@pytest.mark.parametrize("spec", ["linear", "cosine", "flow"])
def test_bits_by_the_ode_of_flat_images_are_their_entropy(spec):
    """One bit for each pixel. With a decoder that knew nothing of the image, linear gave 5.5 and cosine 4.7."""
    levels = without_weak_noise(schedule(spec).grid(100, "log_snr"))
    got = ode_bits_per_dim(FLAT, FLAT.draw(100, 1, 8, 8), levels, probes=1).value
    assert got.mean() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("spec", ["linear", "flow"])
def test_bits_by_the_ode_are_near_the_entropy_where_only_a_part_is_flat(spec):
    of = HalfFlat(FLAT, Gaussian(torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.2)))
    x0, exact = of.draw(300)
    got = ode_bits_per_dim(of, x0, without_weak_noise(schedule(spec).grid(100, "log_snr")), probes=2).value
    assert got.mean() == pytest.approx(float(exact), abs=0.1)


def test_the_decoder_of_the_ode_is_a_distribution_over_the_images():
    """Of one pixel with 256 values; the denoiser is wrong, and near white the noise leads beyond it."""
    level, values = schedule("linear").level(0), (torch.arange(256) / 127.5 - 1).reshape(256, 1, 1, 1)
    for x in (-1.0, 0.003, 0.5, 1.02):
        x_s = torch.full((256, 1, 1, 1), x)
        wrong = Gaussian(torch.full((1, 1, 1), 0.2), torch.full((1, 1, 1), 0.01))
        logs = decode_log_probability(wrong, values, x_s, level, [torch.ones_like(x_s)])
        assert_close(logs.exp().sum(), torch.tensor(1.0), rtol=0, atol=1e-9)


def test_bounds_of_several_variances_have_the_same_noise():
    of, levels = world(), schedule("cosine").grid(7)
    x0 = digital(of, 5)[0]
    both = bounds(of, x0, levels, ("small", "large"), randn_like=seeded_noise(range(5)))
    for variance, found in both.items():
        alone = bound(of, x0, levels, variance=variance, randn_like=seeded_noise(range(5)))
        assert torch.equal(found.total, alone.total)
