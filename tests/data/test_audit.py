"""The audit by `unnoise data`, on a folder in which everything is known."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from unnoise.cli import main
from unnoise.data import audit
from unnoise.data.audit import audit_data, format_audit
from unnoise.data.dataset import Dataset
from unnoise.evaluation.mirrored import describe_mirrored
from unnoise.training.expected import expected_of_data

RNG = np.random.default_rng(0)


def photo(size=(24, 24)):
    """Return an image of soft colours, which JPEG changes little."""
    coarse = Image.fromarray(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def compressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    for label, count in (("cat", 40), ("dog", 10)):
        (root / label).mkdir(parents=True)
        for i in range(count):
            photo().save(root / label / f"{i:02d}.png")
    first = Image.open(root / "cat" / "00.png")
    first.save(root / "dog" / "copy.png")
    first.save(root / "dog" / "copy of copy.png")
    compressed(Image.open(root / "cat" / "01.png")).save(root / "cat" / "near.png")
    photo((24, 36)).save(root / "cat" / "tall.png")
    photo().convert("L").save(root / "cat" / "gray.png")
    (root / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (root / "notes.txt").write_text("no image")
    return root


def test_everything_is_counted(folder):
    found = audit_data(str(folder), lambda *_: None)
    assert found["files"] == 56
    assert found["broken"]["count"] == 1
    assert "broken.png" in found["broken"]["examples"][0]
    assert found["ignored"] == {".txt": 1}
    assert found["modes"] == {"RGB": 54, "L": 1}
    assert found["sizes"] == {"24x24": 54, "24x36": 1}
    assert found["shapes"] == {"square": 54, "tall": 1}
    assert found["classes"] == {"cat": 43, "dog": 12}


def test_copies_are_found_and_only_they(folder):
    twice = audit_data(str(folder), lambda *_: None)["duplicates"]
    assert twice["same"] == 2
    assert twice["near"] == 1
    assert 0 <= twice["parted"] <= 4
    assert len(twice["examples"]) == 4


def test_many_copies_of_one_are_copies_and_not_nearly(folder):
    one = (folder / "cat" / "02.png").read_bytes()
    for i in range(10):
        (folder / "dog" / f"again {i}.png").write_bytes(one)
    twice = audit_data(str(folder), lambda *_: None)["duplicates"]
    assert (twice["same"], twice["near"]) == (12, 1)


def test_pairs_that_a_split_would_part_are_counted(folder):
    """Every image is there twice, and a tenth is held out, so most of the twins are trained on."""
    for path in list(folder.rglob("*.png")):
        if path.name != "broken.png":
            path.with_name(f"twin {path.name}").write_bytes(path.read_bytes())
    assert audit_data(str(folder), lambda *_: None)["duplicates"]["parted"] >= 8


def test_command_says_it_and_writes_it(folder, tmp_path, capsys):
    assert main(["data", str(folder), "--json", str(tmp_path / "found.json")]) == 0
    said = capsys.readouterr().out
    for text in (
        "55 of 56 files can be read",
        "cat 43",
        "2 are exact copies of another image, 1 are near copies",
        "broken.png",
        ".txt 1",
    ):
        assert text in said
    found = json.loads((tmp_path / "found.json").read_text())
    mirrored = describe_mirrored(found["mirrored"])
    assert said.splitlines() == [*format_audit(found), *mirrored, *expected_of_data(found)]
    assert "largest class has 4 times" in said


def test_a_set_drawn_by_unnoise_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    assert main(["data", "faces:count=30"]) == 0
    assert "0 are exact copies of another image, 0 are near copies" in capsys.readouterr().out


def test_mistakes_are_named(tmp_path, capsys):
    assert main(["data", str(tmp_path / "nowhere")]) == 2
    assert "no data at" in capsys.readouterr().err


class Pixels:
    """A store of images in memory."""

    groups, room = None, 0

    def __init__(self, pixels):
        self.all = pixels

    def pixels(self, rows, among=None):
        return self.all[rows]

    def labels(self, rows):
        return np.full(len(rows), -1)

    def news(self):
        return []


def in_memory(pixels):
    return Dataset(Pixels(pixels), "x", "RGB", pixels.shape[1:], len(pixels), (), "", ())


def test_blocks_and_rounding_change_no_pair(monkeypatch):
    """Half of the images are another one with noise about as large as the limit."""
    some = RNG.integers(0, 256, (150, 3, 16, 16))
    noisy = some + RNG.normal(0, 1, some.shape) * RNG.uniform(7, 8.5, (150, 1, 1, 1))
    dataset = in_memory(np.concatenate([some, noisy.clip(0, 255)]).astype(np.uint8))
    x = audit.scaled_down(dataset, np.arange(300)).double()
    distances = (x[:, None] - x[None]).square().mean(2).sqrt().triu(1)
    truth = ((distances > 0) & (distances < audit.NEAR_RMS)).nonzero().tolist()
    assert 30 < len(truth) < 140
    monkeypatch.setattr(audit, "MATRIX_ROWS", 64)
    monkeypatch.setattr(audit, "PAIRS_AT_ONCE", 7)
    rounded, _ = audit.small_copies(dataset, lambda *_: None)
    found = audit.near_pairs(rounded, np.arange(300), lambda rows: audit.scaled_down(dataset, rows), lambda *_: None)
    assert [list(pair) for pair in found] == truth


def test_many_exact_copies_do_not_hide_a_near_copy():
    pixels = np.full((502, 3, 16, 16), 9, np.uint8)  # 124,750 pairs of copies
    pixels[500:] = RNG.integers(0, 250, (3, 16, 16))
    pixels[501] += 1
    twice = audit.find_duplicates(in_memory(pixels), lambda *_: None)
    assert (twice["same"], twice["near"]) == (499, 1)


def test_memory_is_less_than_a_kilobyte_an_image_and_few_pairs_at_a_time(monkeypatch):
    asked, candidates = [], audit.candidates
    monkeypatch.setattr(audit, "candidates", lambda *a: asked.append(len(a[1]) * len(a[2])) or candidates(*a))
    dataset = in_memory(RNG.integers(0, 256, (2_100, 3, 32, 32), dtype=np.uint8))
    arrays = audit.small_copies(dataset, lambda *_: None)
    assert sum(array.nbytes for array in arrays) < 1_000 * len(dataset)
    audit.find_duplicates(dataset, lambda *_: None)
    assert len(asked) == 6
    assert max(asked) == 1_000_000
