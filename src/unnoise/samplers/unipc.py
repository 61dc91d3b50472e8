"""UniPC: a predictor and a corrector of the same form, which share one evaluation of the network."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.errors import InputError
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.samplers.dpm_solver import gap, towards
from unnoise.types import Images, RandnLike

Variant: TypeAlias = Literal["bh1", "bh2"]  # B(h) is -h or e^-h - 1
Known: TypeAlias = tuple[Images, Level]  # x0, as seen at a level


@sampler.declare(order=4, evaluations=1)
def unipc(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    order: int = 3,
    variant: Variant = "bh2",
    randn_like: RandnLike = torch.randn_like,  # noqa: ARG001  # deterministic
) -> Iterator[Step]:
    """Sample by UniPC on the image, Zhao et al. 2023 (arXiv:2302.04867): predict, then correct by the next evaluation.

    The first steps know fewer images; with very many steps their error, of order 3, dominates. Diffusers uses fewer
    images in the last steps too, which makes it second order; this sampler does not.

    Args:
        order: p of the paper, 1 to 3: the number of images that a step uses. The error is of order p + 1.
        variant: B(h) of the paper: -h for "bh1", e^-h - 1 for "bh2".

    Raises:
        InputError: order is not 1, 2 or 3.
    """
    if order not in (1, 2, 3):
        raise InputError(f"unipc: order is 1, 2 or 3, got {order}")
    start, past = x, list[Known]()  # the newest first
    for t, s in pairwise(levels):
        x0 = denoise(x, t).x0
        if past:
            x = update(start, past, t, variant, [(x0, t)])
        start, past = x, [(x0, t), *past[: order - 1]]
        x = update(start, past, s, variant)
        yield Step(x, x0, s)


def update(x: Images, past: Sequence[Known], s: Level, variant: Variant, seen: Sequence[Known] = ()) -> Images:
    """Move x from the newest level of the past to s.

    It is UniP-p by p images of the past, and UniC-p if x0 has been predicted at s too (`seen`).
    """
    (x0, t), *older = past
    x = towards(x, x0, t, s)
    known = [(image, level) for image, level in (*older, *seen) if level.alpha > 0]  # pure noise is infinitely far away
    if not known or s.sigma == 0 or t.alpha == 0:  # else h is infinite
        return x
    h = gap(t, s)
    places = torch.stack([gap(t, level) / h for _, level in known])
    for weight, (image, _) in zip(weights(places, h, variant), known, strict=True):
        x = x - (s.alpha * weight).to(x) * (image - x0)
    return x


def weights(places: Float64[Tensor, " n"], h: Float64[Tensor, ""], variant: Variant) -> Float64[Tensor, " n"]:
    """Return B(h) a / r, where R(h) a B(h) = phi(h), theorem 3.1. A single a is 1/2; only then does B(h) matter."""
    B = -h if variant == "bh1" else torch.expm1(-h)
    if len(places) == 1:
        return B / 2 / places
    z = -h
    phi, column = torch.expm1(z) / z, []
    for n in range(1, len(places) + 1):
        phi = (phi - 1 / math.factorial(n)) / z  # phi_{n + 1}
        column.append(z * math.factorial(n) * phi)
    a: Tensor = torch.linalg.solve(torch.vander(places, increasing=True).T, torch.stack(column))  # B(h) a
    return a / places
