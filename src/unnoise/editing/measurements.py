"""What is known of a picture: linear measurements y = A x, and the smallest x that a y may come from, A+ y."""

import math
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from unnoise.types import Images

Measured: TypeAlias = Float[Tensor, "b k m n"]  # smaller than the images, or of fewer channels

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L
WEAKEST = 0.1  # share of a frequency that must be left for it to count as measured: 8 bits hold no less


@runtime_checkable
class Measurement(Protocol):
    """A, and its Moore-Penrose inverse."""

    def __call__(self, x: Images) -> Measured: ...

    def inverse(self, y: Measured) -> Images: ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """Those that are known; the others are 0 in y."""

    known: Bool[Tensor, "1 1 h w"]

    def __call__(self, x: Images) -> Measured:
        return x * self.known.to(x)

    inverse = __call__


@dataclass(frozen=True)
class Gray:
    """The luma of a colour picture."""

    def __call__(self, x: Images) -> Measured:
        return (x * weights(x)).sum(dim=1, keepdim=True)

    def inverse(self, y: Measured) -> Images:
        w = weights(y)
        return y * w / w.square().sum()


def weights(like: Tensor) -> Float[Tensor, "1 3 1 1"]:
    return torch.tensor(LUMA).view(1, 3, 1, 1).to(like)


@dataclass(frozen=True)
class Shrunk:
    """The means of squares of `factor` x `factor` pixels."""

    factor: int

    def __call__(self, x: Images) -> Measured:
        return F.avg_pool2d(x, self.factor)

    def inverse(self, y: Measured) -> Images:
        return y.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)


@dataclass(frozen=True)
class Blurred:
    """Heat that spreads as far as a Gaussian of deviation `sigma` pixels, and none over the edge.

    Diagonal in cosines (DCT-II). Frequencies of which less than WEAKEST is left are not measured.
    """

    sigma: float

    def __call__(self, x: Images) -> Measured:
        return self.spread(x, 1)

    def inverse(self, y: Measured) -> Images:
        return self.spread(y, -1)

    def spread(self, x: Images, power: int) -> Images:
        """Each cosine times what is left of it, or back."""
        down, across = (cosines(size).to(x) for size in x.shape[2:])
        left = outer(*(self.left(size) for size in x.shape[2:]))
        gain = torch.where(left >= WEAKEST, left**power, 0).to(x)
        return down.T @ (gain * (down @ x @ across.T)) @ across

    def left(self, size: int) -> Float[Tensor, " n"]:
        frequency = math.pi * torch.arange(size, dtype=torch.float64) / size
        return torch.exp(-(self.sigma * frequency).square() / 2)


def outer(down: Float[Tensor, " h"], across: Float[Tensor, " w"]) -> Float[Tensor, "h w"]:
    return down[:, None] * across


def cosines(size: int) -> Float[Tensor, "n n"]:
    """The orthonormal DCT-II: row k is the cosine of frequency k."""
    k, place = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64) + 0.5
    waves = torch.cos(math.pi * k * place / size) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves
