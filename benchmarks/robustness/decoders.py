"""Does unnoise read image files as other decoders do? Compares every image below some folders.

    pip install "pyvips[binary]" opencv-python-headless tifffile imagecodecs
    python -m benchmarks.robustness.decoders OUT FOLDER [FOLDER ...]

Each file is read alone and at its own size, as `unnoise train` reads it: gray stays gray, everything else becomes RGB,
over white. The other decoders are asked one after the other until one is equal within 2 of 255. ImageMagick,
tiff2rgba (libtiff-tools) and opj_decompress (libopenjp2-tools) are asked too where they are installed. decoders.md
beside this script says why decoders differ. Deep gray is brought to 0..255 by the span that unnoise tells.

- libvips turns a file upright, converts it to sRGB by its own profile, and puts it over white. It does not read the
  gamma of a PNG, which the script applies by its equation.
- OpenCV reads neither profiles nor every orientation. libvips gives the profile, and the way a picture lies.
- ImageMagick reads no profiles here. tifffile gives numbers; libvips converts CIELAB.
- tiff2rgba and opj_decompress are the own programs of libtiff and OpenJPEG, the libraries that Pillow uses too.

The script prints for each folder how many files are equal to each decoder, differ from all, are refused by unnoise
(with the reasons), or can be read by unnoise alone. OUT/decoders.json has all names, with the decoders that differ.
"""

import argparse
import os
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

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
EQUAL, DIFFERENT, REFUSED, UNKNOWN = "equal to", "differs from all", "refused", "read by unnoise alone"
Span: TypeAlias = tuple[float, float] | None  # black and white of deep numbers
MIN_IS_BLACK, RGB, CIELAB = 1, 2, 8  # photometric interpretations of TIFF


class Row(NamedTuple):
    """What became of a file."""

    word: str
    reason: str  # the difference, or why it is refused
    others: dict[str, str]  # the decoders that differ, with the difference


def main() -> None:
    """Compare all files, print a table, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    packages = ("pillow", "pyvips-binary", "opencv-python-headless", "tifffile", "numpy")
    found: dict[str, Any] = {"machine": machine(*packages)}
    words = (*(f"{EQUAL} {name}" for name in READERS), DIFFERENT, REFUSED, UNKNOWN)
    print(f"{'folder':28}{'files':>7}" + "".join(f"{word:>23}" for word in words))
    for folder in given.folders:
        rows = found[folder.name] = compare_folder(folder)
        counts = Counter(row.word for row in rows.values())
        print(f"{folder.name:28}{len(rows):7}" + "".join(f"{counts[word]:23}" for word in words), flush=True)
        for word in (DIFFERENT, REFUSED, UNKNOWN):
            for reason, names in by_reason(rows, word).items():
                print(f"    {word}: {reason}: {', '.join(names[:4])}{f' and {len(names) - 4} more' * (len(names) > 4)}")
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "decoders.json", found)


def compare_folder(folder: Path) -> dict[str, Row]:
    """Return what became of each file that counts as an image, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path.name))
    return {os.fspath(path.relative_to(folder)): compare_file(path) for path in paths}


def compare_file(path: Path) -> Row:
    """Return the first decoder that is equal; if there is none, all that differ."""
    try:
        ours, span = read_ours(path)
    except UnreadableImage as error:
        return Row(REFUSED, str(error), {})
    except InputError as error:  # it ends with the name and, in brackets, the reason
        return Row(REFUSED, str(error).partition(f"{path.name} (")[2].removesuffix(")") or str(error), {})
    others: dict[str, str] = {}
    for name, read in READERS.items():
        try:
            reference = read(path, ours.shape[0], span)
        except Exception:  # noqa: BLE001 - it is not installed, or does not read this file
            continue
        distance = compare_pixels(ours, reference)
        if distance[0] <= NEAR:
            return Row(f"{EQUAL} {name}", distance[1], others)
        others[name] = distance[1]
    return Row(DIFFERENT if others else UNKNOWN, ", ".join(others), others)


def compare_pixels(ours: np.ndarray, reference: np.ndarray) -> tuple[float, str]:
    """Return the largest difference, and words for it."""
    if ours.shape != reference.shape:
        return 255.0, f"shape {ours.shape}, {reference.shape}"
    apart = np.abs(ours - reference)
    return float(apart.max()), f"at most {apart.max():.3g}, on average {apart.mean():.2g}"


def read_ours(path: Path) -> tuple[np.ndarray, Span]:
    """Return the pixels [c, h, w] of unnoise in 0..255, and the span of deep numbers."""
    found = scan_headers(find([str(path)]), None, silent)
    own = choose_format(found, next(iter(found.sizes)), None, "crop")
    target = own if own.mode in ("L", "I;16") else replace(own, mode="RGB")
    pixels = decode(path, target).pixels
    deep = pixels.dtype == np.uint16
    return pixels.astype(np.float64) / (257 if deep else 1), next(iter(target.spans.values()), None) if deep else None


def read_libvips(path: Path, channels: int, span: Span) -> np.ndarray:
    """Return the pixels [c, h, w] of libvips in 0..255."""
    import pyvips  # noqa: PLC0415 - the script prints its help without it

    image = pyvips.Image.new_from_file(os.fspath(path), fail_on="error").autorot()
    if span and image.bands == 1:
        return to_255(apply_gamma(path, to_255(vips_array(image), span).transpose(1, 2, 0) / 255), (0, 1))
    image = apply_profile(image, channels).colourspace("srgb" if channels == 3 else "b-w")
    alpha = vips_array(image)[:, :, -1:] / 255 if image.hasalpha() else 1.0
    colour = apply_gamma(path, vips_array(image.cast("uchar"))[:, :, :channels] / 255)
    return to_255(colour * alpha + 1 - alpha, (0, 1))


def apply_profile(image: Any, channels: int) -> Any:
    """Return an image of libvips in sRGB by the profile that it holds."""
    if "icc-profile-data" not in image.get_fields():
        return image
    wanted = "srgb" if image.bands > 2 or channels == 3 else "b-w"
    return image.icc_transform(wanted, embedded=True, intent="perceptual")


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


def read_opencv(path: Path, channels: int, span: Span) -> np.ndarray:
    """Return the pixels [c, h, w] of OpenCV in 0..255."""
    import cv2  # noqa: PLC0415

    values = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if values is None or values.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"OpenCV does not read {path.name}")
    if values.ndim == 2:
        return np.repeat(to_255(values, span or (0, np.iinfo(values.dtype).max)), channels, 0)
    colour = to_255(values, (0, np.iinfo(values.dtype).max))
    if len(colour) == 4:
        opaque = colour[3:] / 255
        colour = colour[:3] * opaque + 255 * (1 - opaque)
    try:
        return helped_by_libvips(path, colour[2::-1], span)
    except Exception:  # noqa: BLE001 - libvips may not read this file
        return colour[2::-1]


def helped_by_libvips(path: Path, colour: np.ndarray, span: Span) -> np.ndarray:
    """Return RGB of OpenCV [3, h, w], converted by the profile and turned as libvips reads them."""
    import pyvips  # noqa: PLC0415

    header = pyvips.Image.new_from_file(os.fspath(path))
    if "icc-profile-data" in header.get_fields():
        image = pyvips.Image.new_from_array(np.rint(colour).astype(np.uint8).transpose(1, 2, 0)).copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", header.get("icc-profile-data"))
        colour = to_255(vips_array(apply_profile(image, 3)), (0, 255))
    upright = read_libvips(path, 3, span)
    turned = [np.rot90(way, quarter, (1, 2)) for way in (colour, colour[:, :, ::-1]) for quarter in range(4)]
    fitting = [each for each in turned if each.shape == upright.shape]
    return min(fitting, key=lambda each: np.abs(each - upright).mean())


def read_imagemagick(path: Path, channels: int, span: Span) -> np.ndarray:  # noqa: ARG001
    """Return the pixels [c, h, w] of ImageMagick in 0..255; it ignores profiles."""
    program = shutil.which("magick") or shutil.which("convert") or "magick"
    line = [program, f"{path}[0]", "-auto-orient", "-background", "white", "-alpha", "remove"]
    line += ["-colorspace", "sRGB", "-depth", "8", "ppm:-"]
    done = subprocess.run(line, check=True, capture_output=True)
    return to_255(np.asarray(Image.open(BytesIO(done.stdout)).convert("L" if channels == 1 else "RGB")), (0, 255))


def read_tifffile(path: Path, channels: int, span: Span) -> np.ndarray:  # noqa: ARG001
    """Return the pixels [c, h, w] of tifffile in 0..255."""
    import pyvips  # noqa: PLC0415
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        kind, values = page.photometric if "PhotometricInterpretation" in page.tags else MIN_IS_BLACK, page.asarray()
    if values.dtype == np.uint8 and kind == CIELAB:
        signed = np.dstack([values[:, :, 0] / 2.55, values[:, :, 1:].astype(np.int8)]).astype(np.float32)
        image = pyvips.Image.new_from_array(signed).copy(interpretation="lab")
        return to_255(vips_array(image.icc_export(output_profile="srgb")), (0, 255))
    if kind not in (MIN_IS_BLACK, RGB) or (values.ndim == 3 and values.shape[2] != 3):
        raise ValueError("this layout needs more than the numbers")
    return to_255(values, span or (0, np.iinfo(values.dtype).max))


def read_by_program(path: Path, channels: int, span: Span) -> np.ndarray:  # noqa: ARG001
    """Return the pixels [c, h, w] of the own program of libtiff or OpenJPEG in 0..255."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, "a.tif")
        jpeg_2000 = path.suffix.lower() in (".jp2", ".j2k")
        line = ["opj_decompress", "-i", path, "-o", copy] if jpeg_2000 else ["tiff2rgba", path, copy]
        subprocess.run(line, check=True, capture_output=True)
        return to_255(np.asarray(Image.open(copy).convert("L" if channels == 1 else "RGB")), (0, 255))


def to_255(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Return an array [h, w] or [h, w, c] as [c, h, w], its span brought to 0..255."""
    scaled = (values.astype(np.float64) - span[0]) / (span[1] - span[0]) * 255
    return scaled[None] if scaled.ndim == 2 else scaled.transpose(2, 0, 1)


def by_reason(rows: dict[str, Row], word: str) -> dict[str, list[str]]:
    """Return the names of the files with this word by their reason, the most common reason first."""
    found = defaultdict[str, list[str]](list)
    for name, row in rows.items():
        if row.word == word:
            found[row.reason].append(name)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


READERS: dict[str, Callable[[Path, int, Span], np.ndarray]] = {
    "libvips": read_libvips,
    "OpenCV": read_opencv,
    "ImageMagick": read_imagemagick,
    "tifffile": read_tifffile,
    "own program": read_by_program,
}

if __name__ == "__main__":
    main()
