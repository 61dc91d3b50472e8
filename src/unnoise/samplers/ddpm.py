"""DDPM: ancestral sampling."""

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
    """Sample by DDPM, Ho et al. 2020 (arXiv:2006.11239), algorithm 2, on all levels or any subset.

    Args:
        variance: The variance of a step (section 3.2): "small" is the posterior's (beta-tilde), "large" the forward
            step's (beta). "learned" lies between, and needs a model whose objective learns it.
    """
    for t, s in pairwise(levels):
        x0, _, mix = denoise(x, t)
        spread = reverse_variance(variance, mix, t, s)
        x = posterior_mean(x0, x, t, s)  # eq. 7
        if s.sigma > 0:
            x = x + spread.sqrt().to(x) * randn_like(x)
        yield Step(x, x0, s)
