"""Guidance: lead predictions away from the predictions of a poorer denoiser."""

import math

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Prediction
from unnoise.types import Images


def guide(good: Denoiser, poor: Denoiser, scale: float, interval: tuple[float, float] = (0.0, math.inf)) -> Denoiser:
    """Guide a denoiser, Ho & Salimans 2022 (arXiv:2207.12598), eq. 6 with w = scale - 1: poor + scale * (good - poor).

    Args:
        good: The denoiser that is guided.
        poor: The same model without labels (classifier-free guidance), or a weaker model with labels (autoguidance;
            Karras et al. 2024, arXiv:2406.02507).
        scale: The strength of the guidance; 1 is off.
        interval: Guide only if low < sigma / alpha <= high (Kynkaanniemi et al. 2024, arXiv:2404.07724). Outside of
            the interval the poor denoiser is not evaluated.

    Returns:
        A denoiser of the same images.
    """
    low, high = interval

    def guided(x_t: Images, level: Level) -> Prediction:
        best = good(x_t, level)
        inside = (low < level.ratio) & (level.ratio <= high)
        if not inside.any():
            return best
        worse = poor(x_t, level)
        strength = torch.where(inside, scale, 1.0).to(x_t)
        return best._replace(
            x0=worse.x0 + strength * (best.x0 - worse.x0), eps=worse.eps + strength * (best.eps - worse.eps)
        )

    return guided
