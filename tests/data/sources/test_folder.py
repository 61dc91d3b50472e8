"""Folders of images: recursive, sorted, classes from sub-folders."""

import numpy as np
import pytest

from image_files import channels_first, everything, noise, put
from unnoise.data.sources.find import find


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
