"""Copies that the audit looks for: how images are compared, planted near copies, and the share of copies."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, pad

from unnoise.evaluation.features import Extractor, resized
from unnoise.evaluation.scores import wilson
from unnoise.images import Uint8Images

SIDE, GRAY_SIDE, HALF_SIDE = 32, 16, 8  # pixels are compared at these sizes
VIEWS = ("features", "pixels", "gray", "left", "right", "top", "bottom")
SPACES = ("features", "pixels", "parts")  # what can be nearer than in new images; a part is gray, or a half
SLACK = 0.02  # distance of a half, in each value, that is nothing: halves without content are all alike
PLANTED = 64  # near copies of each kind
NEAR = ("noise", "blur", "shift")  # kinds of near copies whose detection corrects the share of copies

Vectors = Float[Tensor, "_ _"]  # [n, d], one row for each image


class Nearest(NamedTuple):
    """The distances of each image to its nearest training images, ascending, and the index of the nearest one."""

    distances: Float[Tensor, "n k"]
    first: Int[Tensor, " n"]

    @property
    def closeness(self) -> Float[Tensor, " n"]:
        """Return the nearest distance over the mean of the next: Carlini et al. 2023 (arXiv:2301.13188), section 5.1.

        A blurred image is near to all training images alike; a copy is near to its own original only.
        """
        return self.distances[:, 0] / self.distances[:, 1:].mean(dim=1).clamp(min=1e-12)


class Closest(NamedTuple):
    """The closeness of each image in every space, and the training image that is nearest there."""

    closeness: Float[Tensor, "s n"]
    first: Int[Tensor, "s n"]


def describe(pixels: Uint8Images, extractor: Extractor) -> tuple[Vectors, ...]:
    """Return the vectors of images in all views."""
    return (extractor(pixels)[0].cpu(), *pixel_views(pixels))


def pixel_views(pixels: Uint8Images) -> tuple[Vectors, ...]:
    """Return the vectors of images in all views except features.

    Gray is the mean of the colours, less its own mean, over its own deviation: an exchange of colours, or another
    brightness or contrast, changes nothing. Each half of an image is compared by itself.
    """
    small = at_most(pixels, HALF_SIDE)
    middle, center = small.shape[-2] // 2, small.shape[-1] // 2
    halves = small[..., :center], small[..., center:], small[..., :middle, :], small[..., middle:, :]
    gray = at_most(pixels, GRAY_SIDE)[:, :3].mean(dim=1).flatten(1)
    gray = gray - gray.mean(dim=1, keepdim=True)
    gray = gray / gray.square().mean(dim=1, keepdim=True).sqrt().clamp(min=SLACK)
    return (small_pixels(pixels), gray.cpu(), *(half.flatten(1).cpu() for half in halves))


def both_ways(pixels: Uint8Images, *, mirrored: bool) -> list[Uint8Images]:
    """Return training images as they are and, if the run was trained on mirrored ones too, mirrored."""
    return [pixels, pixels.flip(-1)] if mirrored else [pixels]


def small_pixels(pixels: Uint8Images) -> Vectors:
    """Return the pixels in [-1, 1] as vectors; images larger than SIDE are shrunk to it."""
    return at_most(pixels, SIDE).flatten(1).cpu()


def at_most(pixels: Uint8Images, side: int) -> Float[Tensor, "b c h w"]:
    """Return the pixels in [-1, 1], shrunk to a size if they are larger."""
    return resized(pixels, side) if min(pixels.shape[-2:]) > side else pixels.float() / 127.5 - 1


def closest(found: list[Nearest], halves: list[int]) -> Closest:
    """Return the closeness in every space from the neighbours in every view; the nearest part counts.

    `halves` are the numbers of values of the four halves.
    """
    parts = [found[2].closeness]
    for near, size in zip(found[3:], halves, strict=True):
        slack = SLACK * math.sqrt(size)
        parts.append((near.distances[:, 0] + slack) / (near.distances[:, 1:].mean(dim=1) + slack))
    least, which = torch.stack(parts).min(dim=0)
    first = torch.stack([near.first for near in found[2:]]).gather(0, which[None])[0]
    closeness = [*(near.closeness for near in found[:2]), least]
    return Closest(torch.stack(closeness), torch.stack([*(near.first for near in found[:2]), first]))


def no_neighbours(count: int, k: int) -> Nearest:
    """Return the start of a search for k neighbours: all distances are infinite."""
    return Nearest(torch.full((count, k), math.inf), torch.full((count,), -1))


def nearer(
    best: Nearest, x: Vectors, training: Vectors, indices: Int[Tensor, " b"], own: Int[Tensor, " n"] | None
) -> Nearest:
    """Return the nearest of the best so far and these training images.

    `indices` number the training images. `own` numbers x if they are training images, which do not count themselves.
    """
    return nearer_at(best, torch.cdist(x, training), indices, own)


def nearer_at(
    best: Nearest, apart: Float[Tensor, "n b"], indices: Int[Tensor, " b"], own: Int[Tensor, " n"] | None
) -> Nearest:
    """Return the nearest of the best so far and training images at these distances."""
    if own is not None:
        apart = apart.masked_fill(own[:, None] == indices, math.inf)
    distance, at = apart.min(dim=1)
    first = torch.where(distance < best.distances[:, 0], indices[at], best.first)
    k = best.distances.shape[1]
    return Nearest(torch.cat([best.distances, apart], dim=1).topk(k, dim=1, largest=False).values, first)


def plant(images: Uint8Images, others: Uint8Images, seed: int) -> dict[str, Uint8Images]:
    """Return near copies of each kind of images; half of a half copy comes from other images, mirrored."""
    exact, (height, width) = images.float(), images.shape[-2:]
    step = max(1, round(min(height, width) / 32))
    noise = torch.from_numpy(np.random.default_rng(seed).normal(0, 8, images.shape)).to(exact)
    small = interpolate(exact, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
    kinds = {
        "noise": exact + noise,
        "blur": interpolate(small, size=(height, width), mode="bilinear", align_corners=False),
        "shift": pad(exact, (step, 0, step, 0), mode="replicate")[..., :height, :width],
    }
    if images.shape[1] > 2:
        kinds["colours"] = torch.cat([exact[:, :3].roll(1, dims=1), exact[:, 3:]], dim=1)
    if len(others):
        mirrored = others[torch.arange(len(images)) % len(others)].flip(-1).float()
        kinds["half"] = torch.cat([exact[..., : width // 2], mirrored[..., width // 2 :]], dim=-1)
    return {name: changed.round().clamp(0, 255).to(torch.uint8) for name, changed in kinds.items()}


def share_of_copies(
    flagged: tuple[int, int], alarms: tuple[int, int], detected: tuple[int, int], z: float = 1.96
) -> dict[str, Any] | None:
    """Return the share of copies with its interval of 95 %, or None if copies are not told from new images.

    The share is (flagged - false alarms) / (detected - false alarms), Rogan & Gladen 1978. The interval also contains
    the errors of both rates, Lang & Reiczigel 2014 (doi:10.1016/j.prevetmed.2013.09.015). Each pair is a count and the
    number of images it is of: drawn images, new images, planted near copies.
    """
    false, found = alarms[0] / alarms[1], detected[0] / detected[1]
    if wilson(found, detected[1])[0] <= wilson(false, alarms[1])[1]:
        return None
    seen, n = (flagged[0] + z**2 / 2) / (flagged[1] + z**2), flagged[1] + z**2
    n_se, n_fa = detected[1] + 2, alarms[1] + 2
    se, fa = (detected[0] + 1) / n_se, (alarms[0] + 1) / n_fa
    share = (seen - fa) / (se - fa)
    of_se, of_fa = se * (1 - se) / n_se, fa * (1 - fa) / n_fa
    moved = 2 * z**2 * (share * of_se - (1 - share) * of_fa)
    half = z * math.sqrt(seen * (1 - seen) / n + share**2 * of_se + (1 - share) ** 2 * of_fa) / (se - fa)
    plain = (flagged[0] / flagged[1] - false) / (found - false)
    inside = [min(1.0, max(0.0, value)) for value in (plain, share + moved - half, share + moved + half)]
    return {"share": inside[0], "interval": inside[1:]}


def describe_copies(copies: dict[str, Any] | None) -> str:
    """Return the estimated share of copies in words."""
    if copies is None:
        return "the share of copies is not known: planted copies are flagged as rarely as new images"
    low, high = copies["interval"]
    return f"near copies are {copies['share']:.2%} of the images, {low:.2%} to {high:.2%} (95 %)"
