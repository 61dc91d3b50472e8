"""How likely images are under the model: by the variational bound, and by the probability-flow ODE."""

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
    """Bits per dimension: L_T of the prior, then a term for each step, from the noisiest to the decoder's L_0."""

    prior: PerImage
    terms: Float[Tensor, "b steps"]

    @property
    def total(self) -> PerImage:
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
    """Ho et al. 2020 (arXiv:2006.11239), eq. 5, of the sampler that visits these levels, the last one clean.

    One draw of noise for each term: an unbiased estimate, in bits per dimension of images with 256 bins.
    """
    noisiest, floor = levels[0], decoder_floor(levels)
    mean, spread = noisiest.alpha.to(x0) * x0, noisiest.sigma.square().to(x0)
    prior = bits(gaussian_kl(mean, spread, torch.zeros_like(x0), torch.ones_like(spread)))
    terms = []
    for t, s in pairwise(levels):
        x_t = q_sample(x0, randn_like(x0), t)
        terms.append(term(denoise(x_t, t), x0, x_t, (t, s), floor, variance))
    return Bound(prior, torch.stack(terms, dim=1))


def term(
    predicted: Prediction,
    x0: Images,
    x_t: Images,
    levels: tuple[Level, Level],
    floor: Float64[Tensor, ""],
    variance: Variance = "small",
) -> PerImage:
    """Ho et al. 2020 (arXiv:2006.11239), eq. 5: L_{t-1} of `levels` = (t, s), or L_0 where s is clean; bits per dim."""
    t, s = levels
    true, mean = posterior_mean(x0, x_t, t, s), posterior_mean(predicted.x0, x_t, t, s)
    small = reverse_variance("small", None, t, s, floor).to(mean)
    spread = reverse_variance(variance, predicted.variance, t, s, floor).to(mean)
    divergence, decoded = gaussian_kl(true, small, mean, spread), discretised_gaussian(x0, mean, spread)
    return bits(torch.where((s.sigma > 0).to(mean.device), divergence, -decoded))


def decoder_floor(levels: Sequence[Level]) -> Float64[Tensor, ""]:
    """Nichol & Dhariwal 2021 (arXiv:2102.09672), as released: L_0 takes the small variance of the step before it.

    Of a single step, which has none before it, the large variance. Little where the last levels lie close together.
    """
    return posterior_variance(levels[-3], levels[-2]) if len(levels) > 2 else levels[0].sigma.square()


def gaussian_kl(mean1: Images, variance1: Tensor, mean2: Images, variance2: Tensor) -> Images:
    """KL(N(mean1, variance1) || N(mean2, variance2)) of each element, in nats."""
    ratio = variance1 / variance2
    return (ratio - 1 - ratio.log() + (mean1 - mean2).square() / variance2) / 2


def discretised_gaussian(x0: Images, mean: Images, variance: Tensor, bins: int = 256) -> Images:
    """Ho et al. 2020 (arXiv:2006.11239), eq. 13: log of the probability of the bin of x0, in nats.

    Exact however far the bin lies in the tail, where the released code stops at log(1e-12).
    """
    std, half, off = variance.clamp(min=1e-12).sqrt(), 1 / (bins - 1), x0 - mean
    near = torch.special.log_ndtr((half - off.abs()) / std)  # the bin's ends, both as seen from the lower tail
    far = torch.special.log_ndtr((-half - off.abs()) / std)
    between = near + (-torch.expm1(far - near)).log()
    beyond = torch.special.log_ndtr((half - x0.sign() * off) / std)  # the bins of -1 and 1 have one end
    return torch.where(x0.abs() > 1 - half, beyond, between)


def bits(nats: Images) -> PerImage:
    """Bits per dimension."""
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


# The probability-flow ODE


class Estimate(NamedTuple):
    """One value for each image, and its standard error over the probes of the trace; nan where there is one probe."""

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
    """Song et al. 2021 (arXiv:2011.13456), eq. 39: log density of x at levels[-1], which is not clean; in nats.

    Where nothing is left of the image, x is normal. What is left at levels[0] is neglected, and makes the answer wrong
    by KL(q(x) || normal) there on average, less than L_T of the bound.
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
    """Song et al. 2021 (arXiv:2011.13456), eq. 39, in bits per dimension of images with 256 bins; levels as for bound.

    Dequantised by the noise of s = levels[-2], before the clean one: -log P(x0) <= E[log q(x_s | x0) - log P(x0 | x_s)
    - log p(x_s)], estimated by one x_s. The decoder P, of Kingma et al. 2021 (arXiv:2107.00630), is q(x_s | value)
    normalised over the 256 values, so the first two terms are the log of the sum of q(x_s | value).
    """
    alpha, sigma, size = levels[-2].alpha.to(x0), levels[-2].sigma.to(x0), x0[0].numel()
    x_s, values = q_sample(x0, randn_like(x0), levels[-2]), torch.linspace(-1, 1, 256).to(x0)
    density = ode_log_density(denoise, x_s, levels[:-1], probes=probes, randn_like=randn_like)
    exponents = (-((image[..., None] - alpha * values) / sigma).square() / 2 for image in x_s)  # one image at a time
    summed = torch.stack([e.logsumexp(dim=-1).sum() for e in exponents])
    nats = summed - size * (sigma.log() + math.log(2 * math.pi) / 2) - density.value
    return Estimate(nats / (size * math.log(2)), density.standard_error / (size * math.log(2)))


def to_noise(
    denoise: Denoiser, y: Images, levels: Sequence[Level], signs: Sequence[Images]
) -> tuple[Images, Float[Tensor, "probes b"]]:
    """Heun's steps in `level.angle`, of y = x / norm and, for each probe, what log p(y) loses on the way: div v."""
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
    """The slope in `level.angle`, and Hutchinson's estimates of its divergence; Song et al. 2021, eq. 40."""
    with torch.set_grad_enabled(bool(signs)):
        y = y.detach().requires_grad_(bool(signs))
        predicted = denoise(level.norm.to(y) * y, level)
        v = level.angle.cos().to(y) * predicted.eps - level.angle.sin().to(y) * predicted.x0
    trace = y.new_empty(len(signs), len(y))
    for i, sign in enumerate(signs):
        (pulled,) = torch.autograd.grad(v, y, sign, retain_graph=i + 1 < len(signs))
        trace[i] = (pulled * sign).sum(dim=(1, 2, 3))
    return v.detach(), trace
