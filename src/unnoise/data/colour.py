"""Colour: bring an image to sRGB by its embedded profile, or by what its file says of gamma and primaries.

The PNG standard and browsers give the order: coding-independent code points (cICP), an ICC profile, the word
sRGB, then gamma and primaries. A file that says nothing of its colour holds sRGB.
"""

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageCms

from unnoise.data.icc import (
    BT2020_PRIMARIES,
    P3_PRIMARIES,
    SRGB_CURVE,
    SRGB_PRIMARIES,
    gray_to_light,
    light_to_srgb,
    rgb_profile,
)
from unnoise.data.sources.source import UnreadableImage

Change: TypeAlias = Callable[[Image.Image], Image.Image]
COLOUR_KEYS = {"icc_profile", "gamma", "chromaticity", "cicp"}
SAME = 2  # of 255: a profile that changes no colour by more is sRGB, and no bit is changed
USUAL_GAMMA, NEAR_GAMMA = 1 / 2.2, 0.02  # what writers of sRGB give as the gamma of the file
# Numbers of ITU-T H.273. BT.709 video shares its primaries with sRGB, and screens show it by a curve close to sRGB's.
PRIMARIES_BY_CODE = {1: SRGB_PRIMARIES, 9: BT2020_PRIMARIES, 12: P3_PRIMARIES}
CURVE_BY_CODE = {**dict.fromkeys((1, 6, 13, 14, 15), SRGB_CURVE), 4: (2.2,), 5: (2.8,), 8: (1.0,)}
HDR_BY_CODE = {16: "PQ", 18: "HLG"}
UNSPECIFIED = 2

BY_PROFILE = "converted to sRGB by the embedded colour profile: {n} images"
BY_GAMMA = "converted to sRGB by the gamma and primaries that the file gives: {n} images"
NOT_APPLIED = "a colour profile is damaged or does not fit and was not applied: {n} images"


def to_srgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return the image in sRGB, CMYK as RGB and gray as gray, and a note if a number has changed."""
    if image.mode == "LAB":
        return lab_change().apply(image), ()
    if not COLOUR_KEYS & image.info.keys() or image.mode in ("1", "HSV"):
        return image, ()
    try:
        profile = profile_of(image)
        change = find_change(profile, image.mode) if profile else None
        if change is None:
            return image, ()
        changed = change(image)
    except UnreadableImage:
        raise
    except Exception:  # noqa: BLE001 - a damaged profile can raise anything, and the pixels are still good
        return image, (NOT_APPLIED,)
    changed.info = image.info
    return changed, (BY_PROFILE if profile is image.info.get("icc_profile") else BY_GAMMA,)


def profile_of(image: Image.Image) -> bytes | None:
    """Return the ICC profile that describes the colours of an image, None if they are sRGB."""
    info = image.info
    primaries, transfer = info.get("cicp", (UNSPECIFIED, UNSPECIFIED))
    if transfer in HDR_BY_CODE:
        raise UnreadableImage(f"HDR image ({HDR_BY_CODE[transfer]}); convert it to sRGB first")
    if primaries in PRIMARIES_BY_CODE and transfer in CURVE_BY_CODE:
        return rgb_profile(PRIMARIES_BY_CODE[primaries], CURVE_BY_CODE[transfer])
    if profile := info.get("icc_profile"):
        return bytes(profile) if not isinstance(profile, bytes) else profile
    if "srgb" in info or not ("gamma" in info or "chromaticity" in info):
        return None
    gamma = info.get("gamma", USUAL_GAMMA)
    curve = SRGB_CURVE if abs(gamma - USUAL_GAMMA) < NEAR_GAMMA else (1 / gamma,)
    return rgb_profile(tuple(info.get("chromaticity", SRGB_PRIMARIES)), curve)


@lru_cache(64)
def find_change(profile: bytes, mode: str) -> Change | None:
    """Return the function that converts images of this mode to sRGB, None if the profile is sRGB.

    Raise an exception of any kind if the profile is damaged, or of another kind of colour than the mode.
    """
    if mode in ("L", "LA", "I;16"):
        return gray_change(profile, "I;16" if mode == "I;16" else "L", alpha=mode == "LA")
    output = "RGBA" if mode == "RGBA" else "RGB"
    transform = ImageCms.buildTransform(open_profile(profile), ImageCms.createProfile("sRGB"), mode, output)
    if mode != "CMYK" and changes_little(transform.apply, all_colours().convert(mode)):
        return None
    return transform.apply


@lru_cache
def lab_change() -> ImageCms.ImageCmsTransform:
    """Return the transform from CIELAB to sRGB, without the coarse table that makes Pillow's 9 of 255 wrong."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)


def open_profile(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(BytesIO(profile))


def gray_change(profile: bytes, mode: str, *, alpha: bool) -> Change | None:
    """Return the function that converts gray; a profile of RGB is applied to its grays.

    ImageCms has too few steps for gray where a curve is steep, so a table of all values is computed here.
    """
    open_profile(profile)  # damage elsewhere in the profile counts too
    top = 65535 if mode == "I;16" else 255
    values = np.arange(top + 1) / top
    table = np.rint(light_to_srgb(gray_to_light(profile, values)) * top).astype(np.uint16)
    if np.abs(table / top - values).max() * 255 <= SAME + 0.5:
        return None
    if mode == "I;16":
        return lambda image: Image.fromarray(table[np.asarray(image)])
    rest = [*range(256)] if alpha else []
    return lambda image: image.point([*table.tolist(), *rest])


def changes_little(apply: Change, colours: Image.Image) -> bool:
    """Return whether no colour changes visibly."""
    before, after = (np.asarray(each).astype(int) for each in (colours, apply(colours)))
    return bool(np.abs(after - before).max() <= SAME)


def all_colours() -> Image.Image:
    """Return an image of 18 x 18 x 18 colours, evenly spaced."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(18, -1, 3))
