"""Ways from one noise to another on which all is noise."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unnoise.types import RandnLike


def interpolated(first: RandnLike, last: RandnLike, count: int) -> RandnLike:
    """So many noises, from the first to the last, which is another: cos(a) e1 + sin(a) e2, each of them normal.

    Whatever the sampler draws on its way is turned with the noise it starts from, so the ends are the very pictures of
    the two, and all between them change smoothly.
    """
    angle = torch.linspace(0, math.pi / 2, count, dtype=torch.float64).view(-1, 1, 1, 1)

    def randn_like(x: Tensor) -> Tensor:
        return angle.cos().to(x) * first(x[:1]) + angle.sin().to(x) * last(x[:1])

    return randn_like


def slerp(
    first: Float[Tensor, "1 c h w"], last: Float[Tensor, "1 c h w"], weight: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Shoemake 1985: along the great circle, at an even pace; the length goes from one's to the other's."""
    angle = torch.arccos(((first * last).sum() / (first.norm() * last.norm())).clamp(-1, 1))
    w = weight.view(-1, 1, 1, 1)
    if angle.sin().abs() < 1e-4:  # one line: no circle is the shortest
        return torch.lerp(first, last, w)
    return (((1 - w) * angle).sin() * first + (w * angle).sin() * last) / angle.sin()
