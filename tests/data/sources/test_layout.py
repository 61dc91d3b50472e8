"""Splits and classes in folders and archives, as a person would count them."""

import shutil

import numpy as np
import pytest

from image_files import encoded, everything, noise, put, write_tar, write_zip
from unnoise.data.dataset import split_held_out
from unnoise.data.sources.find import find
from unnoise.data.sources.layout import FolderCount, split_kind
from unnoise.errors import InputError

KINDS = ["folder", "folder streamed", "zip", "tar", "tar streamed", "tar.gz", "zip inside"]


def stored(tmp_path, load, names, kind):
    """Store one image under each name in a folder or archive, and open it."""
    names = [f"whole/{name}" for name in names] if kind == "zip inside" else names
    members = {name: encoded(np.full((8, 8), i, np.uint8)) for i, name in enumerate(names)}
    kind, _, how = kind.partition(" ")
    path = tmp_path / ("set" if kind == "folder" else f"set.{kind}")
    if kind == "folder":
        shutil.rmtree(path, ignore_errors=True)
        for name, content in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    else:
        (write_zip if kind == "zip" else write_tar)(path, members)
    return load(path, stream=how == "streamed")


def described(data):
    """Return the numbers of the images to train on and of the held-out ones, and the label of each."""
    found = []
    for part in split_held_out(data):
        numbers, labels = everything(part)[:, 0, 0, 0].tolist(), part.labels(np.arange(len(part)))
        names = [None] * len(part) if labels is None else [data.classes[i] if i >= 0 else None for i in labels]
        found.append(dict(sorted(zip(numbers, names, strict=True))))
    return found


def files(*folders, each=2):
    return [f"{folder}/{i}.png" for folder in folders for i in range(each)]


SPLITS = files("test/cat", "test/dog", "train/cat", "train/dog", "val/cat", "val/dog")
TRAINED, HELD_OUT = [4, 5, 6, 7], [0, 1, 2, 3, 8, 9, 10, 11]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["plain", "capitals", "one folder around", "class above", "words"])
def test_splits_are_no_classes(tmp_path, load, kind, change):
    names = {
        "plain": SPLITS,
        "capitals": [name.replace("train", "Train").replace("test", "TEST") for name in SPLITS],
        "one folder around": [f"pets/images/{name}" for name in SPLITS],
        "class above": [f"{b}/{a}/{c}" for a, b, c in (name.split("/") for name in SPLITS)],
        "words": [f"seg_{name}" for name in SPLITS],
    }[change]
    data = stored(tmp_path, load, names, kind)
    assert data.classes == ("cat", "dog")
    trained, held_out = described(data)
    assert trained == dict(zip(TRAINED, ["cat", "cat", "dog", "dog"], strict=True))
    assert held_out == dict(zip(HELD_OUT, ["cat", "cat", "dog", "dog"] * 2, strict=True))
    if change == "plain":
        assert "train/: 4 images are trained on; test/, val/: 8 images are held out" in data.notes


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_named_like_a_split_stays_a_class(tmp_path, load, kind):
    for folders in (["cat", "dog", "test"], ["bus", "car", "train"], ["val", "cat"]):
        data = stored(tmp_path, load, files(*folders, each=3), kind)
        assert data.classes == tuple(sorted(folders))
        assert data.held_out is None


def test_splits_without_classes(tmp_path, load):
    data = stored(tmp_path, load, ["train/0.png", "train/1.png", "test/0.png"], "folder")
    assert (data.classes, [len(part) for part in split_held_out(data)]) == ((), [2, 1])


def test_a_test_split_without_labels_keeps_the_classes_of_the_others(tmp_path, load):
    data = stored(tmp_path, load, [*files("train/cat", "train/dog"), *files("test1", each=5)], "zip")
    assert data.classes == ("cat", "dog")
    assert described(data) == [{0: "cat", 1: "cat", 2: "dog", 3: "dog"}, dict.fromkeys(range(4, 9))]


def test_labels_of_held_out_images_alone_are_no_classes(tmp_path, load):
    data = stored(tmp_path, load, files("train/cat", "train/dog", "test/cat", "test/yak"), "folder")
    assert data.classes == ("cat", "dog")
    assert described(data)[1] == {4: "cat", 5: "cat", 6: None, 7: None}
    assert "only held-out images have these labels, which are no classes: yak" in data.notes


def test_a_split_alone_is_all_there_is(tmp_path, load):
    for split in ("train", "test"):
        data = stored(tmp_path, load, files(f"{split}/cat", f"{split}/dog", each=20), "folder")
        assert (data.classes, data.held_out) == (("cat", "dog"), None)
        assert f"{split}/: 40 images are trained on; there is no other split" in data.notes
        assert [len(part) for part in split_held_out(data)] == [36, 4]


def test_folders_beside_the_splits_are_left_out_and_named(tmp_path, load):
    names = files("train/good", "test/good", "test/bad", "ground_truth/bad")
    data = stored(tmp_path, load, ["cover.png", *names], "folder")
    assert [len(part) for part in split_held_out(data)] == [2, 4]
    assert any(
        "left out 3 images that belong to no split: ground_truth/ 2, beside the splits 1" in note for note in data.notes
    )


@pytest.mark.parametrize("kind", KINDS)
def test_splits_inside_classes_next_to_masks(tmp_path, load, kind):
    folders = [
        f"{a}/{b}" for a in ("bottle", "cable") for b in ("train/good", "test/good", "test/bad", "ground_truth/bad")
    ]
    data = stored(tmp_path, load, files(*folders), kind)
    assert data.classes == ("bottle", "cable")
    trained, held_out = described(data)
    assert trained == {0: "bottle", 1: "bottle", 8: "cable", 9: "cable"}
    assert [*held_out] == [2, 3, 4, 5, 10, 11, 12, 13]
    assert not [note for note in data.notes if "masks and are trained on" in note]


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_inside_a_split_of_the_same_name_is_no_class(tmp_path, load, kind):
    folders = [f"seg_{split}/seg_{split}/{name}" for split in ("test", "train") for name in ("ice", "sea")]
    data = stored(tmp_path, load, [*files(*folders), *files("seg_pred/seg_pred")], kind)
    assert data.classes == ("ice", "sea")
    assert described(data) == [{4: "ice", 5: "ice", 6: "sea", 7: "sea"}, {0: "ice", 1: "ice", 2: "sea", 3: "sea"}]


def test_splits_of_several_families_are_splits_if_each_is_whole(tmp_path, load):
    data = stored(tmp_path, load, files("trainA", "trainB", "testA", "testB", each=3), "folder")
    assert [len(part) for part in split_held_out(data)] == [6, 6]
    assert "trainA/, trainB/: 6 images are trained on; testA/, testB/: 6 images are held out" in data.notes
    data = stored(tmp_path, load, files("train_station", "test_tube", "cat", each=3), "folder")
    assert data.classes == ("cat", "test_tube", "train_station")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train", False),
        ("Training", False),
        ("trainset", False),
        ("training_set", False),
        ("train2017", False),
        ("trainval", False),
        ("PublicTest", True),
        ("test1", True),
        ("held-out", True),
        ("validation", True),
        ("VAL", True),
        ("valley", None),
        ("strain", None),
        ("contest", None),
        ("cat", None),
    ],
)
def test_names_of_splits(name, kind):
    assert split_kind(name) is kind


def test_the_own_split_is_held_out_by_default_in_part_or_not_measured(tmp_path, load, monkeypatch):
    data = stored(tmp_path, load, [*files("train", each=5), *files("test", each=6)], "folder")
    for wanted, held in ((None, 6), (0, 0), (3, 3)):
        trained, held_out = split_held_out(data, wanted)
        assert sorted(everything(trained)[:, 0, 0, 0].tolist()) == [0, 1, 2, 3, 4]
        assert len(held_out) == held
        if held:
            assert {*everything(held_out)[:, 0, 0, 0].tolist()} <= {5, 6, 7, 8, 9, 10}
    with pytest.raises(InputError, match="takes 0 to 6, the images in the held-out splits"):
        split_held_out(data, 7)
    monkeypatch.setattr("unnoise.data.dataset.MAX_HELD_OUT", 4)
    assert [len(part) for part in split_held_out(data)] == [5, 4]
    first = load(tmp_path / "set", limit=3)
    assert [len(part) for part in split_held_out(first)] == [3, 0]  # the images to train on come first
    packed = stored(tmp_path, load, [*files("test", each=6), *files("train", each=5)], "tar.gz")
    assert len(packed) == 11
    with pytest.raises(InputError, match="all 4 images of set that are used belong to held-out splits"):
        split_held_out(load(tmp_path / "set.tar.gz", limit=4))


def test_the_split_is_part_of_the_fingerprint_and_is_read_again(tmp_path, load):
    names = [*files("train", each=5), *files("test", each=6)]
    prints = {stored(tmp_path, load, names, kind).fingerprint for kind in ("folder", "folder", "zip")}
    other = stored(tmp_path, load, [name.replace("test", "train/x") for name in names], "folder").fingerprint
    assert len(prints) == 1
    assert other not in prints
    again = load(load(tmp_path / "set.zip"), size="9x9")
    assert [len(part) for part in split_held_out(again)] == [5, 6]


# Strays


@pytest.mark.parametrize("kind", ["folder", "folder streamed", "zip", "tar", "tar.gz"])
def test_a_stray_image_beside_class_folders_keeps_the_classes(tmp_path, load, kind):
    data = stored(tmp_path, load, ["cover.png", *files("cat", "dog", each=4)], kind)
    assert data.classes == ("cat", "dog")
    labels = data.labels(np.arange(9)).tolist()
    assert sorted(labels) == [-1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert labels[everything(data)[:, 0, 0, 0].tolist().index(0)] == -1
    if "streamed" not in kind:
        assert "without a class, and trained on without one: 1 of 9 images: cover.png" in data.notes


def test_many_images_without_a_class_are_named(tmp_path, load):
    data = stored(tmp_path, load, ["0.png", "1.png", *files("cat", "dog", each=1)], "folder")
    assert data.classes == ()
    assert any(note.startswith("images without a label: 0.png, 1.png; put each") for note in data.notes)


def test_a_class_none_of_whose_images_can_be_read_is_named(root, load):
    for name in files("cat", "dog"):
        put(root, name, noise(8, 8))
    (root / "yak").mkdir()
    (root / "yak" / "1.png").write_bytes(b"nothing")
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert "none of the images can be read of the classes: yak" in data.notes


# Names


@pytest.mark.parametrize("stream", [False, True])
def test_one_name_in_two_unicode_forms_is_one_class(root, load, stream):
    for name in ("caf\u00e9/1.png", "cafe\u0301/2.png", "tea/3.png"):
        put(root, name, noise(8, 8))
    data = load(root, stream=stream)
    assert data.classes == ("caf\u00e9", "tea")
    assert sorted(data.labels(np.arange(3)).tolist()) == [0, 0, 1]


def test_names_that_differ_in_case_or_blanks_only_are_named(root, load):
    for name in ("Cat/1.png", "cat/1.png", "cat /1.png", "dog/1.png"):
        put(root, name, noise(8, 8))
    for stream in (False, True):
        data = load(root, stream=stream)
        assert data.classes == ("Cat", "cat", "cat ", "dog")
        assert any("differ in capital letters or blanks only: 'Cat', 'cat', 'cat '" in note for note in data.notes)


def test_without_splits_the_class_is_the_top_folder(root, load):
    counted = FolderCount()
    for parts in (("a", "x", "1.png"), ("b", "2.png")):
        counted.add(parts)
    layout = counted.layout()
    assert layout.split is None
    assert [layout.place(folders).label for folders in (("a", "x"), ("b",), ())] == ["a", "b", None]
    assert counted.notes(layout) == []
    put(root, "dog/1.png", noise(8, 8))
    assert [item.label for item in find(root).items()] == ["dog"]
