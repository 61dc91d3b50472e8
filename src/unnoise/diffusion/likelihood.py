"""Likelihoods of images under a model: by the variational bound, and by the probability-flow ODE."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Prediction
from unnoise.diffusion.process import Variance, posterior_mean, posterior_variance, q_sample, reverse_variance
from unnoise.types import Images, PerImage, RandnLike

# The variational bound


class Bound(NamedTuple):
    """Hold bits per dimension: L_T of the prior, then a term for each step, from the noisiest to the decoder's L_0."""

    prior: PerImage
    terms: Float[Tensor, "b steps"]

    @property
    def total(self) -> PerImage:
        """Return the bound: the sum of the prior and all terms."""
        return self.prior + self.terms.sum(dim=1)


@torch.no_grad()
def bound(
    denoise: Denoiser,
    x0: Images,
    levels: Sequence[Level],
    *,
    variance: Variance = "small",
    randn_like: RandnLike = torch.randn_like,
) -> Bound:
    """Estimate the variational bound of a sampler, Ho et al. 2020 (arXiv:2006.11239), eq. 5.

    Each term takes one draw of noise, which makes the estimate unbiased. Its unit is bits per dimension of images with
    256 values.

    Args:
        denoise: The model.
        x0: Images [b, c, h, w] in [-1, 1].
        levels: The levels that the sampler visits, decreasing; the last one is clean.
        variance: The variance of the sampler's steps.
        randn_like: The source of noise.
    """
    return bounds(denoise, x0, levels, (variance,), randn_like=randn_like)[variance]


@torch.no_grad()
def bounds(
    denoise: Denoiser,
    x0: Images,
    levels: Sequence[Level],
    variances: Sequence[Variance],
    *,
    randn_like: RandnLike = torch.randn_like,
) -> dict[Variance, Bound]:
    """Estimate the bound of each of these variances with the same noise; all of them take the time of one."""
    noisiest, floor = levels[0], decoder_floor(levels)
    mean, spread = noisiest.alpha.to(x0) * x0, noisiest.sigma.square().to(x0)
    prior = bits(gaussian_kl(mean, spread, torch.zeros_like(x0), torch.ones_like(spread)))
    terms: dict[Variance, list[PerImage]] = {variance: [] for variance in variances}
    for t, s in pairwise(levels):
        x_t = q_sample(x0, randn_like(x0), t)
        predicted = denoise(x_t, t)
        for variance, found in terms.items():
            found.append(term(predicted, x0, x_t, (t, s), floor, variance))
    return {variance: Bound(prior, torch.stack(found, dim=1)) for variance, found in terms.items()}


def term(
    predicted: Prediction,
    x0: Images,
    x_t: Images,
    levels: tuple[Level, Level],
    floor: Float64[Tensor, ""],
    variance: Variance = "small",
) -> PerImage:
    """Return L_{t-1} of Ho et al. 2020 (arXiv:2006.11239), eq. 5, for `levels` = (t, s), or L_0 if s is clean.

    The unit is bits per dimension. The decoder of L_0 has the variance of the steps: for "large" it is beta_1. The
    code of Nichol & Dhariwal takes the small variance of the second step instead of beta_1, also for "large".
    """
    t, s = levels
    true, mean = posterior_mean(x0, x_t, t, s), posterior_mean(predicted.x0, x_t, t, s)
    small = reverse_variance("small", None, t, s, floor).to(mean)
    spread = reverse_variance(variance, predicted.variance, t, s, floor).to(mean)
    divergence, decoded = gaussian_kl(true, small, mean, spread), discretised_gaussian(x0, mean, spread)
    return bits(torch.where((s.sigma > 0).to(mean.device), divergence, -decoded))


def decoder_floor(levels: Sequence[Level]) -> Float64[Tensor, ""]:
    """Return the variance of L_0, Nichol & Dhariwal 2021 (arXiv:2102.09672), as released.

    It is the small variance of the step before L_0. A single step has none before it and takes the large variance. The
    choice matters little if the last levels lie close together.
    """
    return posterior_variance(levels[-3], levels[-2]) if len(levels) > 2 else levels[0].sigma.square()


def gaussian_kl(mean1: Images, variance1: Tensor, mean2: Images, variance2: Tensor) -> Images:
    """Return KL(N(mean1, variance1) || N(mean2, variance2)) of each element, in nats."""
    ratio = variance1 / variance2
    return (ratio - 1 - ratio.log() + (mean1 - mean2).square() / variance2) / 2


def discretised_gaussian(x0: Images, mean: Images, variance: Tensor, bins: int = 256) -> Images:
    """Return the log-probability of the bin of x0, Ho et al. 2020 (arXiv:2006.11239), eq. 13, in nats.

    It is exact at any distance in the tail; the released code stops at log(1e-12).
    """
    std, half, off = variance.clamp(min=1e-12).sqrt(), 1 / (bins - 1), x0 - mean
    near = torch.special.log_ndtr((half - off.abs()) / std)  # the bin's ends, both measured from the lower tail
    far = torch.special.log_ndtr((-half - off.abs()) / std)
    between = near + (-torch.expm1(far - near)).log()
    beyond = torch.special.log_ndtr((half - x0.sign() * off) / std)  # the bins of -1 and 1 have one end
    return torch.where(x0.abs() > 1 - half, beyond, between)


def bits(nats: Images) -> PerImage:
    """Convert nats of each element to bits per dimension of each image."""
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


# The probability-flow ODE

FLOORS = [4.0**-i for i in range(8)]  # of the variance of the decoder, as a share of the variance of the noise


class Estimate(NamedTuple):
    """Hold one value for each image, and its standard error over the probes of the trace (nan for one probe)."""

    value: PerImage
    standard_error: PerImage


def ode_log_density(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    probes: int = 4,
    randn_like: RandnLike = torch.randn_like,
) -> Estimate:
    """Estimate the log density of x at levels[-1], which is not clean, Song et al. 2021 (arXiv:2011.13456), eq. 39.

    The unit is nats. x is taken to be normal at levels[0]. The rest of the image that is left there is neglected, which
    costs KL(q(x) || normal) on average: less than L_T of the bound.
    """
    signs = [torch.where(randn_like(x) < 0, -1.0, 1.0).to(x) for _ in range(probes)]
    y, gain = to_noise(denoise, x / levels[-1].norm.to(x), levels[::-1], signs)
    normal = -(y.square() + math.log(2 * math.pi)).sum(dim=(1, 2, 3)) / 2
    value = gain.mean(dim=0)
    variance = (gain - value).square().sum(dim=0) / (torch.tensor(probes - 1) * probes)
    return Estimate(normal + value - x[0].numel() * levels[-1].norm.log().to(x), variance.sqrt())


def ode_bits_per_dim(
    denoise: Denoiser,
    x0: Images,
    levels: Sequence[Level],
    *,
    probes: int = 4,
    randn_like: RandnLike = torch.randn_like,
) -> Estimate:
    """Estimate bits per dimension by the ODE, Song et al. 2021 (arXiv:2011.13456), eq. 39, for images with 256 values.

    `levels` are as for `bound`; they should lie close together at the clean end, as in the spacing log_snr. The
    noise of s = levels[-2], the level before the clean one, dequantises x0: -log P(x0) <= E[log q(x_s | x0) -
    log P(x0 | x_s) - log p(x_s)], estimated by one x_s. `decode_log_probability` is the decoder P.
    """
    s, size = levels[-2], x0[0].numel()
    noise = randn_like(x0)
    x_s = q_sample(x0, noise, s)
    density = ode_log_density(denoise, x_s, levels[:-1], probes=probes, randn_like=randn_like)
    signs = [torch.where(randn_like(x0) < 0, -1.0, 1.0).to(x0) for _ in range(probes)]
    decoded = decode_log_probability(denoise, x0, x_s, s, signs)
    noised = -(noise.square() + math.log(2 * math.pi)).sum(dim=(1, 2, 3)) / 2 - size * s.sigma.log().to(x0)
    nats = noised - decoded - density.value
    return Estimate(nats / (size * math.log(2)), density.standard_error / (size * math.log(2)))


def decode_log_probability(denoise: Denoiser, x0: Images, x_s: Images, s: Level, signs: Sequence[Images]) -> PerImage:
    """Return log P(x0 | x_s) of a decoder over the 256 values of each pixel, in nats.

    The decoder is a mixture for the whole image, so that the choice costs log(9) nats an image at most. Its parts are
    q(x_s | value) normalised over the values (Kingma et al. 2021, arXiv:2107.00630), and Gaussians around the predicted
    image. Their variance is Tweedie's, sigma^2 / alpha * d x0 / d x_s of each pixel, which is small where the image is
    flat, with a floor for each part: the first Gaussian knows nothing but the noise. Without these Gaussians a flat
    image pays for all values that lie within the noise.
    """
    with torch.enable_grad():
        x = x_s.detach().requires_grad_()
        predicted = denoise(x, s).x0
    pulled = [torch.autograd.grad(predicted, x, sign, retain_graph=True)[0] * sign for sign in signs]
    share, noise = s.alpha.to(x0) * torch.stack(pulled).mean(dim=0), (s.sigma / s.alpha).square().to(x0)
    parts = [gaussian_over_values(x0, x_s / s.alpha.to(x0), noise.expand_as(x0))]
    parts += [gaussian_over_values(x0, predicted.detach(), noise * share.clamp(floor, 1)) for floor in FLOORS]
    return torch.stack(parts).logsumexp(dim=0) - math.log(len(parts))


def gaussian_over_values(x0: Images, mean: Images, variance: Images) -> PerImage:
    """Return the log-probability of images whose 256 values have the weights of a Gaussian density, in nats."""
    values = torch.linspace(-1, 1, 256).to(x0)
    exponents = ((m[..., None] - values).square() / (-2 * v[..., None]) for m, v in zip(mean, variance, strict=True))
    summed = torch.stack([each.logsumexp(dim=-1).sum() for each in exponents])  # one image at a time, to save memory
    return -((x0 - mean).square() / (2 * variance)).sum(dim=(1, 2, 3)) - summed


def to_noise(
    denoise: Denoiser, y: Images, levels: Sequence[Level], signs: Sequence[Images]
) -> tuple[Images, Float[Tensor, "probes b"]]:
    """Return y = x / norm at the last level, and the integral of div v for each probe, which log p(y) loses.

    The steps are Heun's, in `level.angle`.
    """
    rate, trace = velocity(denoise, y, levels[0], signs)
    lost = torch.zeros_like(trace)
    for t, u in pairwise(levels):
        step, before = (u.angle - t.angle).to(y), trace
        guess, _ = velocity(denoise, y + step * rate, u, [])
        y = y + step * (rate + guess) / 2
        rate, trace = velocity(denoise, y, u, signs)
        lost = lost + step * (before + trace) / 2
    return y, lost


def velocity(
    denoise: Denoiser, y: Images, level: Level, signs: Sequence[Images]
) -> tuple[Images, Float[Tensor, "probes b"]]:
    """Return the slope in `level.angle`, and Hutchinson's estimates of its divergence; Song et al. 2021, eq. 40."""
    with torch.set_grad_enabled(bool(signs)):
        y = y.detach().requires_grad_(bool(signs))
        predicted = denoise(level.norm.to(y) * y, level)
        v = level.angle.cos().to(y) * predicted.eps - level.angle.sin().to(y) * predicted.x0
    trace = y.new_empty(len(signs), len(y))
    for i, sign in enumerate(signs):
        (pulled,) = torch.autograd.grad(v, y, sign, retain_graph=i + 1 < len(signs))
        trace[i] = (pulled * sign).sum(dim=(1, 2, 3))
    return v.detach(), trace
