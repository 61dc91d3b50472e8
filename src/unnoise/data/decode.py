"""Decoding of one image: open it, turn it upright, convert it to the common mode, and fit it to the size.

16-bit gray is processed in Pillow's mode "F", the only one in which it can be resized, and rounded at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageMode, ImageOps

from unnoise.data.colour import COLOUR_KEYS, to_srgb
from unnoise.data.numbers import (
    Spans,
    array_pixels,
    image_numbers,
    pixel_type,
    sixteen_bit,
    type_of_array,
    type_of_image,
    type_to_measure,
)
from unnoise.data.open_image import open_image, refuse_huge
from unnoise.data.resize import fit_image
from unnoise.data.sources.source import MAX_PIXELS, Array

Content: TypeAlias = Path | bytes | Array | Image.Image | Callable[[tuple[int, int]], Image.Image]
FACTS = {"transparency", *COLOUR_KEYS}  # that change what the pixels mean
TURNED_ORIENTATIONS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
XMP_KEYS = {"xmp", "XML:com.adobe.xmp"}
KIND_OF_MODE = {"L": "L", "1": "L", "RGB": "RGB", **dict.fromkeys(("RGBA", "RGBa", "LA", "La", "PA"), "RGBA")}
KEYED_MODES = ("1", "L", "P", "RGB", "I;16", "I;16B")  # one colour may stand for transparency
MODE_IN_WORDS = {"L": "gray", "LA": "gray with alpha", "I;16": "16-bit gray", "P": "palette", "1": "black-and-white"}
ARRAY_MODES = {(1, "u1"): "L", (2, "u1"): "LA", (3, "u1"): "RGB", (4, "u1"): "RGBA", (1, "u2"): "I;16"}


class Header(NamedTuple):
    """Facts about an image that are known before it is decoded."""

    mode: str  # the kind it counts as; "" for arrays with channels that no image mode has
    size: tuple[int, int]
    channels: int
    numbers: str = ""  # the type of numbers whose span must be known; "" for 8 bits


@dataclass(frozen=True)
class TargetFormat:
    """The format that every image is converted to."""

    mode: str
    size: tuple[int, int]  # width, height
    fit: str
    max_pixels: int = MAX_PIXELS  # of the file
    spans: Spans = field(default_factory=dict)  # of the numbers of all images


class Decoded(NamedTuple):
    """Pixels [c, h, w], and notes on what was changed beyond decoding."""

    pixels: Array
    done: tuple[str, ...]


def read_header(content: Content, drawn: tuple[int, int], max_pixels: int = MAX_PIXELS) -> Header:
    """Read mode and size from the first bytes of a file; `drawn` is the size of images that draw themselves."""
    if isinstance(content, np.ndarray):
        height, width, channels = content.shape
        kind = type_of_array(content.dtype)
        return Header(array_mode(channels, kind, {}), (width, height), channels, kind)
    if callable(content):
        return header_of(content(drawn), drawn)
    if isinstance(content, Image.Image):
        refuse_huge(content, max_pixels)
        return header_of(upright(content), upright(content).size)
    with open_image(content, max_pixels) as (image, _):
        width, height = image.size
        # Pillow turns TIFF by itself; asking a PNG for EXIF can decode it whole, its text is in `info`.
        may_be_turned = image.format in ("JPEG", "MPO", "WEBP") or "exif" in image.info
        if may_be_turned and image.format != "TIFF" and exif_orientation(image) in TURNED_ORIENTATIONS:
            width, height = height, width
        return header_of(image, (width, height))


def header_of(image: Image.Image, size: tuple[int, int]) -> Header:
    mode = image_kind(image)
    numbers = "" if has_key(image) else type_to_measure(image)
    return Header(mode, size, len(ImageMode.getmode(mode).bands), numbers)


def array_mode(channels: int, kind: str, spans: Spans) -> str:
    """Return the mode of arrays with these channels and numbers of this type; nothing if no mode has them."""
    return ARRAY_MODES.get((channels, np.dtype(pixel_type(kind, spans.get(kind))).str[1:]), "")


def read_numbers(content: Content, max_pixels: int = MAX_PIXELS) -> Array:
    """Return the numbers of an array or of an image of more than 8 bits; raise UnreadableImage if it is damaged."""
    if isinstance(content, np.ndarray):
        return content
    if isinstance(content, Image.Image):
        return image_numbers(content)
    if callable(content):
        return image_numbers(content((1, 1)))
    with open_image(content, max_pixels, load=True) as (image, _):
        return image_numbers(image)


def decode(content: Content, target: TargetFormat) -> Decoded:
    """Decode one image; raise UnreadableImage if anything is wrong with it."""
    if isinstance(content, np.ndarray):
        return decode_array(content, target)
    if callable(content):
        return convert_image(content(target.size), target)
    if isinstance(content, Image.Image):
        refuse_huge(content, target.max_pixels)
        return convert_image(upright(content), target)
    with open_image(content, target.max_pixels, load=True) as (image, notes):
        pixels, done = convert_image(upright(image), target)
        return Decoded(pixels, (*notes, *done))


def decode_array(array: Array, target: TargetFormat) -> Decoded:
    """Convert an array [h, w, c]: as an image if there is a mode with its channels, otherwise channel by channel."""
    array, done = array_pixels(array, target.spans)
    if target.mode:
        image = Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))
        return fit_pixels(image, target, done + describe_conversion(image, target.mode))
    planes = [Image.fromarray(array[:, :, c].astype(np.float32)) for c in range(array.shape[2])]
    fitted = [fit_image(plane, target.size, target.fit) for plane in planes]
    values = np.stack([np.asarray(image) for image, _ in fitted])
    top = np.iinfo(array.dtype).max
    return Decoded(np.clip(np.rint(values), 0, top).astype(array.dtype), done + fitted[0][1])


def convert_image(image: Image.Image, target: TargetFormat) -> Decoded:
    """Convert an upright image to the mode and the size, and return its pixels [c, h, w]."""
    if image.mode == target.mode and image.mode != "I;16" and not FACTS & image.info.keys():  # most images
        return fit_pixels(image, target, ())
    done = describe_conversion(image, target.mode)
    image, coloured = with_alpha(image)
    if type_of_image(image):
        image, read = sixteen_bit(image, target.spans)
        done += read
    image, more = to_srgb(image)
    return fit_pixels(image, target, done + coloured + more)


def fit_pixels(image: Image.Image, target: TargetFormat, done: tuple[str, ...]) -> Decoded:
    """Convert an image, whose numbers span their whole range by now, to the mode and the size."""
    fitted, changes = fit_image(to_mode(image, target.mode), target.size, target.fit)
    values = np.asarray(fitted)
    if target.mode == "I;16":
        values = np.clip(np.rint(values), 0, 65535).astype(np.uint16)
    pixels = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return Decoded(np.ascontiguousarray(pixels), (*done, *changes))


def has_key(image: Image.Image) -> bool:
    """Return whether the file calls one colour transparent, or gives alpha to the colours of its palette."""
    return "transparency" in image.info and image.mode in KEYED_MODES


def image_kind(image: Image.Image) -> str:
    """Return L, RGB, RGBA or I;16: the kind an image counts as."""
    if has_key(image):
        return "RGBA"
    if type_of_image(image):
        return "I;16"
    return KIND_OF_MODE.get(image.mode, "RGB")


def describe_conversion(image: Image.Image, mode: str) -> tuple[str, ...]:
    """Return a note for the user; changes of storage alone, such as a palette written out, need none."""
    kind = image_kind(image)
    exact = (image.mode == mode and not has_key(image)) or (
        kind == mode and image.mode not in ("CMYK", "YCbCr", "LAB", "HSV")
    )
    before = image.mode if kind == mode else kind
    return () if exact else (f"converted {{n}} {MODE_IN_WORDS.get(before, before)} to {MODE_IN_WORDS.get(mode, mode)}",)


def with_alpha(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return an image whose bands can be converted, and a note if its colours have changed."""
    if has_key(image):
        return key_to_alpha(image)
    if image.mode in ("P", "PA", "RGBa", "La") or (image.mode == "YCbCr" and "icc_profile" in image.info):
        keep = image.info
        image = image.convert(image_kind(image))
        image.info = keep
    return image, ()


def key_to_alpha(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return RGBA whose alpha is zero where the colour is the one that the file calls transparent, and a note."""
    key = image.info["transparency"]
    if image.mode in ("P", "L") or (image.mode == "RGB" and max(key) < 256):
        return image.convert("RGBA"), ()
    values, info = np.asarray(image), dict(image.info)
    done: tuple[str, ...] = ()
    if image.mode == "RGB":  # a key of 16 bits, of which Pillow has kept the upper 8
        clear = (values == np.array(key) >> 8).all(2)
        values = values.astype(np.uint16) * 257
    elif image.mode == "1":
        clear = values == bool(key)
        values = values.astype(np.uint16) * 65535
    else:  # a gamma is applied before the lower 8 bits are lost
        clear = values == key
        deep = Image.fromarray(values.astype(np.uint16))
        deep.info = {name: info.pop(name) for name in COLOUR_KEYS & info.keys()}
        deep, done = to_srgb(deep)
        values = np.asarray(deep)
    colour = np.rint(values / 257).astype(np.uint8)
    colour = colour if colour.ndim == 3 else np.repeat(colour[:, :, None], 3, 2)
    keyed = Image.fromarray(np.dstack([colour, np.where(clear, 0, 255).astype(np.uint8)]))
    keyed.info = {name: value for name, value in info.items() if name != "transparency"}
    return keyed, done


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert to a mode; alpha that is lost is composited over white, 16 bits become the upper 8."""
    if image.mode == mode and mode != "I;16":
        return image
    kind = image_kind(image)
    if kind == "I;16":
        if mode == "I;16":
            return Image.fromarray(np.asarray(image).astype(np.float32))
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    elif kind == "RGBA" and mode not in ("RGBA", "LA"):
        alpha = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha).convert("RGB")
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.float32) * 257)
    return image.convert(mode)


def exif_orientation(image: Image.Image) -> int:
    """Return the orientation that EXIF gives, 1 (upright) if it gives none.

    Pillow would take it from XMP then, as no browser and no other decoder does.
    """
    try:
        exif = image.getexif()
        if XMP_KEYS & image.info.keys():
            bare = Image.Image()
            bare.info = {key: value for key, value in image.info.items() if key not in XMP_KEYS}
            exif = bare.getexif()
        return int(exif.get(0x0112, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF is no reason to lose the image
        return 1


def upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF says."""
    return image if exif_orientation(image) == 1 else ImageOps.exif_transpose(image)
