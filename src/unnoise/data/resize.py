"""Geometry: the size that the user asks for, and how an image of another shape becomes this size."""

import re
from typing import TypeAlias

from PIL import Image

from unnoise.errors import InputError, unknown
from unnoise.options import short_repr

Size: TypeAlias = int | str | tuple[int, int]
FITS = ("crop", "pad", "stretch")
OTHER_WORDS = {"fill": "stretch", "squash": "stretch", "contain": "pad", "letterbox": "pad", "cover": "crop"}
MIN_SIDE = 8
OWN = "own"  # the size that the images have
OWN_SIZE = (0, 0)  # stands for it


def parse_size(size: object) -> tuple[int, int]:
    """Return (width, height) of a size: 64, (96, 64), "64" or "96x64", width before height; OWN_SIZE for "own"."""
    if size == OWN:
        return OWN_SIZE
    sides = size if isinstance(size, tuple | list) else (size,)
    text = size if isinstance(size, str) else "x".join(map(repr, sides))
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    if not match:
        raise InputError(f"size {short_repr(size)}: write 64, or WIDTHxHEIGHT such as 96x64; in Python also (96, 64)")
    width, height = int(match[1]), int(match[2] or match[1])
    if min(width, height) < MIN_SIDE:
        raise InputError(f"size {short_repr(size)} is too small: width and height are at least {MIN_SIDE}")
    return width, height


def check_fit(fit: object) -> None:
    """Raise InputError, with the nearest match, if there is no such fit."""
    if fit in FITS:
        return
    if near := OTHER_WORDS.get(str(fit)):
        raise InputError(f"unknown fit {fit!r}; did you mean {near!r}? Known: {', '.join(FITS)}")
    raise unknown("fit", str(fit), FITS)


def fit_image(image: Image.Image, size: tuple[int, int], fit: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Resize (Pillow's bilinear averages when it shrinks), and return notes on what that did to the image."""
    if image.size == size:
        return image, ()
    across, down = size[0] / image.width, size[1] / image.height
    scale = min(across, down) if fit == "pad" else max(across, down)
    changes = ["enlarged {n} small images"] if scale > 1 else []
    if image.width * size[1] == image.height * size[0] or fit == "stretch":
        changes += ["stretched {n} images"] if across != down else []
        return image.resize(size, Image.Resampling.BILINEAR), tuple(changes)
    if fit == "crop":
        changes.append("center-cropped {n} images")
        width, height = size[0] / scale, size[1] / scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        box = (max(left, 0.0), max(top, 0.0), min(left + width, image.width), min(top + height, image.height))
        return image.resize(size, Image.Resampling.BILINEAR, box=box), tuple(changes)
    changes.append("padded {n} images")
    return pad_image(image, size, scale), tuple(changes)


def pad_image(image: Image.Image, size: tuple[int, int], scale: float) -> Image.Image:
    """Scale and centre the image on black, which is transparent if the image has alpha."""
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    page = Image.new(image.mode, size)
    page.paste(image.resize(inner, Image.Resampling.BILINEAR), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return page
