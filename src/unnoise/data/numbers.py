"""Number ranges: the span of the numbers of a whole set, and the pixels that numbers become.

Images of more than 8 bits, and arrays of most types, do not say which number is black and which one is white. The span
(black, white) of all images of one type is read from all of them: an image alone cannot tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unnoise.data.sources.source import UnreadableImage
from unnoise.images import WHOLE_RANGE

Array: TypeAlias = NDArray[Any]
Span: TypeAlias = tuple[float, float]  # (black, white)
Spans: TypeAlias = Mapping[str, Span]  # by the type of the numbers, such as uint16
NO_SPANS: Spans = {}  # each span is measured
WHOLE = ((1 << 8) - 1, (1 << 10) - 1, (1 << 12) - 1, (1 << 14) - 1, (1 << 16) - 1)  # whites of whole numbers
MAX_SHORT = WHOLE[-1]
MAX_LONG = (1 << 32) - 1
REAL: tuple[Span, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, float(MAX_SHORT)))
SLACK = 0.001  # of the distance of white from zero: floats may be rounded
CUT_OFF = "cut off"  # the start of a note on numbers beyond the span
FEW = 0.25  # of a span: values that cover less are probably meant in another span
OUTERMOST = (0.5, 99.5)  # percentiles of the pixels of an image
PER_FILE = "0..1 or 0..65535"  # the key of spans under which each file of floats decides for itself
# The rule of models that do not say their spans.
VERSION_0_1_0: Spans = dict.fromkeys(("uint16", "int16", "uint32", "int32", PER_FILE), (0.0, float(MAX_SHORT)))
SAMPLE_FORMAT, BITS, PHOTOMETRIC = 339, 258, 262  # tags of TIFF
UNSIGNED, WHITE_IS_ZERO = 1, 0
TAGS = "tags of TIFF"  # the key under which a copy of an image keeps them
WORDS = {"float16": "16-bit float", "float32": "32-bit float", "float64": "64-bit float"}


@dataclass
class Measured:
    """The smallest and the largest number of each type that was seen."""

    known: Spans = field(default_factory=dict)  # spans that need not be measured
    extents: dict[str, Span] = field(default_factory=dict)

    def add(self, values: Array) -> None:
        """Take note of the numbers of one image."""
        (low, high), kind = extent_of(values), values.dtype.name
        lowest, highest = self.extents.get(kind, (low, high))
        self.extents[kind] = min(low, lowest), max(high, highest)

    def settled(self, kind: str) -> bool:
        """Return True if no further image can change the span of this type."""
        bright = kind == "uint16" and self.extents.get(kind, (0, 0))[1] > WHOLE[-2]
        return bright or not kind or kind in self.known

    @property
    def spans(self) -> Spans:
        """Return the span of each type."""
        return {kind: find_span(kind, *extent) for kind, extent in self.extents.items()} | dict(self.known)


@dataclass
class Coverage:
    """The part of the range that 99 % of the pixels of each image cover; measured until it is enough.

    The darkest and the brightest ones are left out: one broken pixel of a camera sets the span of a whole set.
    """

    low: int = MAX_SHORT
    high: int = 0
    top: int = 0

    def add(self, pixels: Array) -> None:
        """Take note of the pixels of one image."""
        if not self.top or self.high - self.low < FEW * self.top:
            low, high = np.percentile(pixels, OUTERMOST)
            self.low, self.high = min(self.low, int(low)), max(self.high, int(high))
            self.top = np.iinfo(pixels.dtype).max

    def warnings(self) -> list[str]:
        """Return a warning if nearly all pixels lie in less than a quarter of the range."""
        if not self.top or self.high - self.low >= FEW * self.top:
            return []
        extent = f"{self.low}..{self.high} of 0..{self.top}"
        few = "less than a quarter of the range"
        return [f"warning: 99 % of all pixels lie in {extent}, {few}; scale them if they look dark"]


def find_span(kind: str, low: float, high: float) -> Span:
    """Return the usual span of numbers low..high of this type; their own extent if they are in no usual one."""
    if np.dtype(kind).kind == "f":
        for black, white in REAL:
            fits = low >= black - SLACK * white and high <= white * (1 + SLACK)
            if fits and (white == 1 or high - low >= FEW * white):
                return black, white
    elif low >= 0:
        most = int(np.iinfo(kind).max)
        usual = sorted(top for top in {*WHOLE, most} if top <= min(most, MAX_SHORT))
        long = min(most, MAX_LONG)
        return 0.0, float(next((top for top in usual if high <= top), long if FEW * long <= high <= long else high))
    if low == high:  # one number alone: black if it is negative, otherwise white
        return min(low, 0.0), max(high, 0.0)
    return low, high


def extent_of(values: Array) -> Span:
    """Return the smallest and the largest number; raise UnreadableImage if one of them is not finite, or too large."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        most = float(np.finfo(values.dtype).max) / (4 if values.itemsize > 2 else 1)
        if not (low >= -most and high <= most):  # also if one is nan
            raise UnreadableImage("holds numbers that are not finite, or too large")
    return low, high


def agree(spans: Spans, others: Spans) -> bool:
    """Return True if images of one set are read in the same way with the spans of another set."""
    known = {"float32": REAL[0]} | dict(others) if PER_FILE in others else others
    return all(known.get(kind, span) == span for kind, span in spans.items())


def scale_numbers(values: Array, span: Span, top: int) -> Array:
    """Return numbers as whole numbers 0..top, perhaps in floats; what lies beyond the span is cut off."""
    black, white = span
    if span == (0, top) and values.dtype.kind == "u":
        return np.minimum(values, top)
    exact = values if values.dtype.kind == "f" else values.astype(np.float64)
    return np.clip(np.rint((exact - black) * (top / (white - black))), 0, top)


def describe_numbers(kind: str, extent: Span, span: Span) -> tuple[str, ...]:
    """Return notes on how the numbers of an image are read."""
    (low, high), (black, white) = extent, span
    slack = SLACK * (white - black)
    words = WORDS.get(kind, kind)
    notes = [f"{words} values: {number(black)} is black and {number(white)} is white in {{n}} images"]
    if low < black - slack or high > white + slack:
        notes.append(f"{CUT_OFF} {words} values beyond {number(black)}..{number(white)} in {{n}} images")
    return tuple(notes)


def describe_spans(spans: Spans) -> str:
    """Return the spans in words, such as `uint16 0..4095`."""
    return ", ".join(f"{WORDS.get(kind, kind)} {number(low)}..{number(high)}" for kind, (low, high) in spans.items())


def describe_unusual(spans: Spans) -> str:
    """Return the spans as text for a fingerprint; nothing for the spans of version 0.1.0."""
    usual = [(0, MAX_SHORT), REAL[0]]
    return "".join(f" {kind} {span}" for kind, span in spans.items() if span not in usual)


def number(value: float) -> str:
    """Return a number as text, whole numbers in full."""
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.6g}"


# Arrays


def type_of_array(dtype: np.dtype[Any]) -> str:
    """Return the type whose span an array needs; nothing for 8-bit pixels and masks, which have a fixed one."""
    return "" if dtype.kind == "b" or dtype == np.uint8 else dtype.name


def pixel_type(kind: str, span: Span | None) -> type[np.uint8 | np.uint16]:
    """Return the type of the pixels that arrays of a type become: floats and what fits into 8 bits become uint8."""
    if not kind or np.dtype(kind).kind == "f" or np.dtype(kind).itemsize == 1:
        return np.uint8
    return np.uint8 if span == (0, WHOLE[0]) and kind != "uint16" else np.uint16


def array_pixels(array: Array, spans: Spans) -> tuple[Array, tuple[str, ...]]:
    """Return an array of any numbers as uint8 or uint16, and notes on how they were read."""
    kind = type_of_array(array.dtype)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255), ()
    if not kind:
        return array, ()
    extent = extent_of(array)
    span = spans.get(kind) or find_span(kind, *extent)
    dtype = pixel_type(kind, span)
    exact = array.astype(np.uint16 if kind == "uint16" else np.float64)
    return scale_numbers(exact, span, np.iinfo(dtype).max).astype(dtype), describe_numbers(kind, extent, span)


# Images


def type_of_image(image: Image.Image) -> str:
    """Return the type whose span an image needs; nothing for images of 8 bits."""
    if image.mode != "I":
        return "float32" if image.mode == "F" else "uint16" if image.mode.startswith("I;16") else ""
    tags = tags_of(image)
    signed = not tags or tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] != UNSIGNED
    if tags.get(BITS) == (16,):
        return "int16"
    return "int32" if signed else "uint32"  # Pillow reads both as if they had a sign


def type_to_measure(image: Image.Image) -> str:
    """Return the type of an image whose span is not known; nothing for 8 bits, and for 16 bits that unnoise wrote."""
    return "" if image.info.get(WHOLE_RANGE[0]) == WHOLE_RANGE[1] else type_of_image(image)


def tags_of(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF that say what its numbers mean; nothing for other images."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", None) or image.info.get(TAGS, {})
    return tags


def copy_with_tags(image: Image.Image) -> Image.Image:
    """Return a copy of an image that still says what its numbers mean."""
    copied, tags = image.copy(), tags_of(image)
    copied.info[TAGS] = {tag: tags[tag] for tag in (SAMPLE_FORMAT, BITS, PHOTOMETRIC) if tag in tags}
    return copied


def image_numbers(image: Image.Image) -> Array:
    """Return the numbers [h, w] of an image of more than 8 bits."""
    values, kind = np.asarray(image), np.dtype(type_of_image(image))
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return values.view(kind) if values.itemsize == kind.itemsize else values.astype(kind)


def span_of_image(image: Image.Image, extent: Span, spans: Spans) -> Span:
    """Return the span of an image; if the set has no numbers of this type, the image decides."""
    kind = type_to_measure(image)
    if not kind:
        return 0.0, float(MAX_SHORT)
    if kind == "float32" and PER_FILE in spans:
        return REAL[0] if extent[1] <= 1 else spans[PER_FILE]
    return spans.get(kind) or find_span(kind, *extent)


def sixteen_bit(image: Image.Image, spans: Spans) -> tuple[Image.Image, tuple[str, ...]]:
    """Return an image of more than 8 bits in mode I;16 and in the whole range, and notes on how it was read."""
    values = image_numbers(image)
    extent = extent_of(values)
    span = span_of_image(image, extent, spans)
    scaled = scale_numbers(values, span, MAX_SHORT)
    if tags_of(image).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = MAX_SHORT - scaled
    deep = Image.fromarray(scaled.astype(np.uint16))
    deep.info = image.info
    if isinstance(key := image.info.get("transparency"), int):
        deep.info = {**image.info, "transparency": int(scale_numbers(np.array(key), span, MAX_SHORT))}
    return deep, describe_numbers(values.dtype.name, extent, span)
