"""A quick look for copies of training images: the share of images that are nearer to one of them than new images are.

`unnoise eval --metrics memorization` is the whole audit: it searches by features too, among all training images.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unnoise.evaluation.memorization import NEIGHBOURS, TWIN, limits
from unnoise.evaluation.near_copies import (
    SIDE,
    Nearest,
    at_most,
    both_ways,
    closest,
    nearer,
    nearer_at,
    no_neighbours,
    pixel_views,
)
from unnoise.evaluation.scores import wilson
from unnoise.images import Uint8Images, Uint8Set

MOST = 300  # images of each set that are compared: moved images take nine times the work
BATCH = 512  # training images that are compared at a time


def copied(
    drawn: Uint8Set, new: Uint8Set, trained: Uint8Set, own: Int64[Tensor, " m"] | None = None, *, mirrored: bool = False
) -> dict[str, Any] | None:
    """Return the flagged shares of drawn and of new images, as plain values; None if there are too few.

    New images that are copies themselves set no threshold.

    Args:
        drawn, new, trained: The images that are judged, images that were not trained on, and training images.
        own: The rows of the new images among the training images, if they are some of them.
        mirrored: Look for mirrored training images too: the run was also trained on them.
    """
    if len(trained) <= NEIGHBOURS + 1 or len(new) < 2:
        return None
    ours, theirs = spread(len(drawn)), spread(len(new))
    found = closeness(drawn[ours], trained, None, mirrored=mirrored)
    known = closeness(new[theirs], trained, own[theirs] if own is not None else None, mirrored=mirrored)
    if not (unlike := (known > TWIN).all(dim=0)).any():
        return None
    thresholds, _ = limits(known[:, unlike])
    flags = [(each <= torch.tensor(thresholds)[:, None]).any(dim=0) for each in (found, known)]
    return {name: share(flag) for name, flag in zip(("drawn", "new"), flags, strict=True)} | {
        "training_images": len(trained)
    }


def spread(n: int) -> Int64[Tensor, " m"]:
    """Return at most MOST of n rows, evenly over all of them."""
    return torch.linspace(0, n - 1, min(n, MOST), dtype=torch.float64).round().long()


def share(flags: Bool[Tensor, " n"]) -> dict[str, Any]:
    """Return a share with its interval, as plain values."""
    value = float(flags.double().mean())
    return {"value": value, "interval": list(wilson(value, len(flags)))}


def closeness(
    images: Uint8Set, trained: Uint8Set, own: Int64[Tensor, " n"] | None, *, mirrored: bool
) -> Float[Tensor, "s n"]:
    """Return the closeness of images to their nearest training image: in pixels, in parts, and if they are moved."""
    views, gray = pixel_views(images), grays(images)
    found = [no_neighbours(len(images), NEIGHBOURS) for _ in (*views, gray)]
    for start in range(0, len(trained), BATCH):
        part = trained[start : start + BATCH]
        indices = torch.arange(start, start + len(part))
        for shown in both_ways(part, mirrored=mirrored):
            for view, (mine, theirs) in enumerate(zip(views, pixel_views(shown), strict=True)):
                found[view] = nearer(found[view], mine, theirs, indices, own)
            found[-1] = nearer_at(found[-1], moved_distances(gray, grays(shown)), indices, own)
    unused = Nearest(torch.ones(len(images), 2), torch.zeros(len(images), dtype=torch.int64))
    still = closest([unused, *found[:-1]], [x.shape[1] for x in views[2:]]).closeness[1:]
    return torch.cat([still, found[-1].closeness[None]])


def grays(pixels: Uint8Images) -> Float[Tensor, "n h w"]:
    """Return images in gray, at most SIDE pixels wide or high, each less its mean."""
    gray = at_most(pixels, SIDE).mean(dim=1)
    return gray - gray.mean(dim=(1, 2), keepdim=True)


def moved_distances(x: Float[Tensor, "n h w"], training: Float[Tensor, "b h w"]) -> Float[Tensor, "n b"]:
    """Return the distances of images that may be moved by up to a pixel to each side; their edges do not count."""
    height, width = (side - 2 for side in x.shape[1:])
    inner = training[:, 1:-1, 1:-1].flatten(1)
    places = [x[:, y : y + height, z : z + width].flatten(1) for y in range(3) for z in range(3)]
    return torch.stack([torch.cdist(place, inner) for place in places]).min(dim=0).values
