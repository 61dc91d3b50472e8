"""Weigh the frequencies of an error, so that fine detail counts beside coarse shapes."""

from functools import lru_cache

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.types import Images

GRID = 6.0  # the weight that is added to stripes and checkerboards of single pixels


def whiten(error: Images, share: float) -> Images:
    """Return an error whose squared sum weighs the frequency f by (1 + f)^(2 share), and the grid seven times.

    f is in cycles along the shorter side. The power of natural images falls as 1 / f^2 (Field 1987, J. Opt. Soc. Am.
    A 4, 2379). So a share of 1 lets all their frequencies count alike, and 0 returns the error as it is. The grid is
    stripes and checkerboards of single pixels, which networks on patches of two pixels leave. An error with the
    spectrum (1 + f)^-2 keeps its squared sum. The weights are the same for every image, so the best prediction is still
    the mean of the images that x_t may come from.

    Args:
        error: Differences of images [b, c, h, w].
        share: The share of the whitening, 0 to 1.
    """
    if not share:
        return error
    height, width = error.shape[-2:]
    precise = error.to(torch.promote_types(error.dtype, torch.float32))
    weighted = torch.fft.rfft2(precise) * amplitudes(height, width, share).to(precise)
    white: Images = torch.fft.irfft2(weighted, s=(height, width))
    return white


@lru_cache
def amplitudes(height: int, width: int, share: float) -> Float64[Tensor, "height half"]:
    """Return the square roots of the weights, for the frequencies that `torch.fft.rfft2` computes."""
    side = min(height, width)
    rows, columns = (side * torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    natural = (1 + torch.hypot(rows[:, None], columns)).pow(-2)
    weights = natural.pow(-share) * (1 + GRID * grid(height, width))
    kept = (weights * natural).sum() / natural.sum()
    return (weights / kept).sqrt()[:, : width // 2 + 1]


def grid(height: int, width: int) -> Float64[Tensor, "height width"]:
    """Return the share of the grid in each frequency: 1 in stripes and checkerboards of single pixels, 0 in flat parts.

    Along one side, sin^32 of half the phase from pixel to pixel is 1 if neighbours alternate, cos^32 if they are equal.
    """
    phase = [torch.pi * torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width)]
    (alternate, other), (equal, same) = ([wave(half).pow(32) for half in phase] for wave in (torch.sin, torch.cos))
    return alternate[:, None] * (other + same) + equal[:, None] * other
