"""Interpolations between two noises that stay noise all along."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unnoise.types import RandnLike


def interpolate_noise(first: RandnLike, last: RandnLike, count: int) -> RandnLike:
    """Return a source of `count` noises from the first to the last: cos(a) e1 + sin(a) e2, each of them normal.

    All noise that the sampler draws is turned together with the noise it starts from. The first and the last image are
    therefore the images of the two sources, and the images between them change smoothly.
    """
    angle = torch.linspace(0, math.pi / 2, count, dtype=torch.float64).view(-1, 1, 1, 1)

    def randn_like(x: Tensor) -> Tensor:
        return angle.cos().to(x) * first(x[:1]) + angle.sin().to(x) * last(x[:1])

    return randn_like


def slerp(
    first: Float[Tensor, "1 c h w"], last: Float[Tensor, "1 c h w"], weight: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Interpolate along the great circle at an even pace, Shoemake 1985; the length changes from one to the other."""
    angle = torch.arccos(((first * last).sum() / (first.norm() * last.norm())).clamp(-1, 1))
    w = weight.view(-1, 1, 1, 1)
    if angle.sin().abs() < 1e-4:  # both lie on one line: no circle is the shortest
        return torch.lerp(first, last, w)
    return (((1 - w) * angle).sin() * first + (w * angle).sin() * last) / angle.sin()
