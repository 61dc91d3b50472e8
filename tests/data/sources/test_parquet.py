"""Images in parquet files."""

import sys

import numpy as np
import pytest

from image_files import channels_first, everything, noise, write_parquet
from unnoise.data.dataset import split_held_out
from unnoise.errors import InputError


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
    data, held_out = split_held_out(load(root))
    np.testing.assert_array_equal(everything(data)[:, 0], images)
    np.testing.assert_array_equal(everything(held_out)[:, 0], images[:1])
    assert data.classes == ("a", "b")
    assert data.labels(np.arange(4)).tolist() == [1, 0, 0, 0]
    assert held_out.labels(np.arange(1)).tolist() == [-1]


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
