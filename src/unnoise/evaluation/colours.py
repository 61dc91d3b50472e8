"""Compare and change the colours of two sets of images: brightness, tint, contrast, colourfulness. Pixels are 8-bit."""

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.evaluation.spectrum import Bands, Means, to_pixels
from unnoise.images import Uint8Images

MIDDLE = 127.5  # of the range of a pixel
NO_NUMBER = 1e-6  # a spread in 8-bit steps below this is none


def moments(pixels: Uint8Images) -> Bands:
    """Return the mean of each channel, and of the products of all pairs of channels."""
    x = pixels.double().flatten(2)
    return torch.cat([x.mean(dim=2), (x @ x.transpose(1, 2) / x.shape[2]).flatten(1)], dim=1)


def mean_and_covariance(found: Means) -> tuple[Means, Float64[Tensor, "c c"]]:
    """Return the mean of each channel and their covariance from the means of `moments`."""
    channels = int(len(found) ** 0.5)
    mean = found[:channels]
    return mean, found[channels:].reshape(channels, channels) - torch.outer(mean, mean)


def gray_shift(drawn: Means, real: Means) -> float:
    """Return how much brighter the drawn images are, in percent of the range of a pixel."""
    return float(mean_and_covariance(drawn)[0].mean() - mean_and_covariance(real)[0].mean()) / 2.55


def add_gray(pixels: Uint8Images, steps: float) -> Uint8Images:
    """Return images that are brighter by a number of 8-bit steps."""
    return to_pixels(pixels.double() + steps)


def channel_shifts(drawn: Means, real: Means) -> Means:
    """Return how much brighter each channel is than the others should make it, in percent of the range of a pixel."""
    shift = (mean_and_covariance(drawn)[0] - mean_and_covariance(real)[0]) / 2.55
    return shift - shift.mean()


def tint(drawn: Means, real: Means) -> float:
    """Return the largest shift of a channel beyond brightness, in percent of the range of a pixel."""
    return float(channel_shifts(drawn, real).abs().max())


def add_tint(pixels: Uint8Images, strength: float, drawn: Means, real: Means) -> Uint8Images:
    """Return images with the tint of the drawn images, at a strength of 1."""
    return to_pixels(pixels + 2.55 * strength * channel_shifts(drawn, real)[:, None, None])


def spreads(found: Means) -> tuple[float, float]:
    """Return the deviation of gray, and of the colours from gray, over all pixels."""
    _, covariance = mean_and_covariance(found)
    gray = covariance.mean()
    return float(gray.clamp(min=0).sqrt()), float((covariance.diagonal().mean() - gray).clamp(min=0).sqrt())


def spread_ratio(drawn: Means, real: Means, which: int) -> float:
    """Return a deviation over the deviation of real images."""
    ours, theirs = spreads(drawn)[which], spreads(real)[which]
    return ours / theirs if min(ours, theirs) > NO_NUMBER else 1.0


def stretch_gray(pixels: Uint8Images, factor: float) -> Uint8Images:
    """Return images whose values are `factor` times as far from the middle of the range, where a model has its 0."""
    return to_pixels(MIDDLE + factor * (pixels.double() - MIDDLE))


def stretch_colours(pixels: Uint8Images, factor: float) -> Uint8Images:
    """Return images whose colours are `factor` times as far from gray."""
    gray = pixels.double().mean(dim=1, keepdim=True)
    return to_pixels(gray + factor * (pixels - gray))


def tint_name(drawn: Means, real: Means) -> str:
    """Return which channel is shifted most, and to which side."""
    shifts = channel_shifts(drawn, real)
    which = int(shifts.abs().argmax())
    return f"a tint: {'too much' if shifts[which] > 0 else 'too little'} {('red', 'green', 'blue')[which]}"
