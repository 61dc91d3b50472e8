"""Images in memory give the same pixels and labels as the same images on a disk."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from unnoise.data import faces, open_data
from unnoise.data.sources.find import find
from unnoise.errors import InputError

COUNT = 6
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 12, 10, 3), dtype=np.uint8)
LABELS = ["cat", "dog", "cat", "ant", "dog", "ant"]
NUMBERS = [sorted({*LABELS}).index(label) for label in LABELS]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))


class Items:
    """A map-style dataset of the items of a list."""

    def __init__(self, items, **facts):
        self.items = items
        self.__dict__.update(facts)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class ClassLabel:
    names = ("ant", "cat", "dog")


class HuggingFace(Items):
    """The part of the interface of `datasets.Dataset` that unnoise uses."""

    def __init__(self, items):
        feature = type("Image", (), {})()
        super().__init__(items, features={"picture": feature, "kind": ClassLabel()}, column_names=["picture", "kind"])


def pil(images=IMAGES):
    return [Image.fromarray(image) for image in images]


def tensors():
    return torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def png(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(COUNT)]
    for path, image in zip(paths, pil(), strict=True):
        image.save(path)
    return paths


def saved(folder: Path) -> str:
    np.save(folder / "x.npy", IMAGES)
    return str(folder / "x.npy")


def png_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in png(folder / "p")]


PLAIN = {
    "folder": lambda folder: png(folder / "p")[0].parent,
    "npy": saved,
    "channels last": lambda _: IMAGES,
    "channels first": lambda _: IMAGES.transpose(0, 3, 1, 2),
    "floats": lambda _: IMAGES / 255,
    "signed floats": lambda _: IMAGES / np.float32(127.5) - 1,
    "tensor": lambda _: tensors(),
    "tensor that needs gradients": lambda _: (tensors() / 255).requires_grad_(),
    "torch dataset": lambda _: Items([*tensors()]),
    "torch dataset of floats": lambda _: TensorDataset(tensors() / 127.5 - 1),
    "torch dataset of dicts": lambda _: Items([{"image": image} for image in IMAGES]),
    "subset": lambda _: Subset(TensorDataset(tensors()), range(COUNT)),
    "paths": lambda folder: [*map(str, png(folder / "p"))],
    "pathlike": lambda folder: tuple(png(folder / "p")),
    "PIL images": lambda _: pil(),
    "arrays": lambda _: [*IMAGES],
    "channels first in a list": lambda _: [*IMAGES.transpose(0, 3, 1, 2)],
    "encoded": png_bytes,
    "source": lambda folder: find(saved(folder)),
    "dataset": lambda folder: open_data(saved(folder)),
    "part": lambda _: open_data(np.concatenate([IMAGES[3:], IMAGES[:3]])).part([3, 4, 5, 0, 1, 2]),
}
LABELLED = {
    "paths": lambda folder: [*zip(png(folder / "p"), LABELS, strict=True)],
    "PIL images": lambda _: [*zip(pil(), LABELS, strict=True)],
    "arrays": lambda _: [*zip(IMAGES, LABELS, strict=True)],
    "named classes": lambda _: Items([*zip(pil(), NUMBERS, strict=True)], classes=["ant", "cat", "dog"]),
    "tensor labels": lambda _: Items(
        [*zip(tensors(), torch.tensor(NUMBERS), strict=True)], classes=["ant", "cat", "dog"]
    ),
    "dicts": lambda _: Items([{"img": x, "label": y} for x, y in zip(pil(), LABELS, strict=True)]),
    "Hugging Face": lambda _: HuggingFace([{"picture": x, "kind": y} for x, y in zip(pil(), NUMBERS, strict=True)]),
    "Hugging Face, encoded": lambda folder: HuggingFace(
        [{"picture": {"bytes": x, "path": None}, "kind": y} for x, y in zip(png_bytes(folder), NUMBERS, strict=True)]
    ),
    "Hugging Face, paths": lambda folder: HuggingFace(
        [
            {"picture": {"bytes": None, "path": str(x)}, "kind": y}
            for x, y in zip(png(folder / "p"), NUMBERS, strict=True)
        ]
    ),
    "dataset": lambda _: open_data([*zip(IMAGES, LABELS, strict=True)]),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_the_same_images_give_the_same_pixels(tmp_path, kind):
    data = open_data(PLAIN[kind](tmp_path))
    assert (data.mode, data.shape, len(data), data.classes) == ("RGB", (3, 12, 10), COUNT, ())
    np.testing.assert_array_equal(data.read(np.arange(COUNT)), IMAGES.transpose(0, 3, 1, 2))
    assert data.labels(np.arange(COUNT)) is None
    if kind != "part":
        assert data.fingerprint == open_data(IMAGES).fingerprint


@pytest.mark.parametrize("kind", LABELLED)
def test_the_same_labels_give_the_same_classes(tmp_path, kind):
    data = open_data(LABELLED[kind](tmp_path))
    np.testing.assert_array_equal(data.read(np.arange(COUNT)), IMAGES.transpose(0, 3, 1, 2))
    assert data.classes == ("ant", "cat", "dog")
    assert data.labels(np.arange(COUNT)).tolist() == NUMBERS
    assert data.fingerprint == open_data([*zip(pil(), LABELS, strict=True)]).fingerprint


@pytest.mark.parametrize("kind", PLAIN)
def test_keys_are_of_the_content(tmp_path, kind):
    first = find(PLAIN[kind](tmp_path)).key
    assert find(PLAIN[kind](tmp_path)).key == first or kind in ("folder", "npy", "paths", "pathlike", "source")


@pytest.mark.parametrize(
    "change",
    [lambda x: x.__setitem__((3, 2, 1, 0), x[3, 2, 1, 0] ^ 1), lambda x: x.__setitem__(slice(0, 2), x[[1, 0]])],
    ids=["a pixel", "the order"],
)
@pytest.mark.parametrize(
    "wrap", [lambda x: x, list, pil, torch.from_numpy, lambda x: Items([*zip(x, LABELS, strict=True)])]
)
def test_changed_content_has_another_key_and_fingerprint(change, wrap):
    changed = IMAGES.copy()
    change(changed)
    assert find(wrap(changed)).key != find(wrap(IMAGES)).key
    assert open_data(wrap(changed)).fingerprint != open_data(wrap(IMAGES)).fingerprint


def test_changed_labels_have_another_key_and_fingerprint():
    one, two = ([*zip(IMAGES, labels, strict=True)] for labels in (LABELS, LABELS[::-1]))
    assert find(one).key != find(two).key
    assert open_data(one).fingerprint != open_data(two).fingerprint


def test_names():
    assert [open_data(data).name for data in (IMAGES, tensors(), [*IMAGES], pil(), Items([*IMAGES]))] == [
        "array",
        "array",
        "images",
        "images",
        "dataset",
    ]


@pytest.mark.parametrize("kind", [np.uint16, bool])
def test_other_types_of_pixels(kind):
    array = (IMAGES[..., 0] > 127).astype(kind) if kind is bool else IMAGES[..., 0].astype(kind) * 257
    expected = array.astype(np.uint8) * 255 if kind is bool else array
    for data in (array, torch.from_numpy(array), [*array], Items([*array])):
        np.testing.assert_array_equal(open_data(data).read(np.arange(COUNT))[:, 0], expected)


def test_bfloat16():
    tensor = torch.tensor([0.0, 1.0], dtype=torch.bfloat16)[:, None, None].expand(2, 8, 8)
    for data in (tensor, [*tensor], TensorDataset(tensor)):
        assert open_data(data).read(np.arange(2))[:, 0, 0, 0].tolist() == [0, 255]


def test_one_span_counts_for_all_images():
    bright, dark = np.full((8, 8), 0.5), np.full((8, 8), -0.5)
    for data in ([bright, dark], np.stack([bright, dark]), Items([bright, dark])):
        assert open_data(data).read(np.arange(2))[:, 0, 0, 0].tolist() == [191, 64]


def test_images_of_different_sizes_and_modes():
    sizes = [IMAGES[0], IMAGES[1, :8, :9], IMAGES[2, ..., 0]]
    for data in (sizes, Items(sizes), pil(sizes)):
        opened = open_data(data, size=(16, 24))
        assert (opened.mode, opened.shape, len(opened)) == ("RGB", (3, 24, 16), 3)
        assert "converted 1 gray to RGB" in opened.notes
    assert open_data(sizes).shape == (3, 64, 64)


def test_many_channels():
    six = np.concatenate([IMAGES, IMAGES], axis=-1)
    for data in (six, [*six], Items([*six.transpose(0, 3, 1, 2)])):
        opened = open_data(data)
        assert (opened.mode, opened.shape) == ("", (6, 12, 10))


def test_images_are_turned_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pil()[0].save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(open_data([image])[0][0], open_data([tmp_path / "a.png"])[0][0])
    assert open_data([tmp_path / "a.png"]).shape == (3, 10, 12)


def test_broken_images_are_skipped_and_named(tmp_path):
    paths = png(tmp_path / "p")
    paths[2].write_bytes(paths[2].read_bytes()[:90])
    (note,) = [note for note in open_data(paths).notes if "skipped" in note]
    assert note.startswith("skipped 1 of 6 files: ")
    assert "2.png (truncated)" in note
    with Image.open(paths[2]) as image:
        assert "image 1 (truncated)" in open_data([pil()[0], image]).notes[0]
    assert (
        "image 0 (no image in this item)"
        in open_data(
            HuggingFace([{"picture": None, "kind": 0}] + [{"picture": image, "kind": 1} for image in pil()])
        ).notes[0]
    )


def test_missing_labels():
    items = [(IMAGES[0], 0), (IMAGES[1], -1), (IMAGES[2], 1)]
    assert "no classes: 1 of 3 images have no label" in open_data(items).notes
    assert open_data([(x, None) for x in IMAGES]).classes == ()
    assert open_data([(x, i % 11) for i, x in enumerate([*IMAGES] * 2)]).classes == tuple(map(str, range(11)))


def test_a_function_that_returns_a_source():
    assert open_data(partial(faces, count=3)).fingerprint == open_data("faces:count=3").fingerprint


def test_an_opened_dataset_is_returned_or_decoded_anew():
    data = open_data(IMAGES)
    assert open_data(data) is data
    assert open_data(data, size="10x12", channels=3, limit=6) is data
    assert open_data(data, size=8).shape == (3, 8, 8)
    assert len(open_data(data, limit=2)) == 2
    part = open_data(data[2:5])
    assert part.fingerprint == open_data(IMAGES[2:5]).fingerprint != data.fingerprint


class Endless(IterableDataset):
    def __iter__(self):
        return iter(IMAGES)


WRONG = {
    "nothing": ([], "an empty list"),
    "no images": (IMAGES[:0], r"shape \(0, 12, 10, 3\)"),
    "empty dataset": (Items([]), "an empty Items"),
    "none": (None, "of type NoneType has no length"),
    "number": (5, "of type int"),
    "generator": ((image for image in IMAGES), "of type generator has no length"),
    "iterable dataset": (Endless(), "of type Endless has no length"),
    "loader": (DataLoader(Items(pil())), "loader.dataset"),
    "splits": ({"train": Items(pil())}, "dict of 'train'; give one of its values"),
    "one image": (pil()[0], r"one PIL image; give a list"),
    "one gray image": (IMAGES[0, ..., 0], r"shape \(12, 10\)"),
    "five axes": (IMAGES[None], r"shape \(1, 6, 12, 10, 3\)"),
    "objects": (np.array([None, 1]), "Python objects"),
    "text in an array": (np.array(["a.png", "b.png"]), "text; give pixels, or a list of paths"),
    "complex": (IMAGES * 1j, "the array holds complex128"),
    "nan": (np.full((2, 8, 8), np.nan), "row 0 .holds numbers that are not finite"),
    "nan of items": ([IMAGES[1] * np.nan], "image 0 .holds numbers that are not finite"),
    "mixed kinds": ([*pil(), IMAGES[0]], "image 6 is an array, and those before it are a PIL image"),
    "mixed types": ([IMAGES[0], IMAGES[0] / 255], "image 1 holds float64, and those before it hold uint8"),
    "mixed channels": ([np.zeros((8, 9, 6), np.uint8), np.zeros((8, 9, 5), np.uint8)], "image 1 has 5 channels"),
    "flat": ([np.zeros(8, np.uint8)], r"image 0 has shape \(8,\)"),
    "numbers": ([1, 2], "item 0 is of type int"),
    "nested lists": ([[[0, 1], [2, 3]]], "item 0 is of type list"),
    "triples": ([(IMAGES[0], 1, 2)], r"item 0 is a tuple of 3; items are images or \(image, label\)"),
    "labels that are floats": ([(IMAGES[0], 0.5)], "item 0 has a label of type float"),
    "labels that are vectors": ([(IMAGES[0], np.zeros(3))], r"item 0 has a label of shape \(3,\)"),
    "label without a name": (Items([(IMAGES[0], 2)], classes=["a", "b"]), "label 2, and there are 2 classes: 'a', 'b'"),
    "dicts without image": (Items([{"x": 1}]), "item 0 has the keys 'x'; the image is expected under 'image'"),
    "columns without image": (Items([{}], features={"a": 1, "b": 2}), "no column of images in the dataset; .* a, b"),
    "missing path": (["nowhere/a.png"], "item 0 is the path 'nowhere/a.png', which is not there"),
    "folder in a list": (["."], "item 0 is the path '.', which is a folder; give the folder alone"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_data_gives_one_line(kind):
    data, words = WRONG[kind]
    with pytest.raises(InputError, match=words) as caught:
        open_data(data)
    assert "\n" not in str(caught.value)


def test_memory_is_not_streamed():
    with pytest.raises(InputError, match="array can only be decoded first"):
        open_data(IMAGES, stream=True)
