"""The faults that are visible in pixels: for each a number, the images without the fault, and what mends it.

To add a fault, write a statistic of each image, a number from the means of two sets, and a function that removes the
fault from images. Then add a row to FAULTS. `benchmarks/quality/doctor.py` plants faults and looks if they are named.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.evaluation.spectrum import (
    HALVINGS,
    Bands,
    Means,
    grid_numbers,
    grid_power,
    high_power,
    make_blocks,
    match_rings,
    plant_grain,
    remove_grid,
    ring_power,
    seam_power,
    seams,
    to_pixels,
)
from unnoise.images import Uint8Images

THUMBNAIL = 8  # pixels
NO_NUMBER = 1e-6  # a spread or a distance in 8-bit steps below this is none


@dataclass(frozen=True)
class Fault:
    """A fault: how it is measured, removed, named and mended.

    Attributes:
        statistic: The numbers of each image, [n, k].
        number: From the means of the statistic over the drawn and the real images to one number.
        says: What the number is.
        mend: The images without the fault, from the images and both means.
        name, advice: The name and what to do, by the number and both means.
        planted: The mend is of real images: `mend` plants the fault in them, since it cannot be removed.
    """

    statistic: Callable[[Uint8Images], Bands]
    number: Callable[[Means, Means], float]
    says: str
    mend: Callable[[Uint8Images, Means, Means], Uint8Images]
    name: Callable[[float, Means, Means], str]
    advice: Callable[[float], str]
    planted: bool = False
    side: int = 0  # 1 if only a number above that of real images is this fault, -1 if only one below


# Colours


def moments(pixels: Uint8Images) -> Bands:
    """Return the mean of each channel, and of the products of all pairs of channels."""
    x = pixels.double().flatten(2)
    return torch.cat([x.mean(dim=2), (x @ x.transpose(1, 2) / x.shape[2]).flatten(1)], dim=1)


def mean_and_covariance(found: Means) -> tuple[Means, Float64[Tensor, "c c"]]:
    """Return the mean of each channel and their covariance from the means of `moments`."""
    channels = int(len(found) ** 0.5)
    mean = found[:channels]
    return mean, found[channels:].reshape(channels, channels) - torch.outer(mean, mean)


def gray_shift(drawn: Means, real: Means) -> float:
    """Return how much brighter the drawn images are, in percent of the range of a pixel."""
    return float(mean_and_covariance(drawn)[0].mean() - mean_and_covariance(real)[0].mean()) / 2.55


def shift_gray(pixels: Uint8Images, drawn: Means, real: Means) -> Uint8Images:
    """Return images as bright as real ones."""
    return to_pixels(pixels - 2.55 * gray_shift(drawn, real))


def channel_shifts(drawn: Means, real: Means) -> Means:
    """Return how much brighter each channel is than the others should make it, in percent of the range of a pixel."""
    shift = (mean_and_covariance(drawn)[0] - mean_and_covariance(real)[0]) / 2.55
    return shift - shift.mean()


def tint(drawn: Means, real: Means) -> float:
    """Return the largest shift of a channel beyond brightness, in percent of the range of a pixel."""
    return float(channel_shifts(drawn, real).abs().max())


def remove_tint(pixels: Uint8Images, drawn: Means, real: Means) -> Uint8Images:
    """Return images without a tint."""
    return to_pixels(pixels - 2.55 * channel_shifts(drawn, real)[:, None, None])


def spreads(found: Means) -> tuple[float, float]:
    """Return the deviation of gray, and of the colours from gray, over all pixels."""
    _, covariance = mean_and_covariance(found)
    gray = covariance.mean()
    return float(gray.clamp(min=0).sqrt()), float((covariance.diagonal().mean() - gray).clamp(min=0).sqrt())


def spread_ratio(drawn: Means, real: Means, which: int) -> float:
    """Return a deviation over the deviation of real images."""
    ours, theirs = spreads(drawn)[which], spreads(real)[which]
    return ours / theirs if min(ours, theirs) > NO_NUMBER else 1.0


def match_spread(pixels: Uint8Images, drawn: Means, real: Means, which: int) -> Uint8Images:
    """Return images whose gray (0), or whose distance from gray (1), has the deviation of real images."""
    mean, _ = mean_and_covariance(drawn)
    apart = pixels.double() - mean[:, None, None]
    gray = apart.mean(dim=1, keepdim=True)
    part = gray if which == 0 else apart - gray
    return to_pixels(pixels + (1 / spread_ratio(drawn, real, which) - 1) * part)


# Orientation and the order of channels: which change of the drawn images makes them most like real ones?

TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda x: x,
    "upside down": lambda x: x.flip(-2),
    "mirrored": lambda x: x.flip(-1),
    "turned by 180 degrees": lambda x: x.flip((-2, -1)),
    "turned by 90 degrees to the left": lambda x: x.rot90(-1, (-2, -1)),
    "turned by 90 degrees to the right": lambda x: x.rot90(1, (-2, -1)),
    "with rows and columns exchanged": lambda x: x.transpose(-2, -1),
    "with rows and columns exchanged, from the other corner": lambda x: x.transpose(-2, -1).flip((-2, -1)),
}  # what the images are -> the change that makes them right


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


def turn_back(pixels: Uint8Images, drawn: Means, real: Means) -> Uint8Images:
    """Return images that are turned as real ones are."""
    return TURNS[best_name(turn_distances(drawn, real))](pixels).contiguous()


def order_back(pixels: Uint8Images, drawn: Means, real: Means) -> Uint8Images:
    """Return images whose channels have the order and the sign of real ones."""
    order, negative = orders(pixels.shape[1])[best_name(order_distances(drawn, real))]
    return 255 - pixels[:, order] if negative else pixels[:, order]


# Blocks, grids, haze and grain


def blocks(drawn: Means, real: Means, period: int) -> float:
    """Return how much larger the steps between blocks of this period are than inside, against real images."""
    return seams(drawn, real, period)[0]


def plant_blocks(pixels: Uint8Images, drawn: Means, real: Means, period: int) -> Uint8Images:
    """Return real images with blocks that are as clear as those of the drawn images."""
    number, phases = seams(drawn, real, period)
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        share = (low + high) / 2
        made = seam_power(make_blocks(pixels, period, phases, share)).mean(dim=0)
        low, high = (share, high) if seams(made, real, period)[0] < number else (low, share)
    return make_blocks(pixels, period, phases, high)


def grid_number(drawn: Means, real: Means) -> float:
    """Return the mean of the three grid numbers."""
    return float(grid_numbers(drawn, real).mean())


def take_grid(pixels: Uint8Images, drawn: Means, real: Means) -> Uint8Images:
    """Return images without a grid."""
    return remove_grid(pixels, grid_numbers(drawn, real))


# The table

LONGER = "train longer (--budget, --images), or with a wider --backbone"


def by_sign(low: str, high: str, middle: float = 1.0) -> Callable[..., str]:
    """Return a function that chooses between two texts: of a number below the middle, and above."""
    return lambda number, *_: low if number < middle else high


def always(text: str) -> Callable[..., str]:
    """Return a function that returns this text."""
    return lambda *_: text


FAULTS: dict[str, Fault] = {
    "grid": Fault(
        grid_power,
        grid_number,
        "power at a period of 2 px over that of real images",
        take_grid,
        always("grid of 2 px"),
        always(f"choose train --backbone unet:patch=1,up=nearest; {LONGER}"),
        side=1,
    ),
    **{
        f"blocks {period}": Fault(
            seam_power,
            partial(blocks, period=period),
            f"steps between blocks of {period} px over steps inside, against real images",
            partial(plant_blocks, period=period),
            always(f"blocks of {period} px"),
            always(
                "look at the training images: enlarged or JPEG-compressed files show such blocks"
                + (f"; a backbone with patch={period} may make them" if period < 8 else "")
            ),
            planted=True,
            side=1,
        )
        for period in (2, 4, 8)
    },
    "haze": Fault(
        ring_power,
        high_power,
        "power at high frequencies over that of real images",
        match_rings,
        always("haze: too little detail"),
        always(f"more --steps, or unnoise tune; {LONGER}"),
        side=-1,
    ),
    "grain": Fault(
        ring_power,
        high_power,
        "power at high frequencies over that of real images",
        plant_grain,
        always("grain: noise"),
        always(f"more --steps, or another --sampler (unnoise tune); {LONGER}; look for noise in the training images"),
        planted=True,
        side=1,
    ),
    "brightness": Fault(
        moments,
        gray_shift,
        "mean brightness less that of real images, in % of the range",
        shift_gray,
        by_sign("too dark", "too bright", 0.0),
        always(f"keep --clip; try train --schedule zero_snr; {LONGER}"),
    ),
    "tint": Fault(
        moments,
        tint,
        "largest shift of a channel, in % of the range",
        remove_tint,
        lambda _, drawn, real: tint_name(drawn, real),
        always(f"keep --clip; try train --schedule zero_snr; {LONGER}"),
    ),
    "contrast": Fault(
        moments,
        partial(spread_ratio, which=0),
        "spread of the brightness over that of real images",
        partial(match_spread, which=0),
        by_sign("too little contrast", "too much contrast"),
        by_sign(f"more --steps; {LONGER}", "less --guidance; keep --clip; more --steps"),
    ),
    "colourfulness": Fault(
        moments,
        partial(spread_ratio, which=1),
        "spread of the colours over that of real images",
        partial(match_spread, which=1),
        by_sign("pale colours", "too strong colours"),
        by_sign(LONGER, f"less --guidance; keep --clip; {LONGER}"),
    ),
    "orientation": Fault(
        thumbnails,
        partial(nearest_change, distances=turn_distances),
        "distance of the mean image from the real one, over the distance when turned",
        turn_back,
        lambda _, drawn, real: f"images {best_name(turn_distances(drawn, real))}",
        always("look at how the images are read and written: unnoise data"),
    ),
    "channels": Fault(
        colours,
        partial(nearest_change, distances=order_distances),
        "distance of the mean colours from the real ones, over the distance when exchanged",
        order_back,
        lambda _, drawn, real: best_name(order_distances(drawn, real)),
        always("look at how the images are read and written (BGR, negatives): unnoise data"),
    ),
}


def tint_name(drawn: Means, real: Means) -> str:
    """Return which channel is shifted most, and to which side."""
    shifts = channel_shifts(drawn, real)
    which = int(shifts.abs().argmax())
    return f"a tint: {'too much' if shifts[which] > 0 else 'too little'} {('red', 'green', 'blue')[which]}"
