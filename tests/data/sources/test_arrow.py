"""Arrow files of Hugging Face datasets: streams and files, splits, and the names of classes."""

import json

import numpy as np
import pyarrow as pa
import pytest

from image_files import encoded, everything, noise, write_parquet
from unnoise.data.dataset import split_held_out
from unnoise.errors import InputError

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
NAME = "data-00000-of-00001.arrow"


def write_arrow(path, images, labels=None, *, stream=True, rows=2, metadata=None):
    """Write images in batches of a few rows."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {"image": pa.array([{"bytes": encoded(image), "path": None} for image in images], kind)}
    if labels is not None:
        columns["label"] = labels
    table = pa.table(columns).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, opened(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def write_info(folder, features=FEATURES, **more):
    (folder / "dataset_info.json").write_text(json.dumps({"features": features, **more}))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("name", ["x.arrow", "x", "x.png"])
def test_streams_and_files_of_several_batches(tmp_path, load, stream, rows, name):
    images = noise(5, 8, 8, 3)
    write_arrow(tmp_path / name, images, [1, 0, 1, 0, 1], stream=stream, rows=rows)
    data = load(tmp_path / name)
    np.testing.assert_array_equal(everything(data), images.transpose(0, 3, 1, 2))
    assert data.labels(np.arange(5)).tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("stream", [True, False])
def test_empty_and_damaged_files(tmp_path, load, stream):
    path = tmp_path / "x.arrow"
    write_arrow(path, noise(0, 8, 8), stream=stream)
    with pytest.raises(InputError, match="no images in 'x'"):
        load(path)
    write_arrow(path, noise(4, 8, 8), stream=stream, rows=1)
    whole = path.read_bytes()
    for content in (b"", whole[:20], whole[: len(whole) // 2], b"\xff" * 400, b"ARROW1\0\0" + b"\7" * 400):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is the file complete") as caught:
            load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["", "train"])
def test_names_of_classes_from_the_file_next_to_it(tmp_path, load, place):
    folder = tmp_path / "saved"
    write_arrow(folder / place / NAME, noise(11, 8, 8), [1, 0, 1, -1, *[0] * 7])
    write_info(folder / place)
    for path in (folder, folder / place / NAME):
        data = load(path)
        assert data.classes == ("cat", "dog")
        assert data.labels(np.arange(4)).tolist() == [1, 0, 1, -1]


def test_names_in_the_metadata_of_the_file_come_first(tmp_path, load):
    own = {**FEATURES, "label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    write_arrow(
        tmp_path / "d" / NAME, noise(2, 8, 8), [1, 0], metadata={"huggingface": json.dumps({"info": {"features": own}})}
    )
    write_info(tmp_path / "d")
    assert load(tmp_path / "d").classes == ("ant", "bee")


@pytest.mark.parametrize("info", ['{"features": 3}', "[]", "{", '{"features": {"label": {"names": 5}}}', "null", "7"])
def test_odd_descriptions_name_nothing(tmp_path, load, info):
    write_arrow(tmp_path / "d" / NAME, noise(2, 8, 8), [1, 0])
    (tmp_path / "d" / "dataset_info.json").write_text(info)
    assert load(tmp_path / "d").classes == ("0", "1")


def test_names_of_parquet_from_the_description_of_its_repository(tmp_path, load):
    images = noise(4, 8, 8)
    write_parquet(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet", images, [0, 1, 1, 0])
    assert load(tmp_path / "repo").classes == ("0", "1")
    (tmp_path / "repo" / "dataset_infos.json").write_text(json.dumps({"default": {"features": FEATURES}}))
    assert load(tmp_path / "repo").classes == ("cat", "dog")
    assert load(tmp_path / "repo", stream=True).classes == ("cat", "dog")
    other = {**FEATURES, "label": {"names": ["x", "y"], "_type": "ClassLabel"}}
    both = {"one": {"features": FEATURES}, "two": {"features": other}}  # it cannot be told which
    (tmp_path / "repo" / "dataset_infos.json").write_text(json.dumps(both))
    assert load(tmp_path / "repo").classes == ("0", "1")


def saved_splits(folder, *splits):
    for n, split in enumerate(splits, 3):
        write_arrow(folder / split / NAME, noise(n, 8, 8), [i % 2 for i in range(n)])
        write_info(folder / split)
        (folder / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": NAME}]}))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": splits}))


def test_a_dictionary_of_datasets_has_splits(tmp_path, load):
    saved_splits(tmp_path / "dict", "train", "test", "unlabeled")
    data = load(tmp_path / "dict")
    assert [len(part) for part in split_held_out(data)] == [3, 4]
    assert data.classes == ("cat", "dog")
    assert any("left out 1 files that belong to no split: unlabeled" in note for note in data.notes)


def test_several_datasets_in_one_folder_are_not_mixed(tmp_path, load):
    saved_splits(tmp_path / "both", "birds", "fish")
    with pytest.raises(InputError, match=r"2 datasets in .*birds, fish; give the folder of one"):
        load(tmp_path / "both")
    saved_splits(tmp_path / "two" / "birds", "train", "test")
    saved_splits(tmp_path / "two" / "fish", "train", "test")
    with pytest.raises(InputError, match=r"2 datasets in .*birds, fish; give the folder of one"):
        load(tmp_path / "two")


def test_files_that_the_saved_dataset_does_not_list_are_left_out(tmp_path, load):
    write_arrow(tmp_path / "d" / NAME, noise(4, 8, 8), [0, 1, 0, 1])
    write_arrow(tmp_path / "d" / "cache-0123.arrow", noise(5, 8, 8), [0, 1, 0, 1, 0])
    write_arrow(tmp_path / "d" / "tmp9.arrow", noise(6, 8, 8), [0, 1, 0, 1, 0, 1])
    (tmp_path / "d" / "state.json").write_text(json.dumps({"_data_files": [{"filename": NAME}]}))
    data = load(tmp_path / "d")
    assert len(data) == 4
    assert "left out files that are no part of the saved dataset: cache-0123.arrow, tmp9.arrow" in data.notes
