"""Does unnoise read image files as another decoder does? Compares every image below some folders.

    pip install "pyvips[binary]" opencv-python-headless
    python -m benchmarks.robustness.decoders OUT FOLDER [FOLDER ...]

Each file is read alone and at its own size, as `unnoise train` reads it: gray stays gray, everything else becomes RGB,
over white. libvips turns it upright, converts it to sRGB by its own profile, and puts it over white too. It does not
read the gamma of a PNG, which the script applies by its equation. OpenCV reads the files that libvips cannot read. Deep
gray is brought to 0..255 by the span that unnoise tells. The script prints for each folder how many files are equal
within 2 of 255, differ, are refused by unnoise (with the reasons), or can be read by unnoise alone. OUT/decoders.json
has all names.
"""

import argparse
import os
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.lib.machine import machine
from unnoise.data.decode import decode
from unnoise.data.sources.find import find
from unnoise.data.sources.source import UnreadableImage, is_image
from unnoise.data.target_format import choose_format, scan_headers
from unnoise.errors import InputError
from unnoise.files import write_json
from unnoise.progress import silent

NEAR = 2.0  # of 255
EQUAL, DIFFERENT, REFUSED, UNKNOWN = "equal", "different", "refused", "read by unnoise alone"


def main() -> None:
    """Compare all files, print a table, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    found: dict[str, Any] = {"machine": machine("pillow", "pyvips-binary", "numpy")}
    print(f"{'folder':28}{'files':>7}" + "".join(f"{word:>22}" for word in (EQUAL, DIFFERENT, REFUSED, UNKNOWN)))
    for folder in given.folders:
        rows = found[folder.name] = compare_folder(folder)
        counts = Counter(row[0] for row in rows.values())
        line = "".join(f"{counts[word]:22}" for word in (EQUAL, DIFFERENT, REFUSED, UNKNOWN))
        print(f"{folder.name:28}{len(rows):7}{line}", flush=True)
        for word in (DIFFERENT, REFUSED):
            for reason, names in by_reason(rows, word).items():
                print(f"    {word}: {reason}: {', '.join(names[:4])}{f' and {len(names) - 4} more' * (len(names) > 4)}")
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "decoders.json", found)


def compare_folder(folder: Path) -> dict[str, tuple[str, str]]:
    """Return what became of each file that counts as an image: a word and the reason, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path.name))
    return {os.fspath(path.relative_to(folder)): compare_file(path) for path in paths}


def compare_file(path: Path) -> tuple[str, str]:
    """Return a word, and the reason or the largest difference."""
    try:
        ours, span = read_ours(path)
    except (InputError, UnreadableImage) as error:
        return REFUSED, str(error).partition(" (")[2].rstrip(")") or str(error)
    try:
        reference = read_libvips(path, ours.shape[0], span)
    except Exception as error:  # noqa: BLE001 - the reference may fail in its own ways
        reference = read_opencv(path, ours.shape[0], span)
        if reference is None:
            return UNKNOWN, str(error).replace(os.fspath(path), path.name).splitlines()[0][:80]
    if ours.shape != reference.shape:
        return DIFFERENT, f"shape {ours.shape}, {reference.shape}"
    apart = np.abs(ours - reference)
    text = f"at most {apart.max():.3g}, on average {apart.mean():.2g}"
    return (EQUAL if apart.max() <= NEAR else DIFFERENT), text


def read_ours(path: Path) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Return the pixels [c, h, w] of unnoise in 0..255, and the span of deep numbers."""
    found = scan_headers(find([str(path)]), None, silent)
    own = choose_format(found, next(iter(found.sizes)), None, "crop")
    target = own if own.mode in ("L", "I;16") else replace(own, mode="RGB")
    pixels = decode(path, target).pixels
    deep = pixels.dtype == np.uint16
    return pixels.astype(np.float64) / (257 if deep else 1), next(iter(target.spans.values()), None) if deep else None


def read_libvips(path: Path, channels: int, span: tuple[float, float] | None) -> np.ndarray:
    """Return the pixels [c, h, w] of libvips in 0..255."""
    import pyvips  # noqa: PLC0415 - the script prints its help without it

    image = pyvips.Image.new_from_file(os.fspath(path), fail_on="error").autorot()
    if span and image.bands == 1:
        return to_255(apply_gamma(path, to_255(vips_array(image), span).transpose(1, 2, 0) / 255), (0, 1))
    if "icc-profile-data" in image.get_fields():
        wanted = "srgb" if image.bands > 2 or channels == 3 else "b-w"
        image = image.icc_transform(wanted, embedded=True, intent="perceptual")
    image = image.colourspace("srgb" if channels == 3 else "b-w")
    alpha = vips_array(image)[:, :, -1:] / 255 if image.hasalpha() else 1.0
    colour = apply_gamma(path, vips_array(image.cast("uchar"))[:, :, :channels] / 255)
    return to_255(colour * alpha + 1 - alpha, (0, 1))


def apply_gamma(path: Path, colour: np.ndarray) -> np.ndarray:
    """Return colours 0..1 of a PNG in sRGB by its gamma, which libvips and OpenCV do not read, as browsers do."""
    info = Image.open(path).info if path.suffix.lower() in (".png", ".apng") else {}
    gamma = info.get("gamma", 1 / 2.2)
    if "icc_profile" in info or "srgb" in info or abs(gamma - 1 / 2.2) < 0.02:
        return colour
    light = colour ** (1 / gamma)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def vips_array(image: Any) -> np.ndarray:
    """Return the numbers [h, w, c]; libvips itself leaves axes of length one out."""
    return image.numpy().reshape(image.height, image.width, image.bands)


def read_opencv(path: Path, channels: int, span: tuple[float, float] | None) -> np.ndarray | None:
    """Return the pixels [c, h, w] of OpenCV in 0..255, or None if it cannot read the file; it ignores profiles."""
    import cv2  # noqa: PLC0415

    values = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if values is None or values.dtype not in (np.uint8, np.uint16):
        return None
    if values.ndim == 2:
        gray = to_255(values, span or (0, np.iinfo(values.dtype).max))
        return np.repeat(gray, channels, 0)
    colour = to_255(values, (0, np.iinfo(values.dtype).max))
    if len(colour) == 4:
        opaque = colour[3:] / 255
        colour = colour[:3] * opaque + 255 * (1 - opaque)
    return colour[2::-1]


def to_255(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Return an array [h, w] or [h, w, c] as [c, h, w], its span brought to 0..255."""
    scaled = (values.astype(np.float64) - span[0]) / (span[1] - span[0]) * 255
    return scaled[None] if scaled.ndim == 2 else scaled.transpose(2, 0, 1)


def by_reason(rows: dict[str, tuple[str, str]], word: str) -> dict[str, list[str]]:
    """Return the names of the files with this word by their reason, the most common reason first."""
    found = defaultdict[str, list[str]](list)
    for name, (what, reason) in rows.items():
        if what == word:
            found[reason].append(name)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


if __name__ == "__main__":
    main()
