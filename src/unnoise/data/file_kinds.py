"""The kind of a file that is not an image that can be read, by its first bytes, and what to do about it."""

import re
import struct
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from io import BufferedIOBase
from typing import Any, Literal

from PIL import Image, TiffImagePlugin, features

HEAD = 4096  # bytes that are looked at
VIDEO = "a video; extract its frames first"
RAW = "a camera raw file; develop it to JPEG or PNG first"
DRAWING = "a drawing, not pixels; export it as PNG"
DOCUMENT = "a document; export its images first"
SERVER = "not the image: the server sent an error or a page; download it again"
ARCHIVE = "an archive; unpack it, or give it alone"
SCIENCE = "scientific data; convert it to PNG, TIFF or .npy first"
CONVERT = "which unnoise does not read; convert it to PNG"
MEDIA_BRANDS = {b"avi": "AVIF", b"hei": "HEIF", b"hev": "HEIF", b"crx": RAW, b"mif": "HEIF", b"msf": "HEIF"}

# The first bytes, as a regular expression, and words that follow "it is".
KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the image; run `git lfs pull` in its repository"),
    (rb"\0{64}", "only zeros; the copy or download was not finished"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg", f"SVG, {DRAWING}"),
    (rb"(?i)\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)", f"an HTML page, {SERVER}"),
    (rb"\s*<\?xml|\s*<Error>", f"XML text, {SERVER}"),
    (rb"\s*[\[{]\s*[\"{\]}]", f"JSON text, {SERVER}"),
    (rb"data:image/|iVBORw0KGgo|/9j/4", "base64 text of an image; decode it first"),
    (rb"%PDF", f"PDF, {DOCUMENT}"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"PostScript, {DRAWING}"),
    (rb"\x01\0\0\0.{36} EMF|\xd7\xcd\xc6\x9a", f"a Windows metafile, {DRAWING}"),
    (rb"\xd0\xcf\x11\xe0", f"Microsoft Office file, {DOCUMENT}"),
    (rb"\x1aE\xdf\xa3|RIFF....AVI |OggS|FLV\x01|\0\0\x01[\xb3\xba]|0&\xb2u\x8ef\xcf\x11", VIDEO),
    (rb"....(moov|mdat|wide)", VIDEO),
    (rb"ID3|fLaC|RIFF....WAVE|\xff[\xfb\xf3\xf2]", "audio, not an image"),
    (rb"FUJIFILMCCD-RAW|II\*\0....CR|IIRO|IIRS|MMOR|IIU\0|FOVb|\0MRM", RAW),
    (rb"8BPS", f"a Photoshop file, {CONVERT}"),
    (rb"gimp xcf", f"a GIMP file, {CONVERT}"),
    (rb"\x76\x2f\x31\x01|#\?(RADIANCE|RGBE)", "an HDR image (EXR or Radiance); convert it to PNG or .npy"),
    (rb".{128}DICM|SIMPLE  =|\x89HDF|CDF[\x01\x02]|\x5c\x01\0\0.{340}n[i+]1", SCIENCE),
    (rb"\x93NUMPY", "a NumPy array; name it .npy"),
    (rb"P[1-7][\s#]", f"a PNM image, {CONVERT}"),
    (rb"DDS |\0\0[\x01\x02]\0[\x01-\x40]\0|qoif|icns|\x0a\x05\x01\x08", f"an image of another format, {CONVERT}"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|.{257}ustar", ARCHIVE),
    (rb"\0\x05\x16[\0\x07]", "metadata of macOS, not the image"),
    (rb"\x4c\0\0\0\x01\x14\x02\0", "a Windows shortcut, not the image"),
    (rb"bplist|\x80[\x02-\x05]|\x7fELF|MZ", "a data file or a program, not an image"),
)
PLUGINS = {
    "HEIF": ("HEIC", "pillow_heif", "pillow-heif"),
    "JXL": ("JPEG XL", "pillow_jxl", "pillow-jxl-plugin"),
    "AVIF": ("AVIF", "pillow_avif", "pillow-avif-plugin"),
}
BIG_TIFF = 43  # the number in the head of a TIFF with 64-bit addresses
MAX_ENTRIES = 2**16  # of a directory
TIFF_NEEDS = {256, 257}  # width and height
SAMPLE_KINDS: Mapping[int, str] = {1: "", 2: " signed", 3: " float", 5: " complex", 6: " complex float"}


def media_kind(head: bytes) -> str:
    """Return the format of an image that a plugin of Pillow reads, words for another kind of media, or nothing."""
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JXL"
    if head[4:8] != b"ftyp":
        return ""
    length = min(int.from_bytes(head[:4], "big"), 64)
    brands = {head[8:11], *(head[at : at + 3] for at in range(16, length, 4))}
    return next((kind for brand, kind in MEDIA_BRANDS.items() if brand in brands), VIDEO)


def plugin_format(head: bytes) -> str | None:
    """Return the format of a file that an installed plugin of Pillow can read, and load the plugin; otherwise None."""
    kind = media_kind(head)
    if kind not in PLUGINS:
        return None
    _, module, _ = PLUGINS[kind]
    if kind not in Image.OPEN and find_spec(module):
        plugin: Any = import_module(module)
        getattr(plugin, "register_heif_opener", lambda: None)()
    return kind if kind in Image.OPEN else None


def describe_file(head: bytes, file: BufferedIOBase) -> str:
    """Return in a few words what a file is that Pillow does not know, and what to do about it."""
    kind = media_kind(head)
    if kind in PLUGINS:
        name, module, package = PLUGINS[kind]
        known = find_spec(module) or (kind == "AVIF" and features.check("avif"))
        return f"damaged {name}" if known else f"{name}; to read it, pip install {package}"
    if kind:
        return kind
    for pattern, words in KINDS:
        if re.match(pattern, head, re.DOTALL):
            return words
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return describe_tiff(file)
    printable = sum(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
    return "text, not an image" if printable == len(head) else "not an image"


def describe_tiff(file: Any) -> str:
    """Return the layout of a TIFF that Pillow does not know, such as `TIFF of 3 x 32-bit float`."""
    try:
        file.seek(0)
        start = file.read(16)
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(start[:8] if start[2:4] in (b"*\0", b"\0*") else start)
        entries = count_entries(start, file)
        file.seek(tags.next)
        tags.load(file)
        return tiff_layout(tags) if tags.keys() >= TIFF_NEEDS and len(tags) == entries else "damaged TIFF"
    except (OSError, ValueError, KeyError, TypeError, IndexError, SyntaxError, struct.error, OverflowError):
        return "damaged TIFF"


def count_entries(head: bytes, file: BufferedIOBase) -> int:
    """Return the number of entries in the first directory of a TIFF, -1 if it is cut off.

    Pillow would take defaults for the entries that are missing.
    """
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    large = int.from_bytes(head[2:4], order) == BIG_TIFF
    file.seek(int.from_bytes(head[8:16] if large else head[4:8], order))
    said = file.read(8 if large else 2)
    count = int.from_bytes(said, order)
    size = min(count, MAX_ENTRIES) * (20 if large else 12)
    return count if said and len(said) % 2 == 0 and len(file.read(size)) == size else -1


def tiff_layout(tags: Mapping[int, Any]) -> str:
    """Return numbers and types of the samples of a TIFF in words."""
    samples = tags.get(277, 1)
    bits = [*tags.get(258, (1,))]
    depth = f"{bits[0]}" if len({*bits}) == 1 else "/".join(map(str, bits[:5]))
    kind = SAMPLE_KINDS.get((*tags.get(339, (1,)), 1)[0], "")
    planes = " in separate planes" if tags.get(284) == 2 and samples > 1 else ""
    return f"TIFF of {samples} x {depth}-bit{kind}{planes}, {CONVERT}"
