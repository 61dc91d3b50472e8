"""One image file to pixels: open, orient, bring to the common mode, fit to the size.

16-bit gray is worked on in Pillow's mode "F", the only one in which it can be resized, and rounded at the end.
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
# Only these decoders run, whatever the bytes claim to be: some of the others start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF")
MOST_PIXELS = 89_478_485
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
KINDS = {"L": "L", "1": "L", "RGB": "RGB", **dict.fromkeys(("RGBA", "RGBa", "LA", "La", "PA"), "RGBA")}
WORDS = {"L": "gray", "LA": "gray with alpha", "I;16": "16-bit gray", "P": "palette", "1": "black-and-white"}
ARRAY_MODES = {(1, "u1"): "L", (2, "u1"): "LA", (3, "u1"): "RGB", (4, "u1"): "RGBA", (1, "u2"): "I;16"}


class Header(NamedTuple):
    """What is known of an image before it is decoded."""

    mode: str  # the kind it counts as; "" for arrays that are no picture
    size: tuple[int, int]
    channels: int


@dataclass(frozen=True)
class Plan:
    """What every image becomes."""

    mode: str
    size: tuple[int, int]
    fit: str


class Decoded(NamedTuple):
    """Pixels [c, h, w], and what was done to them beyond decoding."""

    pixels: Array
    done: tuple[str, ...]


def read_header(content: Content, drawn: tuple[int, int]) -> Header:
    """Mode and size from the first bytes of a file; `drawn` is the size for those that draw themselves."""
    if isinstance(content, np.ndarray):
        height, width, channels = content.shape
        return Header(ARRAY_MODES.get((channels, content.dtype.str[1:]), ""), (width, height), channels)
    if callable(content):
        mode = kind_of(content(drawn))
        return Header(mode, drawn, len(Image.new(mode, (1, 1)).getbands()))
    if isinstance(content, Image.Image):
        refuse_huge(content)
        content = upright(content)
        return Header(kind_of(content), content.size, len(Image.new(kind_of(content), (1, 1)).getbands()))
    with opened(content) as image:
        mode, (width, height) = kind_of(image), image.size
        # Pillow turns TIFF by itself; asking a PNG for EXIF can decode it whole, its text is in `info`.
        turned = image.format in ("JPEG", "MPO", "WEBP") or "exif" in image.info
        if turned and image.format != "TIFF" and orientation(image) in TURNED:
            width, height = height, width
        return Header(mode, (width, height), len(Image.new(mode, (1, 1)).getbands()))


def decode(content: Content, plan: Plan) -> Decoded:
    """Decode one image; anything wrong with it is an `Unreadable`."""
    if isinstance(content, np.ndarray):
        return decode_array(content, plan)
    if callable(content):
        return finish(content(plan.size), plan)
    if isinstance(content, Image.Image):
        refuse_huge(content)
        return finish(upright(content), plan)
    with opened(content) as image:
        image.load()
        return finish(upright(image), plan)


def decode_array(array: Array, plan: Plan) -> Decoded:
    """Arrays of a picture's shape go the way of pictures; of others, channel by channel."""
    if plan.mode:
        picture = array[:, :, 0] if array.shape[2] == 1 else array
        return finish(Image.fromarray(np.ascontiguousarray(picture)), plan)
    planes = [Image.fromarray(array[:, :, c].astype(np.float32)) for c in range(array.shape[2])]
    fitted = [fit_image(plane, plan.size, plan.fit) for plane in planes]
    values = np.stack([np.asarray(image) for image, _ in fitted])
    top = np.iinfo(array.dtype).max
    return Decoded(np.clip(np.rint(values), 0, top).astype(array.dtype), fitted[0][1])


def finish(image: Image.Image, plan: Plan) -> Decoded:
    """Mode, size, array."""
    done = conversion(image, plan.mode)
    fitted, changes = fit_image(to_mode(image, plan.mode), plan.size, plan.fit)
    values = np.asarray(fitted)
    if plan.mode == "I;16":
        values = np.clip(np.rint(values), 0, 65535).astype(np.uint16)
    pixels = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return Decoded(np.ascontiguousarray(pixels), (*done, *changes))


def kind_of(image: Image.Image) -> str:
    """L, RGB, RGBA or I;16: the kind an image counts as."""
    if image.mode in SIXTEEN:
        return "I;16"
    if image.mode == "P":
        return "RGBA" if "transparency" in image.info else "RGB"
    return KINDS.get(image.mode, "RGB")


def conversion(image: Image.Image, mode: str) -> tuple[str, ...]:
    """What to tell the user; changes of storage alone, such as a palette written out, are not worth a word."""
    kind = kind_of(image)
    exact = image.mode == mode or (kind == mode and image.mode not in ("CMYK", "YCbCr", "LAB", "HSV", "F"))
    shown = image.mode if kind == mode else kind
    return () if exact else (f"converted {{n}} {WORDS.get(shown, shown)} to {WORDS.get(mode, mode)}",)


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert; alpha that is lost is composited over white, 16 bits become the upper 8."""
    if image.mode == mode and mode != "I;16":
        return image
    kind = kind_of(image)
    if kind == "I;16":
        deep = sixteen_bit(image)
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


def sixteen_bit(image: Image.Image) -> Image.Image:
    """Whole numbers 0..65535 in mode "F"."""
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise UnreadableImage("holds numbers that are not finite")
    if image.mode == "F" and values.max() <= 1:
        values = values * 65535
    return Image.fromarray(np.clip(np.rint(values), 0, 65535))


@contextmanager
def opened(content: Path | bytes) -> Iterator[Image.Image]:
    """Open without decoding; whatever goes wrong, then or inside the block, is an `Unreadable` in a few words."""
    if isinstance(content, Broken):
        raise UnreadableImage(content.decode())
    try:
        refuse(content.stat().st_size == 0 if isinstance(content, Path) else not content, "empty file")
        # Given a path, Pillow maps a plain TIFF into memory and then forgets its orientation.
        with content.open("rb") if isinstance(content, Path) else BytesIO(content) as file:
            image = Image.open(file, formats=FORMATS)
            refuse_huge(image)
            yield image
    except UnreadableImage:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything inside a decoder
        raise UnreadableImage(describe_error(error)) from None


def refuse(bad: bool, why: str) -> None:
    if bad:
        raise UnreadableImage(why)


def refuse_huge(image: Image.Image) -> None:
    refuse(image.width * image.height > MOST_PIXELS, f"too large: {image.width}x{image.height}")


def describe_error(error: Exception) -> str:
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


def orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF is no reason to lose the picture
        return 1


def upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF says."""
    return image if orientation(image) == 1 else ImageOps.exif_transpose(image)
