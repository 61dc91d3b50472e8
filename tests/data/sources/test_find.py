"""The right reader for each kind of data, and one clear line if there is none."""

import os
from pathlib import Path

import pytest

from image_files import everything, noise, put
from unnoise.errors import InputError


def test_missing_path_names_the_nearest(root, load):
    with pytest.raises(InputError, match=r"did you mean '.*photos'"):
        load(root.parent / "photo")
    with pytest.raises(InputError, match="did you mean 'faces'"):
        load("facse")
    with pytest.raises(InputError, match="no data given"):
        load("")


def test_unknown_file(root, load):
    (root / "a.mov").write_text("x")
    with pytest.raises(InputError, match="is text, not an image; unnoise reads a folder"):
        load(root / "a.mov")
    with pytest.raises(InputError, match="is one image"):
        load(put(root, "a.png", noise(8, 8)))


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "npy", "npz", "parquet", "idx3-ubyte", "idx3-ubyte.gz"])
@pytest.mark.parametrize("content", [b"", b"garbage, of no format whatever" * 40])
def test_broken_containers_give_one_line(tmp_path, load, suffix, content):
    path = tmp_path / f"set-images-{suffix}" if "idx" in suffix else tmp_path / f"set.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# Real images


PLACES = [os.environ.get("UNNOISE_TEST_DATA", ""), *(folder / "shared" / "data" for folder in Path(__file__).parents)]
REAL = next((Path(place) for place in PLACES if place and Path(place).is_dir()), Path("nowhere"))


@pytest.mark.skipif(
    not REAL.is_dir(), reason="no real images at UNNOISE_TEST_DATA or in shared/data of a parent folder"
)
@pytest.mark.parametrize(
    ("folder", "mode", "shape", "first"),
    [("cifar10", "RGB", (3, 32, 32), "airplane"), ("fashion-mnist", "L", (1, 28, 28), "0")],
)
def test_real_sets(load, folder, mode, shape, first):
    data = load(REAL / folder, limit=200)
    assert (data.mode, data.shape, len(data), len(data.classes)) == (mode, shape, 200, 10)
    assert data.classes[0] == first
    assert 50 < everything(data).mean() < 150
    assert not [note for note in data.notes if "skipped" in note]
