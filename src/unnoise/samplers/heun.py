"""Euler's and Heun's method on the probability-flow ODE, with optional churn."""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.process import q_step
from unnoise.diffusion.schedule import Levels
from unnoise.errors import InputError
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.types import Images, RandnLike


@sampler.declare(order=1, evaluations=1)
def euler(
    denoise: Denoiser, x: Images, levels: Levels, *, churn: float = 0.0, randn_like: RandnLike = torch.randn_like
) -> Iterator[Step]:
    """Sample by Euler's method, Karras et al. 2022 (arXiv:2206.00364), algorithm 2 without its correction.

    It is DDIM if churn is 0.

    Args:
        churn: S_churn of the paper: the noise that is added and removed again, over all steps; 0 is deterministic.
    """
    for t, s in pairwise(levels):
        x, hat = churned(x, t, levels, churn, randn_like)
        x0, eps, _ = denoise(x, hat)
        x = s.alpha.to(x) * x0 + s.sigma.to(x) * eps
        yield Step(x, x0, s)


@sampler.declare(order=2, evaluations=2)
def heun(
    denoise: Denoiser, x: Images, levels: Levels, *, churn: float = 0.0, randn_like: RandnLike = torch.randn_like
) -> Iterator[Step]:
    """Sample by Heun's method, Karras et al. 2022 (arXiv:2206.00364), algorithm 2: the slope at both ends of a step.

    The last step evaluates the slope once.

    Args:
        churn: S_churn of the paper: the noise that is added and removed again, over all steps; 0 is deterministic.
    """
    for t, s in pairwise(levels):
        x, hat = churned(x, t, levels, churn, randn_like)
        x0, eps, _ = denoise(x, hat)
        ahead = s.alpha.to(x) * x0 + s.sigma.to(x) * eps
        if s.sigma > 0 and hat.alpha > 0:  # from pure noise the ratio is infinite: only Euler's step exists
            eps = (eps + denoise(ahead, s).eps) / 2
            ahead = (s.alpha / hat.alpha).to(x) * x + (s.sigma - s.alpha * hat.ratio).to(x) * eps  # d(x/alpha)/d ratio
        x = ahead
        yield Step(x, x0, s)


def churned(x: Images, t: Level, levels: Levels, churn: float, randn_like: RandnLike) -> tuple[Images, Level]:
    """Add noise up to a level whose ratio is (1 + gamma) times the ratio of t, within the schedule: lines 4 to 6."""
    if not churn >= 0:
        raise InputError(f"churn is 0 (deterministic) or more, got {churn}")
    gamma = min(churn / (len(levels) - 1), math.sqrt(2) - 1)
    if gamma == 0 or t.alpha == 0:
        return x, t
    hat = levels.schedule.at(t.half_log_snr - math.log1p(gamma))
    return q_step(x, randn_like(x), t, hat), hat
