"""Weigh the frequencies of an error, so that fine detail counts beside coarse shapes."""

from functools import lru_cache

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.types import Images


def whiten(error: Images, share: float) -> Images:
    """Return an error whose squared sum weighs the frequency f by (1 + f)^(2 share).

    f is in cycles along the shorter side. The power of natural images falls as 1 / f^2 (Field 1987, J. Opt. Soc. Am.
    A 4, 2379). So a share of 1 lets all their frequencies count alike, and 0 returns the error as it is. An error with
    the spectrum (1 + f)^-2 keeps its squared sum. The weights are the same for every image, so the best prediction is
    still the mean of the images that x_t may come from.

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
    rise = 1 + torch.hypot(rows[:, None], columns)
    kept = rise.pow(2 * share - 2).sum() / rise.pow(-2).sum()
    return (rise.pow(2 * share) / kept).sqrt()[:, : width // 2 + 1]
