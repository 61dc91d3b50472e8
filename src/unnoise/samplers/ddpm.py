"""Ancestral sampling."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.process import Variance, posterior_mean, reverse_variance
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.types import Images, RandnLike


@sampler.declare(order=1, evaluations=1)
def ddpm(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    variance: Variance = "small",
    randn_like: RandnLike = torch.randn_like,
) -> Iterator[Step]:
    """Ho et al. 2020 (arXiv:2006.11239), algorithm 2, on all or any subset of the levels.

    variance: "small" is that of the posterior (beta-tilde), "large" that of the forward step (beta); section 3.2.
    "learned" lies between, by a model trained with an objective that learns it.
    """
    for t, s in pairwise(levels):
        x0, _, mix = denoise(x, t)
        spread = reverse_variance(variance, mix, t, s)
        x = posterior_mean(x0, x, t, s)  # eq. 7
        if s.sigma > 0:
            x = x + spread.sqrt().to(x) * randn_like(x)
        yield Step(x, x0, s)
