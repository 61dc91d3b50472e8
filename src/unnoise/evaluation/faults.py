"""The faults that are visible in pixels: for each a number, a way to plant it in real images, and what mends it.

To add a fault, write a statistic of each image, a number from the means of two sets, and a function that gives images
the fault with some strength. Then add a row to FAULTS. `benchmarks/quality/doctor.py` looks if faults are named.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from unnoise.evaluation.colours import (
    add_gray,
    add_tint,
    gray_shift,
    moments,
    spread_ratio,
    stretch_colours,
    stretch_gray,
    tint,
    tint_name,
)
from unnoise.evaluation.damage import jpeg
from unnoise.evaluation.orientation import (
    best_name,
    colours,
    exchange,
    nearest_change,
    order_distances,
    thumbnails,
    turn,
    turn_distances,
)
from unnoise.evaluation.spectrum import (
    Bands,
    Means,
    add_grain,
    add_grid,
    flat_steps,
    grain,
    grid_numbers,
    grid_power,
    high_power,
    make_blocks,
    remove_detail,
    ring_power,
    seam_power,
    seams,
)
from unnoise.images import Uint8Images

HALVINGS = 10  # in the search for the strength of a fault: to a thousandth of its span
SEARCHED = 300  # images in this search


@dataclass(frozen=True)
class Fault:
    """A fault: how it is measured, planted, named and mended.

    Attributes:
        statistic: The numbers of each image, [n, k].
        number: From the means of the statistic over the drawn and the real images to one number.
        says: What the number is.
        make: Images with the fault, from images, a strength, and the means over the drawn and the real images.
        span: Two strengths; the number rises from the first to the second. None: there are no strengths.
        name, advice: The name and what to do, by the number and both means.
        side: 1 if only a larger number than real images have is this fault, -1 if only a smaller one.
        seen: Outside of these two numbers a person sees the fault. So it is named even if KID does not rise from it.
    """

    statistic: Callable[[Uint8Images], Bands]
    number: Callable[[Means, Means], float]
    says: str
    make: Callable[[Uint8Images, float, Means, Means], Uint8Images]
    span: tuple[float, float] | None
    name: Callable[[float, Means, Means], str]
    advice: Callable[[float], str]
    side: int = 0
    seen: tuple[float, float] = (-inf, inf)

    def plant(self, images: Uint8Images, drawn: Means, real: Means) -> Uint8Images:
        """Return real images that get the fault as strongly as the drawn images have it."""
        if self.span is None:
            return self.make(images, 1.0, drawn, real)
        some, number, (low, high) = images[:SEARCHED], self.number(drawn, real), self.span
        known = self.statistic(some).mean(dim=0)
        for _ in range(HALVINGS):
            strength = (low + high) / 2
            made = self.statistic(self.make(some, strength, drawn, real)).mean(dim=0)
            low, high = (strength, high) if self.number(made, known) < number else (low, strength)
        return self.make(images, (low + high) / 2, drawn, real)


# Blocks and grids


def blocks(drawn: Means, real: Means, period: int) -> float:
    """Return how much larger the steps between blocks of this period are than inside, against real images."""
    return seams(drawn, real, period)[0]


def add_blocks(pixels: Uint8Images, share: float, drawn: Means, real: Means, period: int) -> Uint8Images:
    """Return images that are moved towards the means of blocks, which begin where the drawn images have them."""
    return make_blocks(pixels, period, seams(drawn, real, period)[1], share)


def grid_number(drawn: Means, real: Means) -> float:
    """Return the mean of the three grid numbers."""
    return float(grid_numbers(drawn, real).mean())


# The table

LONGER = "train longer (--budget, --images), or with a wider --backbone"


def by_sign(low: str, high: str, middle: float = 1.0) -> Callable[..., str]:
    """Return a function that chooses between two texts: of a number below the middle, and above."""
    return lambda number, *_: low if number < middle else high


def always(text: str) -> Callable[..., str]:
    """Return a function that returns this text."""
    return lambda *_: text


def alone(make: Callable[[Uint8Images, float], Uint8Images]) -> Callable[..., Uint8Images]:
    """Return a function that plants a fault by its strength alone."""
    return lambda pixels, strength, *_: make(pixels, strength)


FAULTS: dict[str, Fault] = {
    "grid": Fault(
        grid_power,
        grid_number,
        "power at a period of 2 px over the power of real images",
        add_grid,
        (0, 2),
        always("grid of 2 px"),
        always(f"choose train --backbone unet:patch=1,up=nearest; {LONGER}"),
        side=1,
        seen=(-inf, 4),
    ),
    "jpeg": Fault(
        seam_power,
        partial(blocks, period=8),
        "steps between blocks of 8 px over steps inside, against real images",
        alone(lambda pixels, quality: jpeg(pixels, round(quality))),
        (95, 1),
        always("JPEG compression"),
        always(
            "look at the training images: store them as PNG, or with a high quality; if they show no blocks of 8 px, "
            f"these are of the scales of the network: {LONGER}"
        ),
        side=1,
    ),
    **{
        f"blocks {period}": Fault(
            seam_power,
            partial(blocks, period=period),
            f"steps between blocks of {period} px over steps inside, against real images",
            partial(add_blocks, period=period),
            (0, 1),
            always(f"blocks of {period} px"),
            always(
                "look at the training images: enlarged files show such blocks; if they show none, they are of the "
                f"scales of the network: {LONGER}"
            ),
            side=1,
        )
        for period in (2, 4, 8)
    },
    "haze": Fault(
        ring_power,
        high_power,
        "power at high frequencies over the power of real images",
        remove_detail,
        (2, 0),
        always("haze: too little detail"),
        always(f"more --steps, or unnoise tune; {LONGER}"),
        side=-1,
    ),
    "grain": Fault(
        flat_steps,
        grain,
        "steps between pixels in flat parts over the steps of real images",
        alone(add_grain),
        (0, 64),
        always("grain: noise"),
        always(f"more --steps, or another --sampler (unnoise tune); {LONGER}; look for noise in the training images"),
        side=1,
    ),
    "brightness": Fault(
        moments,
        gray_shift,
        "mean brightness less the brightness of real images, in % of the range",
        alone(add_gray),
        (-255, 255),
        by_sign("too dark", "too bright", 0.0),
        always(f"keep --clip; try train --schedule zero_snr; {LONGER}"),
        seen=(-6, 6),
    ),
    "tint": Fault(
        moments,
        tint,
        "largest shift of a channel, in % of the range",
        add_tint,
        (0, 2),
        lambda _, drawn, real: tint_name(drawn, real),
        always(f"keep --clip; try train --schedule zero_snr; {LONGER}"),
        seen=(-inf, 3),
    ),
    "contrast": Fault(
        moments,
        partial(spread_ratio, which=0),
        "spread of the brightness over the spread of real images",
        alone(stretch_gray),
        (0, 4),
        by_sign("too little contrast", "too much contrast"),
        by_sign(f"more --steps; {LONGER}", "less --guidance; keep --clip; more --steps"),
        seen=(0.8, 1.25),
    ),
    "colourfulness": Fault(
        moments,
        partial(spread_ratio, which=1),
        "spread of the colours over the spread of real images",
        alone(stretch_colours),
        (0, 4),
        by_sign("pale colours", "too strong colours"),
        by_sign(LONGER, f"less --guidance; keep --clip; {LONGER}"),
        seen=(0.75, 1.33),
    ),
    "orientation": Fault(
        thumbnails,
        partial(nearest_change, distances=turn_distances),
        "distance of the mean image from the real one, over the distance when turned",
        turn,
        None,
        lambda _, drawn, real: f"images {best_name(turn_distances(drawn, real))}",
        always("look at how the images are read and written: unnoise data"),
    ),
    "channels": Fault(
        colours,
        partial(nearest_change, distances=order_distances),
        "distance of the mean colours from the real ones, over the distance when exchanged",
        exchange,
        None,
        lambda _, drawn, real: best_name(order_distances(drawn, real)),
        always("look at how the images are read and written (BGR, negatives): unnoise data"),
    ),
}
