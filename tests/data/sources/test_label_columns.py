"""Label columns of parquet, arrays of npz, labels in memory: images and classes as a person counts them."""

import numpy as np
import pytest

from image_files import encoded, noise
from unnoise.config import TrainConfig
from unnoise.data import open_data
from unnoise.data.dataset import split_held_out
from unnoise.errors import InputError
from unnoise.training.train import train

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def labels_of(data):
    """Return the class of each image; None if there are no classes."""
    labels = data.labels(np.arange(len(data)))
    return None if labels is None else [data.classes[i] if i >= 0 else None for i in labels.tolist()]


def write(path, count=4, **columns):
    images = pa.array([encoded(noise(8, 8, 3)) for _ in range(count)])
    pq.write_table(pa.table({"image": images, **columns}), path)
    return path


COLUMNS = {
    "dictionary": ("label", pa.array(list("baba")).dictionary_encode(), ("a", "b"), list("baba")),
    "text view": ("label", pa.array(list("baba"), pa.string_view()), ("a", "b"), list("baba")),
    "large text": ("label", pa.array(list("baba"), pa.large_string()), ("a", "b"), list("baba")),
    "bool": ("label", pa.array([True, False] * 2), ("False", "True"), ["True", "False"] * 2),
    "whole floats": ("label", pa.array([10.0, 2.0] * 2), ("2", "10"), ["10", "2"] * 2),
    "one-hot lists": ("label", pa.array([[0, 1], [1, 0]] * 2), ("0", "1"), ["1", "0"] * 2),
    "lists of one": ("label", pa.array([["b"], ["a"]] * 2), ("a", "b"), list("baba")),
    "int8": ("class", pa.array([1, 0] * 2, pa.int8()), ("0", "1"), ["1", "0"] * 2),
    "capital letters": ("Label", pa.array(list("baba")), ("a", "b"), list("baba")),
    "blank in the name": ("Class Name", pa.array(list("baba")), ("a", "b"), list("baba")),
    "category": ("category_id", pa.array([10, 9] * 2), ("9", "10"), ["10", "9"] * 2),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_column_of_parquet(tmp_path, load, kind):
    name, column, classes, labels = COLUMNS[kind]
    write(tmp_path / "x.parquet", **{name: column})
    for stream in (False, True):
        data = load(tmp_path / "x.parquet", stream=stream)
        assert (len(data), data.classes, labels_of(data)) == (4, classes, labels)


@pytest.mark.parametrize("kind", [pa.binary_view(), pa.large_binary()])
def test_images_of_another_binary_type(tmp_path, load, kind):
    write(tmp_path / "x.parquet", label=pa.array([0, 1, 0, 1]))
    table = pq.read_table(tmp_path / "x.parquet")
    pq.write_table(table.set_column(0, "image", table["image"].cast(kind)), tmp_path / "y.parquet")
    one, two = load(tmp_path / "x.parquet"), load(tmp_path / "y.parquet")
    assert one.fingerprint == two.fingerprint
    assert two.classes == ("0", "1")


REFUSED = {
    "regression": ("label", pa.array([0.25, 1.0] * 2), "the column 'label' is a number with decimals (0.25)"),
    "multi-label": ("labels", pa.array([[1, 2], [0]] * 2), "the column 'labels' is a list of 2 labels (1, 2)"),
    "records": ("label", pa.array([{"a": 1}] * 4), "the column 'label' is of type struct"),
    "texts": ("text", pa.array(list("abcd")), "the columns beside the images are text; none is a label"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_column_that_is_no_label_is_named(tmp_path, load, kind):
    name, column, says = REFUSED[kind]
    write(tmp_path / "x.parquet", **{name: column})
    data = load(tmp_path / "x.parquet")
    assert (len(data), data.classes) == (4, ())
    assert says in data.no_classes
    if kind != "texts":
        with pytest.raises(InputError, match=f"--label-column '{name}': the column"):
            load(tmp_path / "x.parquet", label_column=name)


def test_user_names_the_column_of_parquet(tmp_path, load):
    path = write(tmp_path / "x.parquet", fine_label=pa.array([0, 1, 2, 3]), coarse=pa.array([0, 0, 1, 1]))
    assert load(path).classes == ("0", "1", "2", "3")
    assert load(path, label_column="coarse").classes == ("0", "1")
    with pytest.raises(InputError, match="'course'; did you mean 'coarse'"):
        load(path, label_column="course")


def test_a_row_that_holds_only_a_path_says_so(tmp_path, load):
    rows = [{"bytes": encoded(noise(8, 8)), "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet")
    assert any("its row holds only the path 'b.png'" in note for note in load(tmp_path / "x.parquet").notes)


def test_parquet_files_of_two_datasets_are_refused(root, load):
    write(root / "a.parquet", label=pa.array([0, 1, 0, 1]))
    write(root / "b.parquet", kind=pa.array([0, 1, 0, 1]))
    with pytest.raises(InputError, match=r"b\.parquet' has no column 'label', unlike .*a\.parquet'"):
        load(root)


def test_two_columns_of_images_are_told(tmp_path, load):
    mask = pa.array([encoded(noise(8, 8)) for _ in range(4)])
    write(tmp_path / "x.parquet", mask=mask)
    assert "the images are the column 'image'; not used: mask" in load(tmp_path / "x.parquet").notes


# npz

X = noise(6, 8, 8, 3)
ARRAYS = {
    "guided-diffusion": ({"arr_0": X, "arr_1": np.array([0, 1] * 3)}, ("0", "1")),
    "targets": ({"images": X, "targets": np.array([2, 10] * 3)}, ("2", "10")),
    "classes": ({"x": X, "classes": np.array(["a", "b"] * 3)}, ("a", "b")),
    "bytes": ({"x": X, "y": np.array([b"a", b"b"] * 3)}, ("a", "b")),
    "one-hot": ({"x": X, "y": np.eye(3)[[0, 1, 2] * 2]}, ("0", "1", "2")),
    "a column": ({"train_images": X, "train_labels": np.array([[0], [1]] * 3, np.uint8)}, ("0", "1")),
    "whole floats": ({"x": X, "y": np.array([0.0, 1.0] * 3)}, ("0", "1")),
    "bool": ({"x": X, "y": np.array([True, False] * 3)}, ("False", "True")),
    "another name": ({"photos": X, "kind": np.array([0, 1] * 3)}, ("0", "1")),
    "an array of objects beside": (
        {"x": X, "y": np.array([0, 1] * 3), "names": np.array([None, "b"], object)},
        ("0", "1"),
    ),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_labels_of_npz(tmp_path, load, kind):
    arrays, classes = ARRAYS[kind]
    np.savez(tmp_path / "x.npz", **arrays)
    data = load(tmp_path / "x.npz")
    assert (len(data), data.classes) == (6, classes)


def test_splits_of_npz(tmp_path, load):
    test, labels = noise(4, 8, 8, 3), np.array([0, 1] * 3)
    np.savez(tmp_path / "x.npz", x_test=test, x_train=X, y_train=labels, y_test=labels[:4])
    data = load(tmp_path / "x.npz")
    trained, held_out = split_held_out(data)
    assert (len(trained), len(held_out), data.classes) == (6, 4, ("0", "1"))
    assert held_out.labels(np.arange(4)).tolist() == [0, 1, 0, 1]
    assert "4 images of the held-out splits are not trained on: x_test" in data.notes


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.linspace(0, 1, 6), "the array 'y' of x.npz is a number with decimals"),
        (np.ones((6, 3), int), "the array 'y' of x.npz is a list of 3 labels (1, 1, 1)"),
    ],
)
def test_array_that_is_no_label_is_named(tmp_path, load, labels, says):
    np.savez(tmp_path / "x.npz", x=X, y=labels)
    data = load(tmp_path / "x.npz")
    assert (len(data), data.classes) == (6, ())
    assert says in data.no_classes


def test_user_names_the_array(tmp_path, load):
    np.savez(tmp_path / "x.npz", x=X, age=np.arange(6) % 2, kind=np.arange(6) % 3)
    assert "x.npz has the arrays x, age, kind; none is a label" in load(tmp_path / "x.npz").no_classes
    assert load(tmp_path / "x.npz", label_column="kind").classes == ("0", "1", "2")


# Memory


def test_labels_of_items_in_memory():
    images = noise(4, 8, 8, 3)
    whole = [(image, label) for image, label in zip(images, [0.0, 1.0] * 2, strict=True)]
    assert open_data(whole).classes == ("0", "1")
    one_hot = [(image, np.eye(3)[i % 3]) for i, image in enumerate(images)]
    assert labels_of(open_data(one_hot)) == ["0", "1", "2", "0"]
    dicts = [{"image": image, "Category": "ab"[i % 2], "kind": i} for i, image in enumerate(images)]
    assert open_data(dicts).classes == ("a", "b")
    assert open_data(dicts, label_column="kind").classes == ("0", "1", "2", "3")


# --classes


def test_classes_that_are_not_there_are_explained(root, monkeypatch):
    monkeypatch.chdir(root)
    write(root / "x.parquet", caption=pa.array(list("abcd")))
    with pytest.raises(InputError, match=r"--classes: x has none: the columns beside the images are caption; none is"):
        train(TrainConfig(data="x.parquet", classes=True))
    write(root / "y.parquet", label=pa.array(["a", "b", None, None]))
    with pytest.raises(InputError, match=r"--classes: y has none: 2 of 4 images have no label: row 2, row 3"):
        train(TrainConfig(data="y.parquet", classes=True))
    write(root / "z.parquet", label=pa.array(["a"] * 4))
    with pytest.raises(InputError, match=r"--classes: z has none: the labels have only one value, a"):
        train(TrainConfig(data="z.parquet", classes=True))
