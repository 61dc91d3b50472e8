"""Whatever lies on a disk becomes the right pixels, or one clear line."""

import gzip
import io
import os
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from unnoise.data import cache_writer as build
from unnoise.data import open_data
from unnoise.data.dataset import default_held_out, split_held_out
from unnoise.data.sources.find import find
from unnoise.errors import InputError
from unnoise.images import flip, to_float

REAL = Path(__file__).parents[3] / "shared" / "data"
RNG = np.random.default_rng(0)


def noise(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def encoded(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def load(tmp_path):
    def open_at(path, **options):
        return open_data(str(path), cache=tmp_path / "cache", **options)

    return open_at


def everything(data):
    return data.read(np.arange(len(data)))


def channels_first(image):
    return image.transpose(2, 0, 1)


def put(root, name, array, kind="PNG", **options):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(array, kind, **options))
    return path


# Folders


def test_folder_round_trip_is_exact_recursive_and_sorted(root, load):
    images = [noise(12, 20, 3) for _ in range(3)]
    for name, image in zip(["b.PNG", "a/x.png", "c/d/e.bmp"], images, strict=True):
        put(root, name, image, name[-3:].upper())
    data = load(root)
    assert (data.mode, data.shape, len(data), data.name) == ("RGB", (3, 12, 20), 3, "photos")
    expected = [channels_first(images[index]) for index in (1, 0, 2)]  # a/x, b, c/d/e
    np.testing.assert_array_equal(everything(data), expected)
    np.testing.assert_array_equal(data.read(np.array([2, 0])), [expected[2], expected[0]])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpg", "JPEG"),
        ("a.JPEG", "JPEG"),
        ("a.png", "PNG"),
        ("a.webp", "WEBP"),
        ("a.bmp", "BMP"),
        ("a.gif", "GIF"),
        ("a.tif", "TIFF"),
        ("a.TIFF", "TIFF"),
    ],
)
def test_every_suffix_is_read(root, load, name, kind):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    put(root, name, flat, kind)
    pixels = everything(load(root)).astype(int)
    assert pixels.shape == (1, 3, 16, 16)
    assert np.abs(pixels - np.array([200, 100, 50])[None, :, None, None]).max() <= 8


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


def test_hidden_files_and_others_do_not_count(root, load):
    put(root, "a.png", noise(8, 8))
    put(root, ".hidden.png", noise(8, 8))
    put(root, "__MACOSX/a.png", noise(8, 8))
    put(root, ".git/a.png", noise(8, 8))
    (root / "notes.TXT").write_text("hello")
    source = find(str(root))
    assert (source.count, dict(source.ignored)) == (1, {".txt": 1})
    assert any(".txt 1" in note for note in load(root).notes)


def test_linked_folder_is_followed_once(root, load):
    put(root, "a/x.png", noise(8, 8))
    (root / "a" / "loop").symlink_to(root)
    assert len(load(root)) == 1


# Classes


def test_classes_are_subfolders(root, load):
    for name in ("dog/1.png", "cat/deep/2.png", "dog/3.png"):
        put(root, name, noise(8, 8))
    data = load(root)
    assert data.classes == ("cat", "dog")
    labels = data.labels(np.arange(3))
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 1]
    assert "found classes: cat, dog" in data.notes


def test_classes_are_dropped_where_some_images_have_none(root, load):
    for name in ("dog/1.png", "cat/2.png", "3.png"):
        put(root, name, noise(8, 8))
    data = load(root)
    assert data.classes == ()
    assert data.labels(np.arange(3)) is None
    assert "no classes: 1 of 3 images have no label" in data.notes


def test_broken_image_without_label_does_not_cost_the_classes(root, load):
    put(root, "dog/1.png", noise(8, 8))
    put(root, "cat/2.png", noise(8, 8))
    (root / "3.png").write_bytes(b"")
    assert load(root).classes == ("cat", "dog")


def test_one_class_is_none(root, load):
    put(root, "dog/1.png", noise(8, 8))
    assert load(root).classes == ()


# Modes


def test_most_common_mode_wins_and_the_others_are_told(root, load):
    for index in range(2):
        put(root, f"{index}.png", noise(8, 8, 3))
    put(root, "gray.png", np.full((8, 8), 77, np.uint8))
    data = load(root)
    assert data.mode == "RGB"
    assert "converted 1 gray to RGB" in data.notes
    assert (everything(data)[2] == 77).all()


def test_tie_goes_to_more_channels(root, load):
    put(root, "a.png", noise(8, 8))
    put(root, "b.png", noise(8, 8, 3))
    assert load(root).mode == "RGB"


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


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_channels_override(root, load, channels, mode):
    put(root, "a.png", noise(8, 8, 3))
    data = load(root, channels=channels)
    assert (data.mode, data.shape[0]) == (mode, channels)


@pytest.mark.parametrize("channels", [0, 5])
def test_impossible_channels(root, load, channels):
    put(root, "a.png", noise(8, 8, 3))
    with pytest.raises(InputError, match=f"channels={channels}"):
        load(root, channels=channels)


# Size


def test_default_size(root, load):
    put(root, "a.png", noise(40, 64))
    assert load(root).shape == (1, 40, 64)
    put(root, "b.png", noise(40, 60))
    assert load(root).shape == (1, 64, 64)


def test_large_images_become_64(root, load):
    put(root, "a.png", noise(65, 65))
    assert load(root).shape == (1, 64, 64)


def test_size_is_width_by_height(root, load):
    put(root, "a.png", noise(100, 100))
    assert load(root, size="96x64").shape == (1, 64, 96)


@pytest.mark.parametrize("size", ["7", "64x4", "big", "0", "-8", "64x"])
def test_bad_size(root, load, size):
    put(root, "a.png", noise(16, 16))
    with pytest.raises(InputError, match="size"):
        load(root, size=size)


def test_tiny_images_ask_for_a_size(root, load):
    put(root, "a.png", noise(4, 4))
    with pytest.raises(InputError, match="4x4"):
        load(root)
    assert "enlarged 1 small image" in load(root, size="8").notes


def circle(width, height):
    image = Image.new("L", (width, height), 128)
    ImageDraw.Draw(image).ellipse((width / 2 - 40, height / 2 - 40, width / 2 + 40, height / 2 + 40), fill=255)
    return np.asarray(image)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(200, 100), (100, 200)])
def test_circle_stays_round(root, load, fit, shape):
    put(root, "a.png", circle(*shape))
    data = load(root, fit=fit)
    disc = everything(data)[0, 0] > 192
    assert abs(int(disc.any(0).sum()) - int(disc.any(1).sum())) <= 1
    assert disc.any(0).sum() > 20
    note = "center-cropped 1 image" if fit == "crop" else "padded 1 image"
    assert note in data.notes


def test_stretch_squashes_and_says_so(root, load):
    put(root, "a.png", circle(200, 100))
    data = load(root, fit="stretch")
    disc = everything(data)[0, 0] > 192
    assert disc.any(1).sum() > 1.8 * disc.any(0).sum()
    assert "stretched 1 image" in data.notes


def test_pad_is_black_outside(root, load):
    put(root, "a.png", np.full((50, 100), 255, np.uint8))
    pixels = everything(load(root, size="64", fit="pad"))[0, 0]
    assert (pixels[:16] == 0).all()
    assert (pixels[16:48] == 255).all()
    assert (pixels[48:] == 0).all()


def test_crop_takes_the_centre(root, load):
    wide = np.zeros((64, 192), np.uint8)
    wide[:, 64:128] = noise(64, 64)
    put(root, "a.png", wide)
    np.testing.assert_array_equal(everything(load(root, size="64"))[0, 0], wide[:, 64:128])


def test_resize_averages_when_it_shrinks(root, load):
    checker = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    put(root, "a.png", checker)
    assert np.ptp(everything(load(root, size="16"))[0, 0, 2:-2, 2:-2].astype(int)) < 10


def test_unknown_fit(root, load):
    with pytest.raises(InputError, match="did you mean 'crop'"):
        load(root, fit="crp")


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


# Bad files


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


def huge_png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    crc = struct.pack(">I", __import__("zlib").crc32(b"IHDR" + header))
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
    assert "huge.png (too large: 9500x9500)" in note
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
    with pytest.raises(InputError, match="not an image"):
        load(root)


def test_all_unreadable(root, load):
    (root / "a.png").write_bytes(b"")
    (root / "b.png").write_text("nope")
    with pytest.raises(InputError, match=r"none of the 2 images .*a\.png \(empty file\), b\.png \(not an image\)"):
        load(root)


def test_all_truncated(root, load):
    (root / "a.png").write_bytes(encoded(noise(64, 64, 3))[:4000])
    with pytest.raises(InputError, match=r"none of the 1 images .*a\.png \(truncated\)"):
        load(root)


def test_nothing_there(root, load):
    for index in range(3):
        (root / f"{index}.txt").write_text("x")
    (root / "a.mov").write_text("x")
    with pytest.raises(InputError, match=r"no images in 'photos': 0 of 4 files count \(.txt 3, .mov 1\); .*jpg, jpeg"):
        load(root)


def test_missing_path_names_the_nearest(root, load):
    with pytest.raises(InputError, match=r"did you mean '.*photos'"):
        load(root.parent / "photo")
    with pytest.raises(InputError, match="did you mean 'faces'"):
        load("facse")
    with pytest.raises(InputError, match="no data given"):
        load("")


def test_unknown_file(root, load):
    (root / "a.mov").write_text("x")
    with pytest.raises(InputError, match="cannot tell"):
        load(root / "a.mov")
    with pytest.raises(InputError, match="is one image"):
        load(put(root, "a.png", noise(8, 8)))


def test_limit(root, load):
    (root / "0.png").write_bytes(b"")
    images = [noise(8, 8) for _ in range(4)]
    for index, image in enumerate(images):
        put(root, f"{index + 1}.png", image)
    data = load(root, limit=2)
    np.testing.assert_array_equal(everything(data)[:, 0], images[:2])
    with pytest.raises(InputError, match="limit=0"):
        load(root, limit=0)


# Archives

MEMBERS = {"b/2.png": 1, "a/1.png": 0, "b/c/3.PNG": 2}


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_tar(path, members):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("top", ["", "flowers/"])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz"])
def test_archives(tmp_path, load, suffix, top):
    images = [noise(8, 10) for _ in range(3)]
    members = {top + name: encoded(images[index]) for name, index in MEMBERS.items()}
    members |= {"__MACOSX/a.png": b"x", f"{top}.hidden.png": b"x", f"{top}readme.txt": b"x"}
    path = tmp_path / f"set.{suffix}"
    (write_zip if suffix == "zip" else write_tar)(path, members)
    data = load(path)
    assert data.name == "set"
    assert data.classes == ("a", "b")
    order = [1, 0, 2] if suffix in ("tar.gz", "tgz") else [0, 1, 2]  # compressed tar files keep their own order
    np.testing.assert_array_equal(everything(data)[:, 0], [images[index] for index in order])
    assert data.labels(np.arange(3)).tolist() == [[0, 1, 1][index] for index in order]
    assert "ignored files that are not images: .txt 1" in data.notes


EVIL = ["../up.png", "a/../../up.png", "/abs.png", "..\\up.png", "C:\\up.png", "C:/up.png"]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_names_that_point_outside_are_ignored(tmp_path, load, suffix):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / f"set.{suffix}"
    (write_zip if suffix == "zip" else write_tar)(path, dict.fromkeys([*EVIL, "good.png"], encoded(noise(8, 8))))
    assert [item.name for item in find(str(path)).items()] == ["good.png"]
    assert len(load(path)) == 1
    assert {near.name for near in tmp_path.iterdir()} == {"inside", "cache"}


def test_tar_links_are_ignored(tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("a.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert list(find(str(path)).items()) == []


def test_member_size_is_bounded(tmp_path, monkeypatch, load):
    monkeypatch.setattr("unnoise.data.sources.archive.MAX_BYTES", 1000)
    for suffix, write in (("zip", write_zip), ("tar", write_tar), ("tar.gz", write_tar)):
        path = tmp_path / f"set.{suffix}"
        write(path, {"a.png": encoded(noise(8, 8)), "b.png": bytes(1001)})
        assert any("b.png (larger than" in note for note in load(path).notes)


def test_damaged_member_is_skipped(tmp_path, load):
    path = tmp_path / "set.zip"
    write_zip(path, {"a.png": encoded(noise(8, 8)), "b.png": b"x" * 500})
    path.write_bytes(path.read_bytes().replace(b"x" * 500, b"x" * 400 + b"y" * 100))
    assert any("b.png (damaged in the archive)" in note for note in load(path).notes)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "npy", "npz", "parquet", "idx3-ubyte", "idx3-ubyte.gz"])
@pytest.mark.parametrize("content", [b"", b"garbage, of no format whatever" * 40])
def test_broken_containers_give_one_line(tmp_path, load, suffix, content):
    path = tmp_path / f"set-images-{suffix}" if "idx" in suffix else tmp_path / f"set.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cut_archives_give_one_line(tmp_path, load):
    members = {f"{index}.png": encoded(noise(32, 32, 3)) for index in range(20)}
    for suffix, write in (("zip", write_zip), ("tar.gz", write_tar)):
        path = tmp_path / f"set.{suffix}"
        write(path, members)
        path.write_bytes(path.read_bytes()[:30000])
        with pytest.raises(InputError, match="is the archive complete"):
            load(path)


# Arrays


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5, 9, 10), None),
        ((5, 9, 10, 1), (0, 3, 1, 2)),
        ((5, 9, 10, 3), (0, 3, 1, 2)),
        ((5, 3, 9, 10), (0, 1, 2, 3)),
        ((5, 4, 9, 10), (0, 1, 2, 3)),
        ((5, 6, 9, 10), (0, 1, 2, 3)),
        ((5, 9, 10, 2), (0, 3, 1, 2)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numpy_layouts(tmp_path, load, shape, axes, dtype):
    array = noise(*shape, dtype=dtype)
    np.save(tmp_path / "x.npy", array)
    expected = array.transpose(axes) if axes else array[:, None]
    data = load(tmp_path / "x.npy")
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"} if dtype == np.uint8 else {1: "I;16"}
    assert data.mode == modes.get(expected.shape[1], "")
    assert everything(data).dtype == dtype
    np.testing.assert_array_equal(everything(data), expected)


def test_numpy_big_endian_and_bool(tmp_path, load):
    array = noise(2, 8, 8, dtype=np.uint16)
    np.save(tmp_path / "x.npy", array.astype(">u2"))
    np.testing.assert_array_equal(everything(load(tmp_path / "x.npy"))[:, 0], array)
    np.save(tmp_path / "y.npy", array > 30000)
    np.testing.assert_array_equal(everything(load(tmp_path / "y.npy"))[:, 0], (array > 30000) * 255)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_numpy_floats(tmp_path, load, dtype):
    levels = np.arange(256).reshape(4, 8, 8)
    np.save(tmp_path / "x.npy", (levels / 255).astype(dtype))
    np.save(tmp_path / "y.npy", (levels / 127.5 - 1).astype(dtype))
    for name in "xy":
        np.testing.assert_array_equal(everything(load(tmp_path / f"{name}.npy"))[:, 0], levels)


@pytest.mark.parametrize("bad", [2.0, -3.0, np.nan])
def test_numpy_floats_out_of_range(tmp_path, load, bad):
    array = np.zeros((2, 8, 8))
    array[1, 2, 3] = bad
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match="scale them"):
        load(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8), np.uint8), np.zeros((2, 8, 8), np.int64), np.asfortranarray(noise(3, 8, 8)), np.zeros((0, 8, 8))],
)
def test_numpy_that_is_no_images(tmp_path, load, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match="'"):
        load(tmp_path / "x.npy")


def test_numpy_never_unpickles(tmp_path, load):
    np.save(tmp_path / "x.npy", np.array([print] * 3, object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        load(tmp_path / "x.npy")


def test_many_channels_are_resized_one_by_one(tmp_path, load):
    array = np.stack([np.full((40, 20), 30 * c, np.uint8) for c in range(6)])[None]
    np.save(tmp_path / "x.npy", array)
    data = load(tmp_path / "x.npy", size="16", channels=6)
    assert (data.mode, data.shape) == ("", (6, 16, 16))
    assert everything(data)[0, :, 5, 5].tolist() == [0, 30, 60, 90, 120, 150]
    with pytest.raises(InputError, match="6 channels"):
        load(tmp_path / "x.npy", channels=3)


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("first", "labels")])
def test_npz(tmp_path, load, names):
    array = noise(12, 8, 9)
    labels = np.array([10, 2] * 6)
    np.savez_compressed(tmp_path / "x.npz", **{names[1]: labels, names[0]: array})
    data = load(tmp_path / "x.npz")
    np.testing.assert_array_equal(everything(data)[:, 0], array)
    assert data.classes == ("2", "10")
    assert data.labels(np.arange(2)).tolist() == [1, 0]


def test_npz_needs_a_label_for_each(tmp_path, load):
    np.savez(tmp_path / "x.npz", x=noise(3, 8, 8), y=np.arange(2))
    with pytest.raises(InputError, match="3 images but labels"):
        load(tmp_path / "x.npz")


def write_idx(path, array):
    data = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx(root, load, end):
    train, test = noise(4, 8, 9), noise(3, 8, 9)
    write_idx(root / f"train-images-idx3-ubyte{end}", train)
    write_idx(root / f"train-labels-idx1-ubyte{end}", np.array([3, 1, 1, 0], np.uint8))
    write_idx(root / f"t10k-images-idx3-ubyte{end}", test)
    data = load(root)
    assert data.classes == ("0", "1", "3")
    assert data.labels(np.arange(4)).tolist() == [2, 1, 1, 0]
    np.testing.assert_array_equal(everything(data)[:, 0], train)
    np.testing.assert_array_equal(everything(load(root / f"t10k-images-idx3-ubyte{end}"))[:, 0], test)


def test_cut_idx(tmp_path, load):
    path = tmp_path / "a-images-idx3-ubyte"
    write_idx(path, noise(4, 8, 9))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="cut short"):
        load(path)


# Parquet


def write_parquet(path, images, labels=None, names=None, *, struct_column=True):
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    content = [encoded(image) for image in images]
    columns = {"image": [{"bytes": data, "path": None} for data in content] if struct_column else content}
    if labels is not None:
        columns["label"] = labels
    table = pa.table(columns)
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


@pytest.mark.parametrize("struct_column", [True, False])
def test_parquet_with_class_names_in_their_own_order(tmp_path, load, struct_column):
    images = [noise(8, 8, 3) for _ in range(3)]
    write_parquet(tmp_path / "x.parquet", images, [2, 0, 2], ["zebra", "yak", "ant"], struct_column=struct_column)
    data = load(tmp_path / "x.parquet")
    np.testing.assert_array_equal(everything(data), [channels_first(image) for image in images])
    assert data.classes == ("zebra", "yak", "ant")
    assert data.labels(np.arange(3)).tolist() == [2, 0, 2]


def test_parquet_with_text_labels_in_a_folder_takes_the_training_split(root, load):
    images = [noise(8, 8) for _ in range(4)]
    write_parquet(root / "data" / "train-00000-of-00002.parquet", images[:2], ["b", "a"])
    write_parquet(root / "data" / "train-00001-of-00002.parquet", images[2:], ["a", "a"])
    write_parquet(root / "data" / "test-00000-of-00001.parquet", images[:1], ["c"])
    data = load(root)
    np.testing.assert_array_equal(everything(data)[:, 0], images)
    assert data.classes == ("a", "b")
    assert data.labels(np.arange(4)).tolist() == [1, 0, 0, 0]


def test_parquet_without_images(tmp_path, load):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"no column of images .* a, b"):
        load(tmp_path / "x.parquet")


def test_parquet_without_pyarrow(tmp_path, load, monkeypatch):
    write_parquet(tmp_path / "x.parquet", [noise(8, 8)])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pip install 'unnoise\[parquet\]'"):
        load(tmp_path / "x.parquet")


# Built-in sets


@pytest.mark.parametrize("name", ["celeba", "cifar10", "fashion_mnist"])
def test_downloaded_sets(tmp_path, load, monkeypatch, name):
    write_parquet(tmp_path / "snapshot" / "data" / "train-0.parquet", [noise(8, 8)])
    asked = {}

    def snapshot(repo, **options):
        asked.update(options, repo=repo)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert (load(name).name, asked["repo_type"]) == (name, "dataset")
    assert name.split("_")[0] in asked["repo"].lower()


def test_downloads_need_a_connection(load, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(InputError, match=r"connection .*no route.* by hand .*uoft-cs/cifar10.*'faces'"):
        load("cifar10")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'unnoise\[hub\]'"):
        load("cifar10")


def test_faces_draw_themselves(load):
    assert load("faces:count=3").shape == (3, 32, 32)
    data = load("faces:count=3", size="24x40")
    assert (len(data), data.shape) == (3, (3, 40, 24))
    assert not [note for note in data.notes if "crop" in note]
    assert len(load("faces:count=3", limit=2)) == 2


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real images are not beside this repository")
@pytest.mark.parametrize(
    ("folder", "mode", "shape", "first"),
    [("cifar10", "RGB", (3, 32, 32), "airplane"), ("fashion-mnist", "L", (1, 28, 28), "0")],
)
def test_real_sets(load, folder, mode, shape, first):
    data = load(REAL / folder, limit=200)
    assert (data.mode, data.shape, len(data), len(data.classes)) == (mode, shape, 200, 10)
    assert data.classes[0] == first
    assert 50 < everything(data).mean() < 150
    assert not [note for note in data.notes if "skipped" in note]


# The cache


def test_second_open_decodes_nothing(root, load, monkeypatch):
    put(root, "a/1.png", noise(8, 8))
    put(root, "b/2.png", noise(8, 8))
    first = load(root)
    with monkeypatch.context() as patch:
        patch.setattr(build, "decode", lambda *_: pytest.fail("decoded again"))
        patch.setattr("unnoise.data.target_format.read_header", lambda *_: pytest.fail("looked again"))
        assert load(root) == first
    changed = put(root, "a/1.png", noise(8, 8))
    os.utime(changed, ns=(1, 1))
    assert load(root).fingerprint != first.fingerprint


def test_options_do_not_share_a_cache(root, load):
    put(root, "a.png", noise(20, 30, 3))
    options = [{}, {"size": "16"}, {"size": "16", "fit": "pad"}, {"size": "16", "channels": 1}, {"limit": 1}]
    assert len({load(root, **option).store.folder for option in options}) == len(options)


def test_fingerprint_is_of_pixels_and_labels(tmp_path, load):
    images = [noise(8, 8), noise(8, 8)]
    prints = []
    for folder, names in (("one", "ab"), ("two", "ab"), ("three", "ac")):
        for name, image in zip(names, images, strict=True):
            put(tmp_path / folder, f"{name}/x.png", image)
        prints.append(load(tmp_path / folder).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_damaged_cache_is_built_again(root, load):
    put(root, "a.png", noise(8, 8))
    first = load(root)
    (first.store.folder / "images.bin").write_bytes(b"short")
    assert load(root) == first
    assert len(everything(first)) == 1


def test_failure_leaves_nothing(root, load, monkeypatch, tmp_path):
    put(root, "a.png", noise(8, 8))

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "number_classes", crash)
        with pytest.raises(KeyboardInterrupt):
            load(root)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(load(root)) == 1


def test_the_faster_of_two_builders_is_kept(root, load, monkeypatch):
    put(root, "a.png", noise(8, 8))
    real, results = build.number_classes, []

    def race(*values):
        if not results:
            results.append(None)
            results.append(load(root))  # another process finishes while we are at work
            (results[1].store.folder / "mark").touch()
        return real(*values)

    monkeypatch.setattr(build, "number_classes", race)
    assert load(root) == results[1]
    assert (results[1].store.folder / "mark").exists()


def test_unwritable_cache(root, tmp_path):
    put(root, "a.png", noise(8, 8))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cache folder '.*file.*UNNOISE_CACHE"):
        open_data(str(root), cache=tmp_path / "file" / "cache")


def test_cache_folder_from_the_environment(root, tmp_path, monkeypatch):
    put(root, "a.png", noise(8, 8))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("UNNOISE_CACHE", raising=False)
    assert open_data(str(root)).store.folder.parent == tmp_path / "xdg" / "unnoise"
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "own"))
    assert open_data(str(root)).store.folder.parent == tmp_path / "own"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux to see the maps of a process")
def test_read_does_not_hold_the_map(root, load):
    put(root, "a/1.png", noise(8, 8))
    put(root, "b/1.png", noise(8, 8))
    data = load(root)
    pixels, labels = everything(data), data.labels(np.arange(2))
    assert str(data.store.folder) not in Path("/proc/self/maps").read_text()
    pixels[:] = labels[:] = 0  # ours to write
    assert everything(data).any()


def test_progress(root, load):
    put(root, "a.png", noise(8, 8))
    seen = []
    load(root, progress=lambda *report: seen.append(report))
    assert seen[-1] == ("decoding", 1, 1)
    assert ("scanning", 1, 1) in seen


# Transforms


def test_to_float():
    eight = to_float(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1))
    sixteen = to_float(torch.tensor([0, 65535], dtype=torch.uint16).reshape(2, 1, 1, 1))
    expected = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(eight, expected, rtol=0, atol=0)
    torch.testing.assert_close(sixteen, expected, rtol=0, atol=0)


def test_flip_mirrors_these_images_and_no_others():
    x, mirrored = torch.arange(4 * 6, dtype=torch.float32).reshape(4, 1, 2, 3), torch.tensor([True, False, False, True])
    y = flip(x, mirrored)
    assert torch.equal(y[mirrored], x[mirrored].flip(-1))
    assert torch.equal(y[~mirrored], x[~mirrored])


# Held out


@pytest.mark.parametrize(
    ("count", "held"), [(5, 0), (50, 5), (640, 64), (3000, 64), (10_000, 200), (60_000, 1200), (200_000, 2048)]
)
def test_how_many_are_held_out(count, held):
    assert default_held_out(count) == held


def test_a_split_is_the_same_for_the_same_data_and_loses_nothing(load, tmp_path):
    np.save(tmp_path / "forty.npy", np.arange(40, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2))
    data = load(tmp_path / "forty.npy")
    trained, held = split_held_out(data)
    assert (len(trained), len(held)) == (36, 4)
    values = [part.read(np.arange(len(part)))[:, 0, 0, 0].tolist() for part in (trained, held)]
    assert sorted(values[0] + values[1]) == list(range(40))
    assert split_held_out(data)[1].read(np.arange(4))[:, 0, 0, 0].tolist() == values[1]
    assert trained.part(np.array([2, 0])).read(np.array([0, 1]))[:, 0, 0, 0].tolist() == [values[0][2], values[0][0]]
    assert [len(part) for part in split_held_out(data, 0)] == [40, 0]
    for wrong in (-1, 40):
        with pytest.raises(InputError, match="takes 0 to 39"):
            split_held_out(data, wrong)
