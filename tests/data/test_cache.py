"""The cache of decoded images."""

import os
from pathlib import Path

import numpy as np
import pytest

from image_files import everything, noise, put
from unnoise.data import cache_writer as build
from unnoise.data import open_data
from unnoise.data.cache import check_whole
from unnoise.errors import InputError


def test_second_open_decodes_nothing(root, load, monkeypatch):
    put(root, "a/1.png", noise(8, 8))
    put(root, "b/2.png", noise(8, 8))
    first = load(root)
    with monkeypatch.context() as patch:
        patch.setattr(build, "decode", lambda *_: pytest.fail("decoded again"))
        patch.setattr("unnoise.data.target_format.read_header", lambda *_: pytest.fail("looked again"))
        assert load(root) == first
    changed = put(root, "a/1.png", noise(8, 8))
    os.utime(changed, ns=(1, 1))
    assert load(root).fingerprint != first.fingerprint


def test_options_do_not_share_a_cache(root, load):
    put(root, "a.png", noise(20, 30, 3))
    options = [{}, {"size": "16"}, {"size": "16", "fit": "pad"}, {"size": "16", "channels": 1}, {"limit": 1}]
    assert len({load(root, **option).store.folder for option in options}) == len(options)


def test_fingerprint_is_of_pixels_and_labels(tmp_path, load):
    images = [noise(8, 8), noise(8, 8)]
    prints = []
    for folder, names in (("one", "ab"), ("two", "ab"), ("three", "ac")):
        for name, image in zip(names, images, strict=True):
            put(tmp_path / folder, f"{name}/x.png", image)
        prints.append(load(tmp_path / folder).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_damaged_cache_is_built_again(root, load):
    put(root, "a.png", noise(8, 8))
    first = load(root)
    (first.store.folder / "images.bin").write_bytes(b"short")
    assert load(root) == first
    assert len(everything(first)) == 1


def test_failure_leaves_nothing(root, load, monkeypatch, tmp_path):
    put(root, "a.png", noise(8, 8))

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "number_classes", crash)
        with pytest.raises(KeyboardInterrupt):
            load(root)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(load(root)) == 1


def test_the_faster_of_two_builders_is_kept(root, load, monkeypatch):
    put(root, "a.png", noise(8, 8))
    real, results = build.number_classes, []

    def race(*values):
        if not results:
            results.append(None)
            results.append(load(root))  # another process finishes while we are at work
            (results[1].store.folder / "mark").touch()
        return real(*values)

    monkeypatch.setattr(build, "number_classes", race)
    assert load(root) == results[1]
    assert (results[1].store.folder / "mark").exists()


def test_unwritable_cache(root, tmp_path):
    put(root, "a.png", noise(8, 8))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cache folder '.*file.*UNNOISE_CACHE"):
        open_data(str(root), cache=tmp_path / "file" / "cache")


def test_cache_folder_from_the_environment(root, tmp_path, monkeypatch):
    put(root, "a.png", noise(8, 8))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("UNNOISE_CACHE", raising=False)
    assert open_data(str(root)).store.folder.parent == tmp_path / "xdg" / "unnoise"
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "own"))
    assert open_data(str(root)).store.folder.parent == tmp_path / "own"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux to see the maps of a process")
def test_read_does_not_hold_the_map(root, load):
    put(root, "a/1.png", noise(8, 8))
    put(root, "b/1.png", noise(8, 8))
    data = load(root)
    pixels, labels = everything(data), data.labels(np.arange(2))
    assert str(data.store.folder) not in Path("/proc/self/maps").read_text()
    pixels[:] = labels[:] = 0  # ours to write
    assert everything(data).any()


def test_progress(root, load):
    put(root, "a.png", noise(8, 8))
    seen = []
    load(root, progress=lambda *report: seen.append(report))
    assert seen[-1] == ("decoding", 1, 1)
    assert ("scanning", 1, 1) in seen


# Options


@pytest.mark.parametrize("value", ["3", 2.5, True])
def test_numbers_of_a_wrong_type(value):
    with pytest.raises(InputError, match=f"channels={value!r}: give a whole number"):
        check_whole("channels", value, "all")


# What version 0.1.0 gave: runs and caches that were made with it are found again.


@pytest.fixture
def photos(root):
    """Images whose every pixel is written here, in a format that every version of Pillow writes the same."""
    for i in range(12):
        put(
            root,
            f"{'ab'[i % 2]}/{i}.bmp",
            (np.arange(8 * 9 * 3).reshape(8, 9, 3) * (i + 3) % 256).astype(np.uint8),
            "BMP",
        )
    return root


@pytest.mark.parametrize(
    ("options", "fingerprint", "chosen"),
    [
        ({}, "dbe0eb392a25671574877fc693775adcbdeebf5b6d0b69c6aecf0378668bc4b4", [8, 11, 4, 7, 5]),
        (
            {"size": "16", "fit": "pad"},
            "51db376d72875a9f4c9e3ebad7729ae3cc3e1c34923df1e134e3a3bebbb3ef6a",
            [8, 11, 4, 7, 5],
        ),
        ({"stream": True}, "b0eb36d96f39c817c258686206cc3905a0c96514bf698fe3965b704d4f1dc4ad", [1, 3, 6, 0, 7]),
        (
            {"stream": True, "size": "16x8", "channels": 1, "limit": 5},
            "4d497243c90d62c54a4c8b435b48246085e34a94515a5591e5268b04f4693bea",
            [3, 0, 1, 4, 2],
        ),
    ],
)
def test_fingerprints_and_choices_of_the_first_version(photos, load, options, fingerprint, chosen):
    data = load(photos, **options)
    assert data.fingerprint == fingerprint
    assert data.chosen(5, 1).tolist() == chosen


def test_the_key_of_the_cache_stays_and_the_fingerprint_is_that_of_the_first_version(load):
    data = load("faces:count=5", size="16")
    assert data.store.folder.name == "84dfc3dbd3d69cf6feb7c3c9cb79adca"
    assert data.fingerprint == "da220b2fa8bb5724560416bed06d6b81d5d5d81158d22f1456f892e6b9649560"
