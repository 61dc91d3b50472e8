"""Open one image file: choose the decoder, refuse what is decoded wrongly, and say what a file is that is no image."""

import ctypes
import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import SEEK_END, BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from PIL import Image, UnidentifiedImageError
from PIL import _imaging as core

from unnoise.data.file_kinds import HEAD, RAW, count_entries, describe_file, plugin_format, tiff_layout
from unnoise.data.png_chunks import MAX_PROFILE, code_points, ends_early, without_extras
from unnoise.data.sources.source import MAX_BYTES, MAX_PIXELS, Broken, UnreadableImage

# Only these decoders run, whichever format the bytes claim to be: some of the others start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000")
LARGE, MAX_GROWTH = 2**24, 10_000  # pixels; more pixels for each byte of a larger image are one colour, or an attack
MARK = 173  # the gray, or the number in the palette, that marks the last pixel of a PNG; few images end with it
MARKS = {"LA": (MARK,) * 2, "RGB": (MARK,) * 3, "RGBA": (MARK,) * 4}
SHRINK_BY = (2, 4, 8)  # fractions at which a JPEG can be decoded
FILE_TYPE, SUB_FILES, DNG = 254, 330, 50706  # tags of a TIFF
NOT_A_PAGE = 1 | 4  # bits of FILE_TYPE: a smaller version of another page, or its mask
FACT_KEYS = {"transparency", "gamma", "chromaticity", "srgb", "icc_profile", "exif"}
SHRUNK = "too large, read at a fraction of the size (--max-pixels raises the limit): {n} images"
DAMAGED_REST = "read the first frame or page, after which the file is damaged: {n} files"
FIRST_FRAME = "read the first frame or page alone (--frames all reads every one): {n} files"
OTHER_FRAMES = "frames and pages that were left out: {n} images"


class Opened(NamedTuple):
    """An opened image, and notes on what was left out."""

    image: Image.Image
    notes: tuple[str, ...] = ()


@contextmanager
def open_image(content: Path | bytes, max_pixels: int = MAX_PIXELS, *, load: bool = False) -> Iterator[Opened]:
    """Open an image, and decode it if `load`; any error, then or inside the block, becomes an UnreadableImage."""
    if isinstance(content, Broken):
        raise UnreadableImage(content.decode())
    try:
        refuse_if(content.stat().st_size == 0 if isinstance(content, Path) else not content, "empty file")
        # Given a path, Pillow maps a plain TIFF into memory and then forgets its orientation.
        with content.open("rb") if isinstance(content, Path) else BytesIO(content) as file:
            yield open_file(file, max_pixels, load=load)
    except UnreadableImage:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything inside a decoder
        raise UnreadableImage(describe_error(error)) from None


def open_file(file: BufferedIOBase, max_pixels: int, *, load: bool) -> Opened:
    """Open a file; a PNG that fails is tried again without its text and other extras."""
    try:
        return open_checked(file, max_pixels, load=load)
    except UnreadableImage:
        raise
    except Exception:
        file.seek(0)
        rest = without_extras(file.read(MAX_BYTES)) if file.read(4) == b"\x89PNG" and not file.seek(0) else None
        if rest is None:
            raise
        opened = open_checked(BytesIO(rest[0]), max_pixels, load=load)
        if rest[1] is not None:
            opened.image.info["icc_profile"] = rest[1]
        return opened


def open_checked(file: BufferedIOBase, max_pixels: int, *, load: bool) -> Opened:
    """Open a file with one of our decoders; raise UnreadableImage if it is none, too large, or decoded wrongly."""
    head = file.read(HEAD)
    image, notes = open_first(file, head, max_pixels)
    if load:
        pages = pages_of(image)
        if not pages:  # Pillow does not find back from the damage
            image, notes = open_first(file, head, max_pixels)
            notes += (DAMAGED_REST,)
        elif len(pages) > 1:
            notes += (FIRST_FRAME, *[OTHER_FRAMES] * (len(pages) - 1))
        if image.format == "PNG":
            load_png(image, file)
        image.load()
    return Opened(image, notes)


def open_first(file: BufferedIOBase, head: bytes, max_pixels: int) -> Opened:
    """Open a file at its first frame or page, which is not decoded; raise UnreadableImage if it cannot be used."""
    image = identify(file, head)
    add_facts(image, file, head)
    notes: tuple[str, ...] = ()
    if image.format in ("JPEG", "MPO") and image.width * image.height > max_pixels:
        notes = (SHRUNK,)
        shrink(image, max_pixels)
    if image.format == "TIFF":
        refuse_if(count_entries(head, file) < 0, "truncated")
        refuse_tiff(image)
        if page_kind(image, 0) & NOT_A_PAGE:
            image.seek(pages_of(image)[0])
    refuse_huge(image, max_pixels)
    if image.width * image.height > LARGE:
        growth = image.width * image.height // file.seek(0, SEEK_END)
        refuse_if(growth > MAX_GROWTH, f"{image.width}x{image.height} pixels in a few bytes, which is no photo")
    if image.format == "BMP":
        refuse_runs(image, file)
    return Opened(image, notes)


def load_png(image: Any, file: BufferedIOBase) -> None:
    """Decode a PNG; raise UnreadableImage if its pixels end too early, which Pillow does not mind.

    The last pixel is marked beforehand. If it still has the colour of the mark, the bytes of the pixels are counted.
    """
    if not image.tile:  # no pixels at all, which Pillow tells
        return
    last = image.width - 1, max(image.height // 2 * 2 - 1, 0) if image.info.get("interlace") else image.height - 1
    mark = MARKS.get(image.mode, MARK)
    image.im = core.new(image.mode, image.size)  # as Pillow makes it
    image.im.putpixel(last, mark)
    image.load()
    if image.im.getpixel(last) == mark:
        file.seek(0)
        refuse_if(ends_early(file.read()), "truncated")


def add_facts(image: Any, file: BufferedIOBase, head: bytes) -> None:
    """Correct what Pillow says of the colours in a file."""
    for key in FACT_KEYS & image.info.keys():  # it puts the text of a PNG under the same keys
        if isinstance(image.info[key], str):
            del image.info[key]
    if image.format == "TIFF":
        image.info.pop("xmp", None)  # Pillow would turn the pixels as it says
    if image.format in ("PNG", "AVIF") and (points := code_points(head)):
        image.info["cicp"] = points
    elif image.format == "JPEG2000":
        refuse_if(image.mode in ("P", "PA"), "JPEG 2000 with a palette, which unnoise does not read")
        if profile := jp2_profile(file, head):
            image.info["icc_profile"] = profile


def identify(file: Any, head: bytes) -> Any:
    """Return the image as the first decoder opens it that knows the first bytes.

    Pillow's own `Image.open` would refuse large images by a limit of its own before a JPEG can be reduced.
    """
    for name in formats_of(head):
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN.get(name, (None, None))
        with suppress(SyntaxError, IndexError, TypeError, struct.error):
            if factory and (accept is None or accept(head[:16]) is True):
                file.seek(0)
                return factory(file, "")
    if name := known_format(head):
        raise UnidentifiedImageError(f"damaged {name}")
    raise UnreadableImage(describe_file(head, file))


def formats_of(head: bytes) -> Sequence[str]:
    """Return the formats whose decoders are tried on a file with these first bytes, the usual ones first."""
    if head.startswith(b"\xff\xd8"):
        return ("JPEG",)
    if head.startswith(b"\x89PNG"):
        return ("PNG",)
    plugin = plugin_format(head)
    return (*FORMATS, plugin) if plugin and plugin not in FORMATS else FORMATS


def known_format(head: bytes) -> str:
    """Return the format whose first bytes these are; TIFF and AVIF have more to name, a DIB no mark."""
    decoders = {
        name: Image.OPEN[name][1] for name in FORMATS if name in Image.OPEN and name not in ("TIFF", "DIB", "AVIF")
    }
    with suppress(struct.error):  # a file of few bytes
        return next((name for name, accept in decoders.items() if accept and accept(head[:16]) is True), "")
    return ""


def jp2_profile(file: BufferedIOBase, head: bytes) -> bytes | None:
    """Return the ICC profile in the colour box of a JP2, which Pillow passes over."""
    at = head.find(b"colr\x02")
    if at < 4:
        return None
    where = file.tell()
    file.seek(at + 7)
    profile = file.read(min(int.from_bytes(head[at - 4 : at], "big"), MAX_PROFILE))
    file.seek(where)
    return profile


def shrink(image: Any, max_pixels: int) -> None:
    """Let a JPEG be decoded at a half, a quarter or an eighth of its size, the largest within the limit."""
    width, height = image.size
    for scale in SHRINK_BY:
        if -(-width // scale) * -(-height // scale) <= max_pixels:
            image.draft(None, (width // scale, height // scale))
            return


def pages_of(image: Any) -> list[int]:
    """Return the numbers of the frames or pages that are images of their own.

    The second image in a file of a phone (MPO), smaller versions and masks are none. If there is damage after the first
    frame, return nothing, and the image is at no frame.
    """
    if image.format in ("JPEG", "MPO", "BMP", "DIB"):
        return [0]
    try:
        count = getattr(image, "n_frames", 1)  # a format of one image has no such attribute
    except Exception:  # noqa: BLE001 - damage after the first frame
        return []
    if image.format != "TIFF" or count == 1:
        return [*range(getattr(image, "default_image", False) and count > 1, count)] if count else [0]
    here = image.tell()
    found = [i for i in range(count) if not page_kind(image, i) & NOT_A_PAGE]
    image.seek(here)
    return found or [0]


def page_kind(image: Any, number: int) -> int:
    image.seek(number)
    return int(image.tag_v2.get(FILE_TYPE, 0))


def refuse_tiff(image: Any) -> None:
    """Refuse layouts that Pillow reads wrongly, and camera raw, whose first page is a preview."""
    tags = image.tag_v2
    raw = DNG in tags or (int(tags.get(FILE_TYPE, 0)) & 1 and SUB_FILES in tags)
    refuse_if(bool(raw), RAW)
    bits = max(tags.get(258, (1,)))
    mixed = tags.get(284) == 2 and tags.get(277, 1) > 1 and bits > 8
    wraps = bits == 8 and 2 in tags.get(339, ())
    refuse_if(mixed or wraps, tiff_layout(tags))


def refuse_runs(image: Any, file: BufferedIOBase) -> None:
    """Refuse a BMP with 4-bit runs of odd length, which Pillow shifts, and runs below the last row."""
    if not image.tile or image.tile[0].codec_name != "bmp_rle":
        return
    four_bits = bool(image.tile[0].args[1])
    at = file.seek(image.tile[0].offset)
    data, at, row = file.read(), 0, 0
    while at + 1 < len(data) and data[at : at + 2] != b"\0\1" and row <= image.height:
        count, value = data[at], data[at + 1]
        literal, jump = not count and value > 2, not count and value == 2
        odd = four_bits and literal and value % 2 == 1
        refuse_if(odd, "4-bit BMP with runs of odd length, which unnoise does not read")
        row += data[at + 3] if jump and at + 3 < len(data) else not count and not value
        length = (value + 1) // 2 if four_bits else value
        at += 2 + (length + 1 & ~1 if literal else 2 * jump)
    refuse_if(row > image.height, "damaged BMP")


def refuse_if(bad: bool, why: str) -> None:
    if bad:
        raise UnreadableImage(why)


def refuse_huge(image: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    if (pixels := image.width * image.height) > max_pixels:
        raise UnreadableImage(f"too large: {image.width}x{image.height}; --max-pixels {pixels} allows it")


def describe_error(error: Exception) -> str:
    """Return an error of a decoder in a few words."""
    known = {
        Image.DecompressionBombError: "too large",
        FileNotFoundError: "missing",
        PermissionError: "no permission",
        MemoryError: "too large for the memory",
    }
    text = str(error) or type(error).__name__
    if text.startswith(("decoder error", "broken data stream", "unrecognized data stream")):
        return "damaged, or compressed in a way that Pillow does not know"
    if text == "cannot load this image":
        return "holds no pixels"
    damaged = ("truncated", "broken", "unexpected end", "not enough", "could not create decoder", "but only got")
    return known.get(type(error)) or ("truncated" if any(word in text.lower() for word in damaged) else text[:60])


def silence_decoders() -> None:
    """Keep libtiff and Pillow's logger from writing to the screen: we report each damaged file."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    folder = Path(PIL.__file__).parent
    for place in (*folder.parent.glob("pillow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")):
        with suppress(OSError, AttributeError):  # another build of Pillow: its messages stay
            ctypes.CDLL(str(place)).TIFFSetErrorHandler(None)


silence_decoders()
