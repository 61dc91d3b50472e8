"""Labels from files beside images, in folders, zips, tars and shards: images and classes as a person counts them."""

import json

import numpy as np
import pytest

from image_files import encoded, noise, put, write_tar, write_zip
from unnoise.data.sources.find import find
from unnoise.errors import InputError

NAMES = [f"{i:03}.png" for i in range(10)]
LABELS = ["red", "green"] * 5
CSV = "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in zip(NAMES, LABELS, strict=True))


def fill(root, files, names=NAMES):
    for name in names:
        put(root, name, noise(8, 8, 3))
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def pairs(names=NAMES, labels=LABELS):
    return [*zip(names, labels, strict=True)]


def labels_of(data):
    """Return the class of each image, None if it has none."""
    labels = data.labels(np.arange(len(data)))
    return None if labels is None else [data.classes[i] if i >= 0 else None for i in labels.tolist()]


def csv_of(rows, head="file_name,label", mark=","):
    return "\n".join(mark.join(map(str, row)) for row in [head.split(","), *rows]) + "\n"


READ = {
    "metadata.csv": {"metadata.csv": CSV},
    "metadata.jsonl": {
        "metadata.jsonl": "".join(json.dumps({"file_name": n, "text": "x", "label": v}) + "\n" for n, v in pairs())
    },
    "dataset.json of EDM": {"dataset.json": json.dumps({"labels": pairs()})},
    "list of records": {"labels.json": json.dumps([{"image": n, "class": v} for n, v in pairs()])},
    "{file: label}": {"labels.json": json.dumps(dict(pairs()))},
    "columns in json": {"labels.json": json.dumps({"file": NAMES, "label": LABELS})},
    "columns of pandas": {
        "labels.json": json.dumps({"file": dict(enumerate(NAMES)), "label": dict(enumerate(LABELS))})
    },
    "COCO": {
        "annotations.json": json.dumps(
            {
                "images": [{"id": i, "file_name": name} for i, name in enumerate(NAMES)],
                "annotations": [{"image_id": i, "category_id": len(v)} for i, v in enumerate(LABELS)],
                "categories": [{"id": 3, "name": "red"}, {"id": 5, "name": "green"}],
            }
        )
    },
    "semicolons, BOM, CRLF, capital letters": {
        "Labels.csv": "\ufeffFile Name;Class\r\n" + "".join(f"{n};{v}\r\n" for n, v in pairs())
    },
    "quotes and blanks": {"labels.csv": "id, label\n" + "".join(f'"{n}", "{v} "\n' for n, v in pairs())},
    "tabs": {"labels.tsv": csv_of(pairs(), mark="\t")},
    "UTF-16": {"labels.csv": CSV.encode("utf-16")},
    "without suffix": {"trainLabels.csv": csv_of([(name[:3], v) for name, v in pairs()], "id,label")},
    "other suffix": {"labels.csv": csv_of([(name[:3] + ".jpg", v) for name, v in pairs()])},
    "absolute paths": {"labels.csv": csv_of([(f"C:\\data\\{name}", v) for name, v in pairs()])},
    "no header": {"labels.csv": "".join(f"{n}, {v}\n" for n, v in pairs())},
    "lines of a file and a label": {"train.txt": "".join(f"./{n} {v}\n" for n, v in pairs())},
    "number of rows first": {"labels.csv": csv_of([(i, n, v) for i, (n, v) in enumerate(pairs())], ",image,label")},
    "one-hot columns": {
        "truth.csv": csv_of([(n[:3], float(v == "red"), float(v == "green")) for n, v in pairs()], "image,red,green")
    },
    "the same image twice, with the same label": {"metadata.csv": CSV + f"{NAMES[0]},red\n"},
    "a file of texts beside it": {
        "metadata.csv": CSV,
        "captions.csv": csv_of([(name, f"text {name}") for name in NAMES], "file_name,text"),
        "results.csv": "epoch,loss\n1,0.5\n",
    },
    "label beside each image": {f"{n[:3]}.cls": v for n, v in pairs()},
    "json beside each image": {f"{n[:3]}.json": json.dumps({"url": "x", "label": v}) for n, v in pairs()},
}


@pytest.mark.parametrize("kind", READ)
def test_labels_beside_images_of_a_folder(root, load, kind):
    fill(root, READ[kind])
    data = load(root)
    assert (len(data), data.classes) == (10, ("green", "red"))
    assert labels_of(data) == LABELS
    streamed = load(root, stream=True)
    assert (streamed.classes, labels_of(streamed)) == (data.classes, LABELS)


ARCHIVED = (
    "metadata.csv",
    "dataset.json of EDM",
    "absolute paths",
    "label beside each image",
    "json beside each image",
)


@pytest.mark.parametrize("kind", ARCHIVED)
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_labels_in_an_archive(tmp_path, load, suffix, kind):
    members = {f"set/{name}": encoded(noise(8, 8, 3)) for name in NAMES}
    members |= {f"set/{n}": c if isinstance(c, bytes) else c.encode() for n, c in READ[kind].items()}
    (write_zip if suffix == "zip" else write_tar)(tmp_path / f"x.{suffix}", members)
    data = load(tmp_path / f"x.{suffix}")
    assert (len(data), data.classes) == (10, ("green", "red"))
    assert labels_of(data) == LABELS
    if suffix == "tar":
        streamed = load(tmp_path / "x.tar", stream=True)
        assert (streamed.classes, labels_of(streamed)) == (data.classes, LABELS)


def test_dataset_json_wins_over_folders_that_are_no_classes(root, load):
    names = [f"0000{i // 5}/img{i:08}.png" for i in range(10)]
    fill(root, {"dataset.json": json.dumps({"labels": [[name, i % 3] for i, name in enumerate(names)]})}, names)
    data = load(root)
    assert data.classes == ("0", "1", "2")
    assert labels_of(data) == [str(i % 3) for i in range(10)]


def test_metadata_in_each_folder(root, load):
    names = [f"{part}/{i}.png" for part in ("one", "two") for i in range(4)]
    files = {f"{part}/metadata.csv": csv_of([(f"{i}.png", "ab"[i % 2]) for i in range(4)]) for part in ("one", "two")}
    fill(root, files, names)
    data = load(root)
    assert (data.classes, labels_of(data)) == (("a", "b"), list("abab" * 2))


def test_several_images_in_a_row(root, load):
    rows = [{"file_names": NAMES[:4], "label": "a"}, {"file_names": NAMES[4:], "label": "b"}]
    fill(root, {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    assert labels_of(load(root)) == ["a"] * 4 + ["b"] * 6


def test_metadata_parquet_beside_images(root, load):
    import pyarrow as pa
    import pyarrow.parquet as pq

    fill(root, {})
    pq.write_table(pa.table({"file_name": NAMES, "label": LABELS}), root / "metadata.parquet")
    assert labels_of(load(root)) == LABELS


def test_folders_that_say_the_same_keep_their_names(root, load):
    names = [f"{label}/{name}" for name, label in pairs()]
    fill(root, {}, names)
    before = load(root)
    (root / "labels.csv").write_text(csv_of([(name, int(name[0] == "r")) for name in names]))
    after = load(root)
    assert (after.classes, after.fingerprint) == (before.classes, before.fingerprint) != ((), "")


def test_a_table_of_some_images_does_not_replace_folders(root, load):
    names = [f"{label}/{name}" for name, label in pairs()]
    fill(root, {"labels.csv": csv_of([(name, i % 3) for i, name in enumerate(names[:6])])}, names)
    data = load(root)
    assert data.classes == ("green", "red")
    assert any("a class of 6 of 10 images: the folders are the classes" in note for note in data.notes)


def test_numbers_sort_by_value_and_whole_floats_are_numbers(root, load):
    fill(root, {"labels.csv": csv_of([(name, f"{i % 5 + 8}.0") for i, name in enumerate(NAMES)])})
    assert load(root).classes == ("8", "9", "10", "11", "12")


REFUSED = {
    "texts only": (
        csv_of([(n, f"a photo {n}", i) for i, n in enumerate(NAMES)], "file_name,text,width"),
        "metadata.csv has the columns file_name, text, width; none is a label: name one with --label-column",
    ),
    "regression": (
        csv_of([(n, i / 4) for i, n in enumerate(NAMES)]),
        "the column 'label' of metadata.csv is a number with decimals (0.25), and classes are whole numbers or names",
    ),
    "several labels for an image": (
        CSV + "000.png,green\n001.png,blue\n",
        "metadata.csv gives 2 images several labels (000.png: red and green, 001.png: green and blue)",
    ),
    "several labels in a row": (
        csv_of([(n, "cat|dog" if i == 3 else "cat" if i % 2 else "dog") for i, n in enumerate(NAMES)]),
        "the column 'label' of metadata.csv holds several labels in one row (cat|dog), and an image has one class",
    ),
    "one label": (csv_of([(n, "red") for n in NAMES]), "have only one value, red"),
    "other images": (
        csv_of([(f"x{n}", v) for n, v in pairs()]),
        "metadata.csv names none of the images; it has the columns file_name, label",
    ),
    "damaged": (b"file_name,label\n\x00\xff\n", "metadata.csv"),
    "several attributes": (
        csv_of([(n, int(i > 3), int(i > 5)) for i, n in enumerate(NAMES)], "image_id,smiling,young"),
        "metadata.csv has the columns image_id, smiling, young; none is a label",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_count_is_said(root, load, kind):
    content, says = REFUSED[kind]
    fill(root, {"metadata.csv": content})
    data = load(root)
    assert (len(data), data.classes) == (10, ())
    assert says in data.no_classes
    assert any(says in note for note in data.notes)


def test_ids_and_captions_are_no_classes(root, load):
    names = [f"{i}.png" for i in range(30)]
    fill(root, {"metadata.csv": csv_of([(name, f"id {name}") for name in names])}, names)
    data = load(root)
    assert data.classes == ()
    assert "have 30 different values for 30 images, as ids or captions have" in data.no_classes


def test_images_that_a_table_misses_and_names_that_are_not_there(root, load):
    rows = [*pairs()[:6], ("gone.png", "red")]
    fill(root, {"metadata.csv": csv_of(rows)})
    data = load(root)
    assert data.classes == ()
    assert "4 of 10 images have no label: 006.png, 007.png, 008.png, 009.png" in data.no_classes
    assert any("metadata.csv has 1 names of no image, or of several: gone.png" in n for n in data.notes)


def test_a_name_that_several_images_have_labels_none(root, load):
    names = ["a/1.png", "a/2.png", "b/1.png", "b/3.png"]
    fill(root, {"labels.csv": csv_of([("1.png", "x"), ("2.png", "x"), ("3.png", "y")])}, names)
    data = load(root)
    assert data.classes == ("a", "b")
    assert any("names a class of 2 of 4 images: the folders are the classes" in note for note in data.notes)


def test_tables_of_splits_belong_together_and_a_form_for_answers_does_not(root, load):
    rows = pairs()
    files = {"train.csv": csv_of(rows[:6]), "test.csv": csv_of(rows[6:])}
    fill(root, files | {"sample_submission.csv": csv_of([(name, "red") for name in NAMES])})
    data = load(root)
    assert labels_of(data) == LABELS
    assert "splits are read from folders, not from the names of tables: test.csv" in data.notes


def test_folders_that_are_classes_need_no_reason_why_a_table_is_none(root, load):
    fill(root, {"results.csv": "epoch,loss\n1,0.5\n"}, [f"{label}/{name}" for name, label in pairs()])
    data = load(root)
    assert (data.classes, data.no_classes) == (("green", "red"), "")
    assert not any(note.startswith("no classes") for note in data.notes)


# --label-column


def test_the_user_names_the_column(root, load):
    fill(root, {"metadata.csv": csv_of([(n, v, "x") for n, v in pairs()], "file_name,colour,label")})
    assert load(root).classes == ()
    data = load(root, label_column="colour")
    assert (data.classes, labels_of(data)) == (("green", "red"), LABELS)
    assert load(root).classes == ()  # each has its own cache
    with pytest.raises(InputError, match=r"'color'; did you mean 'colour'\? Known: colour, label"):
        load(root, label_column="color")


def test_a_column_of_data_without_columns(root, load):
    fill(root, {})
    with pytest.raises(InputError, match=r"--label-column 'x': no file in .* holds labels"):
        load(root, label_column="x")
    with pytest.raises(InputError, match="a built-in dataset has no columns"):
        find("faces", "x")
    np.save(root / "x.npy", noise(3, 8, 8))
    with pytest.raises(InputError, match="one array has no columns"):
        load(root / "x.npy", label_column="x")


def test_the_field_of_a_tar_sample(tmp_path, load):
    members = {}
    for i in range(6):
        members |= {f"{i}.png": encoded(noise(8, 8)), f"{i}.txt": b"a caption"}
        members[f"{i}.json"] = json.dumps({"url": "x", "kind": "ab"[i % 2], "width": i}).encode()
    write_tar(tmp_path / "x.tar", members)
    data = load(tmp_path / "x.tar")
    assert data.classes == ()
    assert "the .json files have the fields url, kind, width; none is a label: name one" in data.no_classes
    for stream in (False, True):
        assert labels_of(load(tmp_path / "x.tar", label_column="kind", stream=stream)) == list("ababab")


def test_a_table_of_splits_is_no_label(root, load):
    for i in range(12):
        put(root, f"img_align_celeba/{i:06}.jpg", noise(8, 8, 3), "JPEG")
    rows = "".join(f"{i:06}.jpg {i // 4}\n" for i in range(12))
    (root / "list_eval_partition.txt").write_text(rows)
    data = load(root)
    assert data.classes == ()
    assert any("list_eval_partition.txt divides the images into splits" in note for note in data.notes)
    assert load(root, label_column="column 2").classes == ("0", "1", "2")
    (root / "list_eval_partition.txt").rename(root / "labels.txt")
    assert load(root).classes == ("0", "1", "2")
    (root / "train_split.txt").write_text(rows.replace(" 2", " 3"))
    (root / "labels.txt").unlink()
    assert load(root).classes == ("0", "1", "3")
    (root / "train_split.txt").unlink()
    (root / "split.csv").write_text("file,label\n" + rows.replace(" ", ","))
    assert load(root).classes == ("0", "1", "2")
