"""Ancestral sampling."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.process import learned_variance, posterior_mean, posterior_variance, transition
from unnoise.errors import InputError
from unnoise.registry import sampler
from unnoise.samplers.step import Step
from unnoise.types import Images, RandnLike


@sampler.declare(order=1, evaluations=1)
def ddpm(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    variance: Literal["small", "large", "learned"] = "small",
    randn_like: RandnLike = torch.randn_like,
) -> Iterator[Step]:
    """Ho et al. 2020 (arXiv:2006.11239), algorithm 2, on all or any subset of the levels.

    variance: "small" is that of the posterior (beta-tilde), "large" that of the forward step (beta); section 3.2.
    "learned" lies between, by a model trained with an objective that learns it.
    """
    for t, s in pairwise(levels):
        x0, _, mix = denoise(x, t)
        if variance == "learned" and mix is None:
            raise InputError("ddpm: this model learned no variance; choose variance=small or variance=large")
        x = posterior_mean(x0, x, t, s)  # eq. 7
        if s.sigma > 0:
            x = x + spread(variance, mix, t, s).sqrt().to(x) * randn_like(x)
        yield Step(x, x0, s)


def spread(variance: str, mix: Images | None, t: Level, s: Level) -> Tensor:
    """The variance of the step, by name."""
    if variance == "learned" and mix is not None:
        return learned_variance(mix, t, s)
    return posterior_variance(t, s) if variance == "small" else transition(s, t)[1]
