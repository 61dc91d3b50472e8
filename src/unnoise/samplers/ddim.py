"""DDIM, denoising diffusion implicit models, and its inversion."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.process import posterior_variance
from unnoise.errors import InputError
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.types import Images, RandnLike


@sampler.declare(order=1, evaluations=1)
def ddim(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    eta: float = 0.0,
    randn_like: RandnLike = torch.randn_like,
) -> Iterator[Step]:
    """Sample by DDIM, Song et al. 2021 (arXiv:2010.02502), eq. 12 and 16.

    Args:
        eta: The share of noise in each step: 0 is deterministic, 1 is ancestral.

    Raises:
        InputError: eta lies outside of [0, 1].
    """
    if not 0 <= eta <= 1:
        raise InputError(f"ddim: eta lies between 0 (deterministic) and 1 (ancestral), got {eta}")
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        variance = eta**2 * posterior_variance(t, s)  # eq. 16
        x = s.alpha.to(x) * x0 + (s.sigma.square() - variance).sqrt().to(x) * eps  # eq. 12
        if variance > 0:
            x = x + variance.sqrt().to(x) * randn_like(x)
        yield Step(x, x0, s)


def invert(denoise: Denoiser, x: Images, levels: Sequence[Level], *, iterations: int = 1) -> Iterator[Step]:
    """Run `ddim` backwards, Song et al. 2021 (arXiv:2010.02502), eq. 13: from levels[-1] to noise at levels[0].

    Args:
        iterations: 1 predicts the noise where the step begins, as is usual; the error falls with the number of steps.
            More iterations find the x_t from which `ddim` comes to x_s exactly, by fixed point (Pan et al. 2023,
            arXiv:2309.04907).

    Raises:
        InputError: iterations is below 1.
    """
    if iterations < 1:
        raise InputError(f"invert takes 1 or more iterations, got {iterations}")
    for s, t in pairwise(reversed(levels)):
        scale = t.alpha / s.alpha
        x_t = x
        for _ in range(iterations):
            x0, eps, _ = denoise(x_t, t)
            x_t = scale.to(x) * x + (t.sigma - scale * s.sigma).to(x) * eps
        x = x_t
        yield Step(x, x0, t)
