"""The faults that are visible in pixels: for each a number, the images without the fault, and what mends it.

To add a fault, write a statistic of each image, a number from the means of two sets, and a function that removes the
fault from images. Then add a row to FAULTS. `benchmarks/quality/doctor.py` plants faults and looks if they are named.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from unnoise.evaluation.colours import (
    gray_shift,
    match_spread,
    moments,
    remove_tint,
    shift_gray,
    spread_ratio,
    tint,
    tint_name,
)
from unnoise.evaluation.orientation import (
    best_name,
    colours,
    nearest_change,
    order_back,
    order_distances,
    thumbnails,
    turn_back,
    turn_distances,
)
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
)
from unnoise.images import Uint8Images


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
    side: int = 0  # 1 if only a larger number than real images have is this fault, -1 if only a smaller one


# Blocks, grids, haze and grain


def blocks(drawn: Means, real: Means, period: int) -> float:
    """Return how much larger the steps between blocks of this period are than inside, against real images."""
    return seams(drawn, real, period)[0]


def plant_blocks(pixels: Uint8Images, drawn: Means, real: Means, period: int) -> Uint8Images:
    """Return real images with blocks that are as clear as in the drawn images."""
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
        "power at a period of 2 px over the power of real images",
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
                "look at the training images: enlarged or JPEG-compressed files show such blocks; if they show none, "
                f"they are of the scales of the network: {LONGER}"
            ),
            planted=True,
            side=1,
        )
        for period in (2, 4, 8)
    },
    "haze": Fault(
        ring_power,
        high_power,
        "power at high frequencies over the power of real images",
        match_rings,
        always("haze: too little detail"),
        always(f"more --steps, or unnoise tune; {LONGER}"),
        side=-1,
    ),
    "grain": Fault(
        ring_power,
        high_power,
        "power at high frequencies over the power of real images",
        plant_grain,
        always("grain: noise"),
        always(f"more --steps, or another --sampler (unnoise tune); {LONGER}; look for noise in the training images"),
        planted=True,
        side=1,
    ),
    "brightness": Fault(
        moments,
        gray_shift,
        "mean brightness less the brightness of real images, in % of the range",
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
        "spread of the brightness over the spread of real images",
        partial(match_spread, which=0),
        by_sign("too little contrast", "too much contrast"),
        by_sign(f"more --steps; {LONGER}", "less --guidance; keep --clip; more --steps"),
    ),
    "colourfulness": Fault(
        moments,
        partial(spread_ratio, which=1),
        "spread of the colours over the spread of real images",
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
