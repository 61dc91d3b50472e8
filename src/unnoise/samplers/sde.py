"""The reverse SDE by Euler-Maruyama, and with Langevin steps that correct each level."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.process import transition
from unnoise.errors import InputError
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.types import Images, RandnLike


@sampler.declare(order=1, evaluations=1)
def euler_maruyama(
    denoise: Denoiser, x: Images, levels: Sequence[Level], *, randn_like: RandnLike = torch.randn_like
) -> Iterator[Step]:
    """Sample the reverse SDE by Euler-Maruyama, Song et al. 2021 (arXiv:2011.13456), eq. 46.

    It is discretised like the forward SDE. The last step is Tweedie's formula: the predicted image.
    """
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        x = x0 if s.sigma == 0 else reverse_step(x, eps, t, s, randn_like)
        yield Step(x, x0, s)


@sampler.declare(evaluations=2)
def predictor_corrector(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    snr: float = 0.16,
    randn_like: RandnLike = torch.randn_like,
) -> Iterator[Step]:
    """Sample by predictor and corrector, Song et al. 2021 (arXiv:2011.13456), algorithm 3.

    A step of the reverse SDE is followed by a Langevin step at the level it reached. The Langevin step is algorithm 5
    with the norm of the score replaced by its expectation, so that an image does not depend on the rest of the batch.

    Args:
        snr: The size of a Langevin step is 2 (snr sigma)^2.

    Raises:
        InputError: snr is not above 0.
    """
    if not snr > 0:
        raise InputError(f"predictor_corrector: snr is above 0, got {snr}")
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        if s.sigma == 0:
            x = x0
        else:
            x = reverse_step(x, eps, t, s, randn_like)
            x0, eps, _ = denoise(x, s)
            x = x - (2 * snr**2 * s.sigma).to(x) * eps + (2 * snr * s.sigma).to(x) * randn_like(x)  # score -eps / sigma
        yield Step(x, x0, s)


def reverse_step(x: Images, eps: Images, t: Level, s: Level, randn_like: RandnLike) -> Images:
    """Return x - f + G^2 score + G z, where q(x_t | x_s) has mean x_s + f(x_s) and variance G^2."""
    scale, variance = transition(s, t)
    mean = (2 - scale).to(x) * x - (variance / t.sigma).to(x) * eps
    return mean + variance.sqrt().to(x) * randn_like(x)
