"""Folders of .npy files, as a person would count their images."""

import numpy as np
import pytest

from image_files import everything, noise
from unnoise.data.dataset import split_held_out
from unnoise.data.sources.arrays import CHUNK_BYTES
from unnoise.errors import InputError


def save(root, **arrays):
    for name, array in arrays.items():
        path = root / f"{name.replace('__', '/')}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)


@pytest.mark.parametrize(
    ("shape", "expected", "note"),
    [
        ((8, 9), (2, 1, 8, 9), "is one image"),
        ((8, 9, 3), (2, 3, 8, 9), "is one image"),
        ((3, 8, 9), (2, 3, 8, 9), "is one image"),
        ((1, 8, 9), (2, 1, 8, 9), "is one image"),
        ((8, 9, 1), (2, 1, 8, 9), "is one image"),
        ((6, 8, 9), (12, 1, 8, 9), "is an array of many images"),
        ((5, 8, 9, 3), (10, 3, 8, 9), "is an array of many images"),
        ((5, 3, 8, 9), (10, 3, 8, 9), "is an array of many images"),
        ((2, 8, 9, 1), (4, 1, 8, 9), "is an array of many images"),
    ],
)
def test_the_shape_says_how_many_images(root, load, shape, expected, note):
    a, b = noise(*shape), noise(*shape)
    save(root, a=a, b=b)
    data = load(root)
    assert everything(data).shape == expected
    assert f"each .npy file {note}, such as a.npy of shape {shape}" in data.notes
    both = np.stack([a, b]) if "one" in note else np.concatenate([a, b])
    both = both[..., None] if both.ndim == 3 else both
    if both.shape[1] > 3:
        both = both.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(everything(data), both)


def test_images_of_several_sizes_and_of_gray_and_colour_are_one_set(root, load):
    save(root, a=noise(8, 9, 3), b=noise(12, 9, 3), c=noise(8, 8))
    data = load(root, size="8")
    assert (len(data), data.mode) == (3, "RGB")
    save(root, d=noise(4, 8, 8, 3))
    assert len(load(root, size="8")) == 7


def test_arrays_of_several_numbers_of_gray_images_are_alike(root, load):
    save(root, a=noise(20, 8, 8), b=noise(3, 8, 8))  # the last one has as many rows as colours
    assert everything(load(root)).shape == (23, 1, 8, 8)
    save(root, c=noise(8, 8, 3))
    with pytest.raises(InputError, match=r"c.npy of shape \(8, 8, 3\): is each one image \[h,w,c\], or many"):
        load(root)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": noise(8, 8), "b": np.zeros((8, 8), np.float32)}, "b.npy holds float32, and a.npy uint8; save all"),
        ({"a": noise(8, 8, 3), "b": noise(6, 8, 8, 7)}, "b.npy has 7 channels, and a.npy has 3; save all with as many"),
        ({"a": noise(90, 784), "b": noise(80, 3072)}, r"reshape flattened images to \[n,h,w\]"),
        ({"a": np.arange(9), "b": np.arange(9)}, "no images in the .npy files"),
        ({"a": np.array([print]), "b": np.array([print])}, "Python objects"),
        ({"a": noise(0, 8, 8, 3), "b": noise(0, 8, 8, 3)}, "no images"),
        ({"a": np.zeros((4, 8, 8, 3), complex), "b": np.zeros((4, 8, 8, 3), complex)}, "holds complex128"),
    ],
)
def test_what_cannot_be_one_set_is_refused_in_one_line(root, load, arrays, says):
    for name, array in arrays.items():
        np.save(root / f"{name}.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=says) as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_all_files_share_one_span(root, load):
    save(root, a=np.full((8, 8), 1, np.float32), b=np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8))
    assert everything(load(root))[0].max() == 1
    save(root, a=np.full((8, 8), 100, np.uint16), b=np.full((8, 8), 4000, np.uint16))
    np.testing.assert_array_equal(
        everything(load(root))[:, 0, 0, 0], [round(100 / 4095 * 65535), round(4000 / 4095 * 65535)]
    )


def test_folders_are_classes_and_splits(root, load):
    for split, n in (("train", 3), ("test", 2)):
        for kind in ("cat", "dog"):
            save(root, **{f"{split}__{kind}__{i}": noise(8, 8, 3) for i in range(n)})
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert [len(part) for part in split_held_out(data)] == [6, 4]
    assert "train/: 6 images are trained on; test/: 4 images are held out" in data.notes


def test_class_folders_of_arrays(root, load):
    save(root, cat__x=noise(5, 8, 8), dog__x=noise(7, 8, 8), train__x=noise(6, 8, 8))
    data = load(root)
    assert data.classes == ("cat", "dog", "train")
    assert np.bincount(data.labels(np.arange(len(data)))).tolist() == [5, 7, 6]


def test_labels_and_splits_by_the_names_of_files(root, load):
    x = noise(6, 8, 8, 3)
    save(root, x_train=x[:4], y_train=np.array([1, 0, 1, 0]), x_test=x[4:], y_test=np.array([[1], [0]]))
    data = load(root)
    trained, held_out = split_held_out(data)
    np.testing.assert_array_equal(everything(trained), x[:4].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(everything(held_out), x[4:].transpose(0, 3, 1, 2))
    assert trained.labels(np.arange(4)).tolist() == [1, 0, 1, 0]
    assert held_out.labels(np.arange(2)).tolist() == [1, 0]


def test_arrays_that_are_no_images_are_named(root, load):
    save(root, images=noise(6, 8, 8, 3), labels=np.arange(6) % 2, features=np.zeros((6, 500)), extra=np.arange(5))
    data = load(root)
    assert len(data) == 6
    assert data.classes == ("0", "1")
    assert "not used, for they are neither images nor their labels: extra.npy, features.npy" in data.notes


def test_damaged_files_are_skipped_and_named(root, load):
    save(root, **{f"i{i}": noise(8, 8, 3) for i in range(4)})
    (root / "i1.npy").write_bytes((root / "i1.npy").read_bytes()[:-9])
    (root / "i2.npy").write_bytes(b"")
    data = load(root)
    assert len(data) == 2
    assert any(note.startswith("skipped 2 of 4 files: i1.npy (") for note in data.notes)


def test_arrays_are_read_a_little_at_a_time(root, load, monkeypatch):
    save(root, a=noise(40, 16, 16, 3), b=noise(40, 16, 16, 3))
    monkeypatch.setattr("unnoise.data.sources.arrays.CHUNK_BYTES", 4000)
    sizes = list[int]()

    def counted(data, *how, **more):
        sizes.append(len(data))
        return original(data, *how, **more)

    original = np.frombuffer
    monkeypatch.setattr("numpy.frombuffer", counted)
    assert len(load(root)) == 80
    assert max(sizes) <= 4000 < CHUNK_BYTES
