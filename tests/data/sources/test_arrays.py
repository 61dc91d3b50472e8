"""Images in NumPy and IDX files."""

import numpy as np
import pytest

from image_files import everything, noise, write_idx
from unnoise.data.dataset import split_held_out
from unnoise.errors import InputError


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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numpy_floats_that_are_not_finite(tmp_path, load, bad):
    array = np.zeros((2, 8, 8))
    array[1, 2, 3] = bad
    np.save(tmp_path / "x.npy", array)
    data = load(tmp_path / "x.npy")
    assert len(data) == 1
    assert "skipped 1 of 2 files: row 1 (holds numbers that are not finite, or too large)" in data.notes


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((2, 8, 8), np.complex64),
        np.asfortranarray(noise(3, 8, 8)),
        np.zeros((0, 8, 8)),
    ],
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


@pytest.mark.parametrize(
    ("images", "labels"), [("{}_images", "{}_labels"), ("x_{}", "y_{}")], ids=["MedMNIST", "Keras"]
)
def test_npz_with_splits(tmp_path, load, images, labels):
    arrays, count = {}, {"train": 6, "val": 3, "test": 4}
    for split, n in count.items():
        arrays |= {images.format(split): noise(n, 8, 8, 3), labels.format(split): np.arange(n)[:, None] % 2}
    np.savez(tmp_path / "set.npz", **arrays)
    data = load(tmp_path / "set.npz")
    trained, held_out = split_held_out(data)
    assert (len(trained), len(held_out), data.classes) == (6, 7, ("0", "1"))
    np.testing.assert_array_equal(everything(trained), arrays[images.format("train")].transpose(0, 3, 1, 2))
    both = np.concatenate([arrays[images.format(split)] for split in ("val", "test")])
    np.testing.assert_array_equal(everything(held_out), both.transpose(0, 3, 1, 2))
    assert held_out.labels(np.arange(7)).tolist() == [0, 1, 0, 0, 1, 0, 1]


# IDX


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx(root, load, end):
    train, test = noise(4, 8, 9), noise(3, 8, 9)
    write_idx(root / f"train-images-idx3-ubyte{end}", train)
    write_idx(root / f"train-labels-idx1-ubyte{end}", np.array([3, 1, 1, 0], np.uint8))
    write_idx(root / f"t10k-images-idx3-ubyte{end}", test)
    data = load(root)
    assert data.classes == ("0", "1", "3")
    trained, held_out = split_held_out(data)
    assert trained.labels(np.arange(4)).tolist() == [2, 1, 1, 0]
    np.testing.assert_array_equal(everything(trained)[:, 0], train)
    np.testing.assert_array_equal(everything(held_out)[:, 0], test)
    np.testing.assert_array_equal(everything(load(root / f"t10k-images-idx3-ubyte{end}"))[:, 0], test)


def test_cut_idx(tmp_path, load):
    path = tmp_path / "a-images-idx3-ubyte"
    write_idx(path, noise(4, 8, 9))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="cut short"):
        load(path)
