"""DPM-Solver++: multistep exponential integrators in half_log_snr, which solve the decay of the noise exactly."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.process import posterior_mean, posterior_variance
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.types import Images, RandnLike


@sampler.declare(order=1, evaluations=1)
def dpmpp_1s(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    randn_like: RandnLike = torch.randn_like,  # noqa: ARG001  # deterministic
) -> Iterator[Step]:
    """Sample by DPM-Solver++ of first order, Lu et al. 2022 (arXiv:2211.01095), section 4.1.

    It is DDIM, written as an exponential integrator.
    """
    for t, s in pairwise(levels):
        x0 = denoise(x, t).x0
        x = towards(x, x0, t, s)
        yield Step(x, x0, s)


@sampler.declare(order=2, evaluations=1)
def dpmpp_2m(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    randn_like: RandnLike = torch.randn_like,  # noqa: ARG001  # deterministic
) -> Iterator[Step]:
    """Sample by DPM-Solver++ 2M, Lu et al. 2022 (arXiv:2211.01095), algorithm 2: a line through the last two images."""
    before: tuple[Images, Level] | None = None  # x0 at the level before t
    for t, s in pairwise(levels):
        x0 = denoise(x, t).x0
        x = towards(x, halfway(x0, t, s, before), t, s)
        before = (x0, t)
        yield Step(x, x0, s)


@sampler.declare(order=3, evaluations=1)
def dpmpp_3m(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    randn_like: RandnLike = torch.randn_like,  # noqa: ARG001  # deterministic
) -> Iterator[Step]:
    """Sample by DPM-Solver++ 3M, Lu et al. 2022 (arXiv:2211.01095), eq. 8 with k = 3: a parabola through three images.

    The released code and diffusers use half of the second derivative, which makes them second order; this sampler uses
    the whole second derivative. The first two steps know fewer images; with very many steps their error, of second
    order, dominates.
    """
    past: list[tuple[Images, Level]] = []  # (x0, level), the newest first
    for t, s in pairwise(levels):
        x0 = denoise(x, t).x0
        past = [(x0, t), *past[:2]]
        x = towards(x, x0, t, s)
        if s.sigma > 0 and t.alpha > 0:  # else h is infinite
            first, second = derivatives(past)
            h = gap(t, s)
            phi = torch.expm1(-h) / h + 1
            x = x + (s.alpha * phi * h).to(x) * first - (s.alpha * (phi - h / 2) * h).to(x) * second
        yield Step(x, x0, s)


@sampler.declare(order=2, evaluations=1)
def dpmpp_2m_sde(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    randn_like: RandnLike = torch.randn_like,
) -> Iterator[Step]:
    """Sample by SDE-DPM-Solver++ 2M, Lu et al. 2022 (arXiv:2211.01095): the reverse SDE with exact noise."""
    before: tuple[Images, Level] | None = None
    for t, s in pairwise(levels):
        x0 = denoise(x, t).x0
        x = posterior_mean(
            halfway(x0, t, s, before), x, t, s
        )  # q has the paper's coefficients alpha_s (1 - e^{-2h}) and sigma_s / sigma_t e^{-h}
        if s.sigma > 0:
            x = x + posterior_variance(t, s).sqrt().to(x) * randn_like(x)
        before = (x0, t)
        yield Step(x, x0, s)


def gap(t: Level, s: Level) -> Float64[Tensor, "*b1"]:
    """Return h of the paper: the difference in half_log_snr from t to the cleaner s."""
    return s.half_log_snr - t.half_log_snr


def towards(x: Images, x0: Images, t: Level, s: Level) -> Images:
    """Move x from t to s by eq. 8, with the same x0 from t to s."""
    # alpha_s (e^{-h} - 1) = sigma_s alpha_t / sigma_t - alpha_s, which is finite at the clean level too
    return (s.sigma / t.sigma).to(x) * x + (s.alpha - s.sigma * t.alpha / t.sigma).to(x) * x0


def halfway(x0: Images, t: Level, s: Level, before: tuple[Images, Level] | None) -> Images:
    """Return the image half-way from t to s, on the line through the last two images.

    The last step, of infinite h, keeps x0.
    """
    if before is None:
        return x0
    last_x0, r = before
    part = gap(t, s) / (2 * gap(r, t))  # 1 / (2 r_i)
    return x0 + torch.where(s.sigma > 0, part, 0.0).to(x0) * (x0 - last_x0)


def derivatives(past: Sequence[tuple[Images, Level]]) -> tuple[Images, Images]:
    """Return the first and second derivative of x0 in half_log_snr at the newest level, by divided differences."""
    (x0, t), *older = past
    near = [(image, level) for image, level in older if level.alpha > 0]  # pure noise is infinitely far away
    if not near:
        return torch.zeros_like(x0), torch.zeros_like(x0)
    (x1, r), *rest = near
    slope = (x0 - x1) / gap(r, t).to(x0)
    if not rest:
        return slope, torch.zeros_like(x0)
    x2, q = rest[0]
    bend = (slope - (x1 - x2) / gap(q, r).to(x0)) / gap(q, t).to(x0)
    return slope + gap(r, t).to(x0) * bend, 2 * bend
