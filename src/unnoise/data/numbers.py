"""Number ranges: one span for all images of a set, read from their values, and the pixels that it turns them into.

A deep image holds numbers of more than 8 bits: 16-bit gray, whole numbers of 32 bits, or floats. How bright a number is
follows from the whole set and never from one image: the span says which number is black and which one is white.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from unnoise.data.sources.source import Array, UnreadableImage
from unnoise.errors import InputError

Span: TypeAlias = tuple[float, float]  # (black, white)
TOP = 65535  # white of 16-bit pixels
WHOLE_TOPS = (255, 1023, 4095, 16383, TOP)  # of 8, 10, 12, 14 and 16 bits
REAL_SPANS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
SLACK = 1e-3  # of a span: rounding errors beyond its ends
FEW = 0.25  # of a span: values that cover less are probably of another span
CUT_OFF = "cut off numbers"
SAMPLE_FORMAT, BITS, PHOTOMETRIC = 339, 258, 262  # tags of TIFF
UNSIGNED, WHITE_IS_ZERO = 1, 0


class Spans(NamedTuple):
    """The spans of whole numbers and of floats, which one set may hold both."""

    whole: Span = (0.0, 65535.0)
    real: Span = (0.0, 1.0)


USUAL_SPANS = Spans()


@dataclass
class Extent:
    """The smallest and the largest number that were seen."""

    low: float = math.inf
    high: float = -math.inf

    def add(self, values: Array) -> None:
        """Take note of an array of numbers."""
        self.low, self.high = float(np.minimum(self.low, values.min())), float(np.maximum(self.high, values.max()))

    def covers(self, top: float) -> bool:
        """Return True if the numbers cover at least a quarter of 0..top."""
        return self.high - self.low >= FEW * top


def whole_span(low: float, high: float) -> Span:
    """Return the span of whole numbers: 0 to 255, 1023, 4095, 16383 or 65535; otherwise their own extent."""
    if low < 0:
        return own_span(low, high)
    return 0.0, float(next((top for top in WHOLE_TOPS if high <= top), high))


def real_span(low: float, high: float) -> Span:
    """Return the span of floats: 0..1, -1..1, 0..255 or 0..65535 if they cover it; otherwise their own extent."""
    for black, white in REAL_SPANS:
        inside = low >= black - SLACK * white and high <= white * (1 + SLACK)
        if inside and (white == 1 or high - low >= FEW * white):
            return black, white
    return own_span(low, high)


def own_span(low: float, high: float) -> Span:
    """Return (low, high); raise InputError if all numbers are equal or one is not finite."""
    if not math.isfinite(high - low):
        raise InputError("the pixels hold numbers that are not finite (nan or inf); leave these images out")
    if low == high:
        raise InputError(f"every pixel is {low:g}, so nothing says which number is white; give numbers in 0..1")
    return low, high


def find_span(dtype: np.dtype[Any], extent: Extent) -> Span:
    """Return the span of numbers of a type."""
    return (real_span if dtype.kind == "f" else whole_span)(extent.low, extent.high)


def choose_scaling(dtype: np.dtype[Any], span: Callable[[], Span]) -> Callable[[Array], Array]:
    """Return the function that turns rows of an array into uint8 or uint16; `span` is called if it depends on it.

    Floats become uint8, as do whole numbers in 0..255. Other whole numbers become uint16.
    """
    if dtype.kind == "b":
        return lambda row: row.astype(np.uint8) * np.uint8(255)
    if dtype == np.uint8:
        return lambda row: row
    black, white = span()
    top, kind = (255, np.uint8) if dtype.kind == "f" or (black, white) == (0, 255) else (TOP, np.uint16)
    if dtype.kind == "u" and white == top and dtype.itemsize == kind().itemsize:
        return lambda row: row.astype(kind)
    factor = top / (white - black)
    return lambda row: np.clip(np.rint((row.astype(np.float64) - black) * factor), 0, top).astype(kind)


def deep_values(image: Image.Image) -> Array:
    """Return the numbers [h, w] of a deep image, float32 or whole; raise UnreadableImage if one is not finite."""
    values: Array = np.asarray(image)
    tags = tags_of(image)
    if values.dtype == np.int32 and tags.get(BITS) == (32,) and tags.get(SAMPLE_FORMAT, (UNSIGNED,)) == (UNSIGNED,):
        values = values.view(np.uint32)  # Pillow reads them as if they had a sign
    if not np.isfinite(values).all():
        raise UnreadableImage("holds numbers that are not finite")
    return values


def to_sixteen_bit(image: Image.Image, spans: Spans) -> tuple[Image.Image, tuple[str, ...]]:
    """Return a deep image as whole numbers 0..65535 in mode "F", and notes on what that did."""
    values = deep_values(image)
    real = values.dtype.kind == "f"
    black, white = spans.real if real else spans.whole
    exact: Any = np.float32 if real else np.float64
    scaled = (values.astype(exact) - black) * (TOP / (white - black))
    notes = [f"read {{n}} images of {'floats' if real else 'whole numbers'}: {describe_span((black, white))}"]
    if scaled.min() < -SLACK * TOP or scaled.max() > TOP * (1 + SLACK):
        notes.append(f"{CUT_OFF} beyond {black:g}..{white:g} in {{n}} images")
    if tags_of(image).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = TOP - scaled
    return Image.fromarray(np.clip(np.rint(scaled), 0, TOP).astype(np.float32)), tuple(notes)


def tags_of(image: Image.Image) -> Any:
    """Return the tags of an opened TIFF, or of a page of one; nothing for other images."""
    return getattr(image, "tag_v2", None) or image.info.get("tags", {})


def describe_span(span: Span) -> str:
    """Return a span in words."""
    return f"{span[0]:g} is black, {span[1]:g} is white"


def describe_few(extent: Extent, top: int) -> str:
    """Return the warning about pixels that cover little of their range."""
    return (
        f"the pixels lie in {extent.low:g}..{extent.high:g} of 0..{top}, less than a quarter of the range: the images "
        "are dark or flat; if they should not be, scale their numbers"
    )
