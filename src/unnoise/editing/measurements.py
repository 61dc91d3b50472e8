"""Linear measurements y = A x of an image, and A+ y, the smallest image with the measurement y."""

import math
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from unnoise.types import Images

Measured: TypeAlias = Float[Tensor, "b k m n"]  # smaller than the images, or with fewer channels

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, like Pillow's mode L
WEAKEST = 0.1  # a frequency counts as measured if this share of its amplitude is left: 8 bits hold no less


@runtime_checkable
class Measurement(Protocol):
    """Apply A to images [b, c, h, w], and its Moore-Penrose inverse A+ to measurements."""

    def __call__(self, x: Images) -> Measured: ...

    def inverse(self, y: Measured) -> Images: ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """Measure the known pixels; the other pixels are 0 in y."""

    known: Bool[Tensor, "1 1 h w"]

    def __call__(self, x: Images) -> Measured:
        return x * self.known.to(x)

    inverse = __call__


@dataclass(frozen=True)
class Gray:
    """Measure the luma of colour images."""

    def __call__(self, x: Images) -> Measured:
        return (x * luma_weights(x)).sum(dim=1, keepdim=True)

    def inverse(self, y: Measured) -> Images:
        w = luma_weights(y)
        return y * w / w.square().sum()


def luma_weights(like: Tensor) -> Float[Tensor, "1 3 1 1"]:
    """Return the weights of red, green and blue, with the type and device of a tensor."""
    return torch.tensor(LUMA).view(1, 3, 1, 1).to(like)


@dataclass(frozen=True)
class Shrunk:
    """Measure the means of squares of `factor` x `factor` pixels."""

    factor: int

    def __call__(self, x: Images) -> Measured:
        return F.avg_pool2d(x, self.factor)

    def inverse(self, y: Measured) -> Images:
        return y.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)


@dataclass(frozen=True)
class Blurred:
    """Measure the image after blurring by a Gaussian of standard deviation `sigma` pixels, mirrored at the edges.

    The blur is diagonal in cosines (DCT-II). A frequency is not measured if less than WEAKEST is left of its amplitude.
    """

    sigma: float

    def __call__(self, x: Images) -> Measured:
        return self.spread(x, 1)

    def inverse(self, y: Measured) -> Images:
        return self.spread(y, -1)

    def spread(self, x: Images, power: int) -> Images:
        """Multiply each cosine by the share that the blur leaves, to a power: 1 blurs, -1 inverts."""
        down, across = (cosines(size).to(x) for size in x.shape[2:])
        left = outer(*(self.left(size) for size in x.shape[2:]))
        gain = torch.where(left >= WEAKEST, left**power, 0).to(x)
        return down.T @ (gain * (down @ x @ across.T)) @ across

    def left(self, size: int) -> Float[Tensor, " n"]:
        """Return the share of each cosine that the blur leaves."""
        frequency = math.pi * torch.arange(size, dtype=torch.float64) / size
        return torch.exp(-(self.sigma * frequency).square() / 2)


def outer(down: Float[Tensor, " h"], across: Float[Tensor, " w"]) -> Float[Tensor, "h w"]:
    """Return the outer product."""
    return down[:, None] * across


def cosines(size: int) -> Float[Tensor, "n n"]:
    """Return the orthonormal DCT-II: row k is the cosine of frequency k."""
    k, place = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64) + 0.5
    waves = torch.cos(math.pi * k * place / size) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves
