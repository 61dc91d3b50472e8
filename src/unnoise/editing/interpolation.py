"""Interpolations between two noises that stay noise all along."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unnoise.types import RandnLike


def interpolate_noise(first: RandnLike, last: RandnLike, share: Float[Tensor, " b"]) -> RandnLike:
    """Return a source of noises between the first (share 0) and the last (share 1): cos(a) e1 + sin(a) e2.

    Each of them is normal. A source of one noise and many shares give many noises, and so does the reverse.

    All noise that the sampler draws is turned together with the noise it starts from. The first and the last image are
    therefore the images of the two sources, and the images between them change smoothly.
    """
    angle = (math.pi / 2 * share).view(-1, 1, 1, 1)

    def randn_like(x: Tensor) -> Tensor:
        return angle.cos().to(x) * first(x) + angle.sin().to(x) * last(x)

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
