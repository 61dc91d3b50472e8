"""One image of any kind becomes the right pixels, or a reason of a few words."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from image_files import encoded, everything, noise, put
from unnoise.errors import InputError


def test_gif_gives_its_first_frame(root, load):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    frames[0].save(root / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(everything(load(root))[0, :, 8, 8], [255, 0, 0])


def test_sixteen_bit_gray_is_kept(root, load):
    image = noise(9, 11, dtype=np.uint16)
    put(root, "a.png", image)
    put(root, "b.tif", image, "TIFF")
    data = load(root)
    assert (data.mode, data.shape) == ("I;16", (1, 9, 11))
    assert everything(data).dtype == np.uint16
    np.testing.assert_array_equal(everything(data), [image[None]] * 2)


def test_sixteen_bit_gray_is_resized_without_loss_of_depth(root, load):
    put(root, "a.png", np.full((40, 40), 51234, np.uint16))
    data = load(root, size="16")
    assert (everything(data) == 51234).all()
    assert (everything(load(root, size="16", channels=3)) == round(51234 / 257)).all()


@pytest.mark.parametrize("kind", ["I", "F"])
def test_wide_gray_becomes_sixteen_bit(root, load, kind):
    values = np.arange(64).reshape(8, 8) * (1000 if kind == "I" else 1 / 64)
    put(root, "a.tif", values.astype(np.int32 if kind == "I" else np.float32), "TIFF")
    expected = values if kind == "I" else np.rint(values.astype(np.float32) * np.float32(65535))
    np.testing.assert_array_equal(everything(load(root))[0, 0], expected)


# Modes


def test_alpha_is_composited_over_white(root, load):
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:, :4] = (255, 0, 0, 255)
    put(root, "a.png", clear)
    assert load(root).mode == "RGBA"
    pixels = everything(load(root, channels=3))[0]
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert pixels[:, 0, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("P", "RGB"), ("LA", "RGBA"), ("CMYK", "RGB"), ("RGBA", "RGBA"), ("L", "L")],
)
def test_stored_modes(root, load, mode, expected):
    image = Image.fromarray(noise(8, 8, 3)).convert(mode)
    image.save(root / "a.tif")
    data = load(root)
    assert data.mode == expected
    np.testing.assert_array_equal(
        everything(data)[0].squeeze(),
        np.moveaxis(np.asarray(image.convert(expected)), -1, 0) if expected != "L" else np.asarray(image.convert("L")),
    )


def test_palette_with_transparency_has_alpha(root, load):
    Image.new("P", (8, 8)).save(root / "a.png", transparency=0)
    assert load(root).mode == "RGBA"


# Orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(root, load, kind):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255  # the left half is white; turned by 90 degrees clockwise it is the top
    exif = Image.Exif()
    exif[0x0112] = 6
    put(root, f"a.{kind.lower()}", image, kind, exif=exif)
    data = load(root)
    assert data.shape == (3, 32, 16)
    assert everything(data)[0, :, 2].mean() > 240
    assert everything(data)[0, :, -2].mean() < 15
    assert not [note for note in data.notes if "cropped" in note]


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_exif_orientation_of_sixteen_bit(root, load, kind):
    image = noise(16, 32, dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    put(root, f"a.{kind.lower()}", image, kind, exif=exif)
    np.testing.assert_array_equal(everything(load(root))[0, 0], np.rot90(image, -1))


def test_damaged_exif_costs_nothing(root, load):
    put(root, "a.jpg", noise(16, 16, 3), "JPEG", exif=b"Exif\0\0garbagegarbage")
    assert load(root).notes == ()


def test_phone_pictures_with_two_frames(root, load):
    image = Image.fromarray(noise(16, 16, 3))
    image.save(root / "a.jpg", "MPO", save_all=True, append_images=[image])
    assert load(root).shape == (3, 16, 16)


# Bad files


def huge_png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + crc + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"


def test_bad_files_are_skipped_and_named(root, load):
    put(root, "good.png", noise(32, 32, 3))
    (root / "empty.png").write_bytes(b"")
    (root / "text.jpg").write_text("this is not an image")
    (root / "cut.jpg").write_bytes(encoded(noise(64, 64, 3), "JPEG")[:2000])
    (root / "cut.png").write_bytes(encoded(noise(64, 64, 3))[:4000])
    (root / "huge.png").write_bytes(huge_png(9500, 9500))
    (root / "bomb.png").write_bytes(huge_png(60000, 60000))
    (root / "link.png").symlink_to(root / "nowhere")
    data = load(root, size="32")
    assert len(data) == 1
    (note,) = [note for note in data.notes if note.startswith("skipped")]
    assert note.startswith("skipped 7 of 8 files: bomb.png (too large")
    assert "cut.jpg (truncated)" in note
    assert "cut.png (truncated)" in note
    assert "empty.png (empty file)" in note
    assert "huge.png (too large: 9500x9500; --max-pixels 90250000 allows it)" in note
    assert note.endswith(", ...")


def test_size_limit_does_not_hang_on_pillows(root, load, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (root / "huge.png").write_bytes(huge_png(60000, 60000))
    with pytest.raises(InputError, match="too large: 60000x60000"):
        load(root)


def test_other_decoders_never_run(root, load):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "EPS")
    (root / "a.jpg").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="PostScript, a drawing"):
        load(root)
