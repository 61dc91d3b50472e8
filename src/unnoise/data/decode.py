"""Decoding of one image: open it, turn it upright, convert it to the common mode, and fit it to the size.

16-bit gray is processed in Pillow's mode "F", the only one in which it can be resized, and rounded at the end.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unnoise.data.resize import fit_image
from unnoise.data.sources.source import Array, Broken, UnreadableImage

Content: TypeAlias = Path | bytes | Array | Image.Image | Callable[[tuple[int, int]], Image.Image]
# Only these decoders run, whichever format the bytes claim to be: some of the others start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF")
MAX_PIXELS = 89_478_485
TURNED_ORIENTATIONS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
KIND_OF_MODE = {"L": "L", "1": "L", "RGB": "RGB", **dict.fromkeys(("RGBA", "RGBa", "LA", "La", "PA"), "RGBA")}
MODE_IN_WORDS = {"L": "gray", "LA": "gray with alpha", "I;16": "16-bit gray", "P": "palette", "1": "black-and-white"}
ARRAY_MODES = {(1, "u1"): "L", (2, "u1"): "LA", (3, "u1"): "RGB", (4, "u1"): "RGBA", (1, "u2"): "I;16"}


class Header(NamedTuple):
    """Facts about an image that are known before it is decoded."""

    mode: str  # the kind it counts as; "" for arrays with channels that no image mode has
    size: tuple[int, int]
    channels: int


@dataclass(frozen=True)
class TargetFormat:
    """The format that every image is converted to."""

    mode: str
    size: tuple[int, int]  # width, height
    fit: str


class Decoded(NamedTuple):
    """Pixels [c, h, w], and notes on what was changed beyond decoding."""

    pixels: Array
    done: tuple[str, ...]


def read_header(content: Content, drawn: tuple[int, int]) -> Header:
    """Read mode and size from the first bytes of a file; `drawn` is the size of images that draw themselves."""
    if isinstance(content, np.ndarray):
        height, width, channels = content.shape
        return Header(ARRAY_MODES.get((channels, content.dtype.str[1:]), ""), (width, height), channels)
    if callable(content):
        return header_of(content(drawn), drawn)
    if isinstance(content, Image.Image):
        refuse_huge(content)
        return header_of(upright(content), upright(content).size)
    with open_image(content) as image:
        width, height = image.size
        # Pillow turns TIFF by itself; asking a PNG for EXIF can decode it whole, its text is in `info`.
        may_be_turned = image.format in ("JPEG", "MPO", "WEBP") or "exif" in image.info
        if may_be_turned and image.format != "TIFF" and exif_orientation(image) in TURNED_ORIENTATIONS:
            width, height = height, width
        return header_of(image, (width, height))


def header_of(image: Image.Image, size: tuple[int, int]) -> Header:
    mode = image_kind(image)
    return Header(mode, size, len(Image.new(mode, (1, 1)).getbands()))


def decode(content: Content, target: TargetFormat) -> Decoded:
    """Decode one image; raise UnreadableImage if anything is wrong with it."""
    if isinstance(content, np.ndarray):
        return decode_array(content, target)
    if callable(content):
        return convert_image(content(target.size), target)
    if isinstance(content, Image.Image):
        refuse_huge(content)
        return convert_image(upright(content), target)
    with open_image(content) as image:
        image.load()
        return convert_image(upright(image), target)


def decode_array(array: Array, target: TargetFormat) -> Decoded:
    """Convert an array [h, w, c]: as an image if there is a mode with its channels, otherwise channel by channel."""
    if target.mode:
        values = array[:, :, 0] if array.shape[2] == 1 else array
        return convert_image(Image.fromarray(np.ascontiguousarray(values)), target)
    planes = [Image.fromarray(array[:, :, c].astype(np.float32)) for c in range(array.shape[2])]
    fitted = [fit_image(plane, target.size, target.fit) for plane in planes]
    values = np.stack([np.asarray(image) for image, _ in fitted])
    top = np.iinfo(array.dtype).max
    return Decoded(np.clip(np.rint(values), 0, top).astype(array.dtype), fitted[0][1])


def convert_image(image: Image.Image, target: TargetFormat) -> Decoded:
    """Convert an upright image to the mode and the size, and return its pixels [c, h, w]."""
    done = describe_conversion(image, target.mode)
    fitted, changes = fit_image(to_mode(image, target.mode), target.size, target.fit)
    values = np.asarray(fitted)
    if target.mode == "I;16":
        values = np.clip(np.rint(values), 0, 65535).astype(np.uint16)
    pixels = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return Decoded(np.ascontiguousarray(pixels), (*done, *changes))


def image_kind(image: Image.Image) -> str:
    """Return L, RGB, RGBA or I;16: the kind an image counts as."""
    if image.mode in SIXTEEN_BIT_MODES:
        return "I;16"
    if image.mode == "P":
        return "RGBA" if "transparency" in image.info else "RGB"
    return KIND_OF_MODE.get(image.mode, "RGB")


def describe_conversion(image: Image.Image, mode: str) -> tuple[str, ...]:
    """Return a note for the user; changes of storage alone, such as a palette written out, need none."""
    kind = image_kind(image)
    exact = image.mode == mode or (kind == mode and image.mode not in ("CMYK", "YCbCr", "LAB", "HSV", "F"))
    before = image.mode if kind == mode else kind
    return () if exact else (f"converted {{n}} {MODE_IN_WORDS.get(before, before)} to {MODE_IN_WORDS.get(mode, mode)}",)


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert to a mode; alpha that is lost is composited over white, 16 bits become the upper 8."""
    if image.mode == mode and mode != "I;16":
        return image
    kind = image_kind(image)
    if kind == "I;16":
        deep = to_sixteen_bit(image)
        if mode == "I;16":
            return deep
        image = Image.fromarray(np.rint(np.asarray(deep) / 257).astype(np.uint8))
    elif kind == "RGBA" and mode not in ("RGBA", "LA"):
        alpha = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha).convert("RGB")
    elif image.mode == "P":
        image = image.convert(kind)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.float32) * 257)
    return image.convert(mode)


def to_sixteen_bit(image: Image.Image) -> Image.Image:
    """Return an image of whole numbers 0..65535 in mode "F"."""
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise UnreadableImage("holds numbers that are not finite")
    if image.mode == "F" and values.max() <= 1:
        values = values * 65535
    return Image.fromarray(np.clip(np.rint(values), 0, 65535))


@contextmanager
def open_image(content: Path | bytes) -> Iterator[Image.Image]:
    """Open without decoding; any error, then or inside the block, becomes an UnreadableImage of a few words."""
    if isinstance(content, Broken):
        raise UnreadableImage(content.decode())
    try:
        refuse_if(content.stat().st_size == 0 if isinstance(content, Path) else not content, "empty file")
        # Given a path, Pillow maps a plain TIFF into memory and then forgets its orientation.
        with content.open("rb") if isinstance(content, Path) else BytesIO(content) as file:
            image = Image.open(file, formats=FORMATS)
            refuse_huge(image)
            yield image
    except UnreadableImage:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything inside a decoder
        raise UnreadableImage(describe_error(error)) from None


def refuse_if(bad: bool, why: str) -> None:
    if bad:
        raise UnreadableImage(why)


def refuse_huge(image: Image.Image) -> None:
    refuse_if(image.width * image.height > MAX_PIXELS, f"too large: {image.width}x{image.height}")


def describe_error(error: Exception) -> str:
    """Return an error of a decoder in a few words."""
    known = {
        UnidentifiedImageError: "not an image",
        Image.DecompressionBombError: "too large",
        FileNotFoundError: "missing",
        PermissionError: "no permission",
        MemoryError: "too large for the memory",
    }
    text = str(error) or type(error).__name__
    damaged = ("truncated", "broken", "unexpected end", "not enough", "could not create decoder")
    return known.get(type(error)) or ("truncated" if any(word in text.lower() for word in damaged) else text[:60])


def exif_orientation(image: Image.Image) -> int:
    """Return the orientation that EXIF gives, 1 (upright) if it gives none."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF is no reason to lose the image
        return 1


def upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF says."""
    return image if exif_orientation(image) == 1 else ImageOps.exif_transpose(image)
