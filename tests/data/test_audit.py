"""The audit by `unnoise data`, on a folder in which everything is known."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from unnoise.cli import main
from unnoise.data.audit import audit_data, format_audit

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
    assert said.splitlines() == format_audit(found)
    assert "largest class has 4 times" in said


def test_a_set_drawn_by_unnoise_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    assert main(["data", "faces:count=30"]) == 0
    assert "0 are exact copies of another image, 0 are near copies" in capsys.readouterr().out


def test_mistakes_are_named(tmp_path, capsys):
    assert main(["data", str(tmp_path / "nowhere")]) == 2
    assert "no data at" in capsys.readouterr().err
