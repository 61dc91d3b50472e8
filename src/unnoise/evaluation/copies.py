"""A quick look for copies of training images: the share of images that are nearer to one of them than new images are.

`unnoise eval --metrics memorization` is the whole audit: it searches by features too, among all training images.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unnoise.evaluation.memorization import NEIGHBOURS, limits
from unnoise.evaluation.near_copies import (
    Nearest,
    closest,
    nearer,
    no_neighbours,
    pixel_views,
)
from unnoise.evaluation.scores import wilson
from unnoise.images import Uint8Images

BATCH = 512  # training images that are compared at a time


def copied(
    drawn: Uint8Images, new: Uint8Images, trained: Uint8Images, own: Int64[Tensor, " m"] | None = None
) -> dict[str, Any] | None:
    """Return the flagged shares of drawn and of new images, as plain values; None if there are too few.

    Args:
        drawn, new, trained: The images that are judged, images that were not trained on, and training images.
        own: The rows of the new images among the training images, if they are some of them.
    """
    if len(trained) <= NEIGHBOURS + 1 or len(new) < 2:
        return None
    found, known = (closeness(each, trained, rows) for each, rows in ((drawn, None), (new, own)))
    thresholds, _ = limits(known)
    flags = [(each <= torch.tensor(thresholds)[:, None]).any(dim=0) for each in (found, known)]
    return {name: share(flag) for name, flag in zip(("drawn", "new"), flags, strict=True)} | {
        "training_images": len(trained)
    }


def share(flags: Bool[Tensor, " n"]) -> dict[str, Any]:
    """Return a share with its interval, as plain values."""
    value = float(flags.double().mean())
    return {"value": value, "interval": list(wilson(value, len(flags)))}


def closeness(images: Uint8Images, trained: Uint8Images, own: Int64[Tensor, " n"] | None) -> Float[Tensor, "s n"]:
    """Return the closeness of images to their nearest training image, in pixels and in parts."""
    views = pixel_views(images)
    found = [no_neighbours(len(images), NEIGHBOURS) for _ in views]
    for start in range(0, len(trained), BATCH):
        part = trained[start : start + BATCH]
        indices = torch.arange(start, start + len(part))
        for view, (mine, theirs) in enumerate(zip(views, pixel_views(part), strict=True)):
            found[view] = nearer(found[view], mine, theirs, indices, own)
    unused = Nearest(torch.ones(len(images), 2), torch.zeros(len(images), dtype=torch.int64))
    return closest([unused, *found], [x.shape[1] for x in views[2:]]).closeness[1:]
