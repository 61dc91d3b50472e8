"""Find images that are turned, whose channels are exchanged, or that are negatives, and change real ones like that."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from unnoise.evaluation.spectrum import Bands, Means
from unnoise.images import Uint8Images

THUMBNAIL = 8  # pixels
NO_NUMBER = 1e-6  # a distance in 8-bit steps below this is none

LEFT, RIGHT = (f"turned by 90 degrees to the {side}" for side in ("left", "right"))
TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda x: x,
    "upside down": lambda x: x.flip(-2),
    "mirrored": lambda x: x.flip(-1),
    "turned by 180 degrees": lambda x: x.flip((-2, -1)),
    LEFT: lambda x: x.rot90(-1, (-2, -1)),
    RIGHT: lambda x: x.rot90(1, (-2, -1)),
    "with rows and columns exchanged": lambda x: x.transpose(-2, -1),
    "with rows and columns exchanged, from the other corner": lambda x: x.transpose(-2, -1).flip((-2, -1)),
}  # what the images are -> the change that makes them right
OPPOSITE = {LEFT: RIGHT, RIGHT: LEFT}  # the other changes undo themselves


def thumbnails(pixels: Uint8Images) -> Bands:
    """Return each image as a gray thumbnail, and its squares."""
    gray = pixels.double().mean(dim=1, keepdim=True)
    square = min(gray.shape[-2:]) / max(gray.shape[-2:]) > 0.99
    small = torch.nn.functional.adaptive_avg_pool2d(gray, THUMBNAIL if square else (THUMBNAIL, THUMBNAIL + 1))
    centred = small - small.mean(dim=(-2, -1), keepdim=True)
    return torch.cat([centred.flatten(1), centred.square().flatten(1).add(1).sqrt()], dim=1)


def turn_distances(drawn: Means, real: Means) -> dict[str, float]:
    """Return the distance of the mean thumbnails after each change; turns by 90 degrees need square images."""
    square = len(drawn) == 2 * THUMBNAIL**2
    shape = (2, THUMBNAIL, THUMBNAIL if square else THUMBNAIL + 1)
    ours, theirs = drawn.reshape(shape), real.reshape(shape)
    turns = list(TURNS.items())[: len(TURNS) if square else 4]
    return {name: float((turn(ours) - theirs).square().mean().sqrt()) for name, turn in turns}


def orders(channels: int) -> dict[str, tuple[list[int], bool]]:
    """Return names of what the values of images may be, with the order of channels and the sign that mend it."""
    letters = "RGB"[:channels]
    made = {}
    for negative in (False, True):
        for order in permutations(range(channels)):
            exchanged = ", ".join(f"{letters[i]} for {letters[k]}" for k, i in enumerate(order) if i != k)
            words = [f"channels exchanged ({exchanged})" if exchanged else "", "negative" if negative else ""]
            made[" and ".join(filter(None, words)) or "as they are"] = (list(order), negative)
    return made


def colours(pixels: Uint8Images) -> Bands:
    """Return the moments of the channels, and the mean of each channel in each quarter of the image."""
    quarters = torch.nn.functional.adaptive_avg_pool2d(pixels.double(), 2).flatten(1)
    return torch.cat([quarters, quarters.square().add(1).sqrt()], dim=1)


def order_distances(drawn: Means, real: Means) -> dict[str, float]:
    """Return the distance of the mean colours after each exchange of channels and for negatives."""
    channels = len(drawn) // 8
    theirs, found = real[: 4 * channels].reshape(channels, 4), {}
    for name, (order, negative) in orders(channels).items():
        ours = drawn[: 4 * channels].reshape(channels, 4)[order]
        found[name] = float(((255 - ours if negative else ours) - theirs).square().mean().sqrt())
    return found


def best_name(distances: dict[str, float]) -> str:
    """Return the name with the smallest distance."""
    return min(distances, key=lambda name: distances[name])


def nearest_change(drawn: Means, real: Means, distances: Callable[[Means, Means], dict[str, float]]) -> float:
    """Return the distance of the images as they are over the distance after the best change; 1 if none is better."""
    found = distances(drawn, real)
    return found["as they are"] / max(min(found.values()), NO_NUMBER)


def turn(pixels: Uint8Images, _: float, drawn: Means, real: Means) -> Uint8Images:
    """Return real images that are turned as the drawn ones are."""
    name = best_name(turn_distances(drawn, real))
    return TURNS[OPPOSITE.get(name, name)](pixels).contiguous()


def exchange(pixels: Uint8Images, _: float, drawn: Means, real: Means) -> Uint8Images:
    """Return real images whose channels have the order and the sign of the drawn ones."""
    order, negative = orders(pixels.shape[1])[best_name(order_distances(drawn, real))]
    changed = pixels[:, np.argsort(order).tolist()]
    return 255 - changed if negative else changed
