"""What is opened is decoded rightly; everything else is refused in words that name it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from image_files import encoded, everything, noise, put, write_zip
from unnoise.data.decode import TargetFormat, decode, read_header
from unnoise.data.sources.source import UnreadableImage
from unnoise.errors import InputError

SIZE = (16, 16)


def pixels_of(content, mode="RGB"):
    return decode(content, TargetFormat(mode, SIZE, "crop")).pixels


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(depth, kind, rows, *extras):
    """Return a PNG of packed rows; kind 0 is gray, 2 RGB, 3 a palette."""
    header = struct.pack(">IIBBBBB", 16, len(rows), depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*extra) for extra in extras), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# Transparency: the left half has the colour that the file calls transparent

RED, GREEN = (255, 0, 0), (0, 255, 0)
KEYED = {
    "gray": (png_of(8, 0, [bytes(8) + b"\xc8" * 8] * 16, (b"tRNS", b"\0\0")), (200,) * 3),
    "1 bit": (png_of(1, 0, [b"\x00\xff"] * 16, (b"tRNS", b"\0\0")), (255,) * 3),
    "4 bits": (png_of(4, 0, [bytes(4) + b"\xaa" * 4] * 16, (b"tRNS", b"\0\0")), (170,) * 3),
    "16-bit gray": (png_of(16, 0, [b"\x12\x34" * 8 + b"\x80\x80" * 8] * 16, (b"tRNS", b"\x12\x34")), (128,) * 3),
    "RGB": (png_of(8, 2, [bytes(RED) * 8 + bytes(GREEN) * 8] * 16, (b"tRNS", b"\0\xff\0\0\0\0")), GREEN),
    "16-bit RGB": (
        png_of(16, 2, [b"\xff\xff\0\0\0\0" * 8 + b"\0\0\xff\xff\0\0" * 8] * 16, (b"tRNS", b"\xff\xff\0\0\0\0")),
        GREEN,
    ),
    "palette": (
        png_of(8, 3, [bytes(8) + b"\1" * 8] * 16, (b"PLTE", bytes(RED + GREEN)), (b"tRNS", b"\0")),
        GREEN,
    ),
}


@pytest.mark.parametrize("name", KEYED)
def test_transparent_colour_is_alpha(name, root, load):
    content, colour = KEYED[name]
    (root / "a.png").write_bytes(content)
    data = load(root)
    assert data.mode == read_header(content, SIZE).mode == "RGBA"
    pixels = everything(data)[0]
    assert (pixels[3, :, :8] == 0).all()
    assert (pixels[3, :, 8:] == 255).all()
    assert pixels[:3, 0, 12].tolist() == [*colour]
    over_white = load(root, channels=3)
    assert everything(over_white)[0, :, 0, 0].tolist() == [255, 255, 255]
    assert any(note.startswith("converted 1 RGBA to RGB") for note in over_white.notes)


def test_gif_header_and_pixels_agree(root, load):
    image = Image.new("P", SIZE)
    image.putpalette(bytes(RED + GREEN))
    image.paste(1, (8, 0, 16, 16))
    image.save(root / "a.gif", transparency=0)
    data = load(root)
    assert data.mode == "RGBA"
    assert everything(data)[0, 3, 0].tolist() == [0] * 8 + [255] * 8


# Layouts


def tiff(values, *, planar=False, bits=16, kind=1):
    """Return an uncompressed TIFF of an array [h, w, c] of 16-bit or 32-bit samples."""
    h, w, c = values.shape
    planes = [values[:, :, i].tobytes() for i in range(c)] if planar else [values.tobytes()]
    tags = [(256, 3, [w]), (257, 3, [h]), (258, 3, [bits] * c), (259, 3, [1]), (262, 3, [2]), (277, 3, [c])]
    tags += [(278, 3, [h]), (279, 4, [*map(len, planes)]), (284, 3, [1 + planar]), (339, 3, [kind] * c)]
    extra_at = 8 + 2 + 12 * (len(tags) + 1) + 4
    extra = struct.pack(f"<{c}H", *[bits] * c) + struct.pack(f"<{c}H", *[kind] * c)
    extra += struct.pack(f"<{len(planes)}I", *map(len, planes))
    data_at = extra_at + len(extra) + 4 * len(planes)
    starts = [data_at + sum(map(len, planes[:i])) for i in range(len(planes))]
    where = {258: extra_at, 339: extra_at + 2 * c, 279: extra_at + 4 * c, 273: extra_at + 4 * c + 4 * len(planes)}
    body = b""
    for tag, form, numbers in sorted([*tags, (273, 4, starts)]):
        inline = struct.pack("<I", numbers[0]) if len(numbers) == 1 else struct.pack("<I", where[tag])
        body += struct.pack("<HHI", tag, form, len(numbers)) + inline
    return (
        b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + body + bytes(4) + extra
        + struct.pack(f"<{len(starts)}I", *starts) + b"".join(planes)
    )  # fmt: skip


def test_sixteen_bit_colour_of_a_tiff(root, load):
    values = noise(16, 16, 3, dtype=np.uint16)
    content = tiff(values)
    np.testing.assert_allclose(pixels_of(content), values.transpose(2, 0, 1) / 257, atol=1.1)
    with pytest.raises(UnreadableImage, match="TIFF of 3 x 16-bit in separate planes"):
        pixels_of(tiff(values, planar=True))
    with pytest.raises(UnreadableImage, match="TIFF of 3 x 16-bit in separate planes"):
        read_header(tiff(values, planar=True), SIZE)


@pytest.mark.parametrize(
    ("kind", "dtype", "words"),
    [
        (3, np.float32, "TIFF of 3 x 32-bit float"),
        (1, np.uint32, "TIFF of 3 x 32-bit"),
        (2, np.int8, "TIFF of 1 x 8-bit signed"),
    ],
)
def test_samples_that_cannot_be_read_are_named(kind, dtype, words):
    channels = 1 if dtype is np.int8 else 3
    content = tiff(np.zeros((16, 16, channels), dtype), bits=8 * np.dtype(dtype).itemsize, kind=kind)
    content = content.replace(
        struct.pack("<HHII", 262, 3, 1, 2), struct.pack("<HHII", 262, 3, 1, 2 if channels > 1 else 1)
    )
    with pytest.raises(UnreadableImage, match=words):
        pixels_of(content)


def rle4(*parts):
    """Return a BMP of 4-bit runs, 16 x 1."""
    data = bytes(b for part in parts for b in part) + b"\0\1"
    palette = b"".join(bytes([16 * i, 16 * i, 16 * i, 0]) for i in range(16))
    info = struct.pack("<IiiHHIIiiII", 40, 16, 1, 1, 4, 2, len(data), 0, 0, 16, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64 + len(data), 0, 0, 54 + 64) + info + palette + data


def test_four_bit_runs_of_a_bmp():
    content = rle4((0, 4, 0x12, 0x34), (12, 0x55))
    image = decode(content, TargetFormat("L", (16, 1), "crop")).pixels
    assert image[0, 0].tolist() == [16, 32, 48, 64] + [80] * 12
    with pytest.raises(UnreadableImage, match="4-bit BMP with runs of odd length"):
        pixels_of(rle4((0, 5, 0x12, 0x34, 0x50, 0), (11, 0x66)))


def rle8(*data):
    """Return a BMP of 8-bit runs, 4 x 2."""
    body = bytes(data)
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024) + info + palette + body


def test_eight_bit_runs_of_a_bmp():
    sound = rle8(4, 10, 0, 0, 0, 3, 20, 30, 40, 0, 1, 50, 0, 0, 0, 1)
    image = decode(sound, TargetFormat("L", (4, 2), "crop")).pixels
    assert image[0].tolist() == [[20, 30, 40, 50], [10] * 4]
    for damaged in (rle8(4, 10, 0, 0, 0, 2, 0, 9, 4, 20, 0, 1), rle8(4, 10, *[0, 0] * 3, 4, 20, 0, 1)):
        with pytest.raises(UnreadableImage, match="damaged BMP"):
            decode(damaged, TargetFormat("L", (4, 2), "crop"))


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "apng", "avif", "jp2"])
def test_more_suffixes(root, load, suffix):
    kind = {"apng": "PNG", "avif": "AVIF", "jp2": "JPEG2000"}.get(suffix, "JPEG")
    put(root, f"a.{suffix}", np.full((16, 16, 3), 100, np.uint8), kind)
    np.testing.assert_allclose(everything(load(root)), 100, atol=3)


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_header_and_pixels(kind, orientation):
    values = np.zeros((32, 48, 3), np.uint8)
    values[:16, :24], values[16:, :24] = 255, 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(values, kind, exif=exif)
    size = read_header(content, SIZE).size
    turned = {1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1], 5: values.swapaxes(0, 1)}
    turned |= {6: np.rot90(values, -1), 7: np.rot90(values, 2).swapaxes(0, 1), 8: np.rot90(values)}
    expected = turned[orientation]
    assert size == expected.shape[1::-1]
    pixels = decode(content, TargetFormat("RGB", size, "crop")).pixels
    np.testing.assert_allclose(pixels[:, 4::8, 4::8], expected[4::8, 4::8].transpose(2, 0, 1), atol=6)


XMP = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "PNG", "late PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("memory", [False, True])
def test_xmp_turns_no_image(kind, memory):
    values = np.zeros((16, 24, 3), np.uint8)
    values[:8, :12] = 255
    if "PNG" in kind:
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        content = with_extra(text, image=values, late=kind == "late PNG")
    elif kind == "TIFF":
        content = encoded(values, kind, tiffinfo={700: XMP})
    else:
        content = encoded(values, kind, xmp=XMP)
    assert b"tiff:Orientation" in content
    if memory and kind != "TIFF":  # Pillow itself turns a TIFF
        content = Image.open(io.BytesIO(content))
    assert read_header(content, SIZE).size == (24, 16)
    pixels = decode(content, TargetFormat("RGB", (24, 16), "crop")).pixels
    np.testing.assert_allclose(pixels[:, 4::8, 4::8], values[4::8, 4::8].transpose(2, 0, 1), atol=6)


# A sound PNG with extras that Pillow cannot take


def with_extra(*extras, image=None, late=False):
    content = encoded(np.full((16, 16, 3), 100, np.uint8) if image is None else image)
    at = len(content) - 12 if late else 33
    return content[:at] + b"".join(extras) + content[at:]


LARGE = zlib.compress(bytes(5_000_000))
EXTRAS = {
    "large zTXt": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "large iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "large iCCP": chunk(b"iCCP", b"icc\0\0" + LARGE),
    "damaged tEXt": chunk(b"tEXt", b"Comment\0text")[:-4] + b"oops",
    "damaged zTXt": chunk(b"zTXt", b"Comment\0\0garbage"),
    "damaged pHYs": chunk(b"pHYs", bytes(9))[:-1] + b"x",
    "damaged APNG": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", bytes(3)),
}


@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("late", [False, True])
def test_extras_do_not_lose_a_png(root, load, name, late):
    (root / "a.png").write_bytes(with_extra(EXTRAS[name], late=late))
    assert (everything(load(root)) == 100).all()


def test_a_large_profile_still_counts():
    from unnoise.data.icc import P3_PRIMARIES, SRGB_CURVE, rgb_profile

    small = rgb_profile(P3_PRIMARIES, SRGB_CURVE)
    large = struct.pack(">I", 2_000_000) + small[4:] + bytes(2_000_000 - len(small))
    image = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    expected = pixels_of(encoded(image, icc_profile=small))
    content = with_extra(chunk(b"iCCP", b"icc\0\0" + zlib.compress(large)), image=image)
    np.testing.assert_array_equal(pixels_of(content), expected)


def test_a_png_without_pixels_is_named():
    content = encoded(np.zeros((16, 16, 3), np.uint8))
    at = content.index(b"IDAT") - 4
    with pytest.raises(UnreadableImage, match="holds no pixels"):
        pixels_of(content[:at] + content[-12:])


def test_jpeg_2000_that_pillow_cannot_read_is_not_called_truncated():
    content = bytearray(encoded(noise(64, 64, 3), "JPEG2000"))
    content[200:600] = b"\xff" * 400
    with pytest.raises(UnreadableImage, match="damaged, or compressed in a way"):
        pixels_of(bytes(content))


def test_damaged_pixels_stay_damaged():
    content = bytearray(with_extra(EXTRAS["damaged tEXt"], image=noise(16, 16, 3)))
    content[-40] ^= 255
    with pytest.raises(UnreadableImage):
        pixels_of(bytes(content))


# What a file is


def media(brand):
    return struct.pack(">I4s4sI4s", 20, b"ftyp", brand, 0, brand) + bytes(100)


FILES = {
    "a Git LFS pointer.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n",
    "an HTML page": b"\n<!DOCTYPE html>\n<html><head><title>404</title>",
    "HTML page": b"<!-- served by a cache --><html lang='en'>",
    "XML text": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "JSON text": b'{"error": "not found"}',
    "SVG": b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "base64": b"data:image/png;base64,iVBORw0KGgo=",
    "PDF": b"%PDF-1.7\n",
    "a video": media(b"isom"),
    "a video; extract": b"\x1aE\xdf\xa3" + bytes(60) + b"webm",
    "video": b"RIFF\0\0\0\0AVI LIST",
    "HEIC.*pip install pillow-heif": media(b"heic"),
    "HEIC": media(b"mif1"),
    "JPEG XL.*pip install pillow-jxl-plugin": b"\xff\x0a" + bytes(50),
    "a camera raw file": b"FUJIFILMCCD-RAW 0201",
    "camera raw": media(b"crx "),
    "a Photoshop file": b"8BPS\0\1",
    "only zeros": bytes(5000),
    "an archive": b"PK\3\4" + bytes(60),
    "a NumPy array": b"\x93NUMPY\1\0",
    "metadata of macOS": b"\0\5\x16\7\0\2\0\0Mac OS X",
    "text, not an image": b"hello, this is a caption of the image beside it",
    "truncated": b"\xff\xd8\xff\xe0garbage",
    "damaged PNG": b"\x89PNG\r\n\x1a\ngarbage",
    "damaged TIFF": b"II*\0\xff\xff\xff\x7f",
    "not an image": b"\1\2\3\4\5\6\7\x08 something else \xff",
    "empty file": b"",
}


@pytest.mark.parametrize("words", FILES)
@pytest.mark.parametrize("layout", ["folder", "zip"])
def test_other_files_are_named(root, load, words, layout):
    names = {f"{i}.jpg": FILES[words] for i in range(2)}
    for name, content in names.items():
        (root / name).write_bytes(content)
    write_zip(root.with_suffix(".zip"), names)
    with pytest.raises(InputError, match=rf"none of the 2 images .* each is the same: 0.jpg \(.*{words}"):
        load(root if layout == "folder" else root.with_suffix(".zip"))


def test_other_files_beside_images(root, load):
    put(root, "a.png", noise(16, 16, 3))
    (root / "b.jpg").write_bytes(FILES["a Git LFS pointer.*git lfs pull"])
    (note,) = load(root).notes
    assert note.startswith("skipped 1 of 2 files: b.jpg (a Git LFS pointer, not the image; run `git lfs pull`")


def test_raw_in_the_shape_of_a_tiff():
    buffer = io.BytesIO()
    Image.fromarray(noise(16, 16, 3)).save(buffer, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    with pytest.raises(UnreadableImage, match="a camera raw file"):
        pixels_of(buffer.getvalue())


def test_a_plugin_is_loaded_when_a_file_needs_it(tmp_path, monkeypatch):
    (tmp_path / "pillow_jxl.py").write_text(
        "from PIL import Image\n"
        "def opened(file, name):\n    return Image.new('RGB', (16, 16), 'red')\n"
        "Image.register_open('JXL', opened, lambda head: head[:2] == b'\\xff\\x0a')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    assert pixels_of(b"\xff\x0a" + bytes(50))[:, 0, 0].tolist() == [*RED]


def test_damaged_tiff_is_silent(capfd):
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(buffer, "TIFF", compression="tiff_lzw")
    content = bytearray(buffer.getvalue())
    content[600:900] = b"\xff" * 300
    with pytest.raises(UnreadableImage):
        pixels_of(bytes(content))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"x", b"xx", b"\xff", b"\0\0", b"II", b"MM\0"])
def test_a_file_of_few_bytes_is_no_image(content):
    with pytest.raises(UnreadableImage) as raised:
        decode(content, TargetFormat("RGB", (8, 8), "crop"))
    assert "unpack" not in str(raised.value)
