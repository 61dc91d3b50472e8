"""Decoded images are checked: damage of every kind is found and mended by itself."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from image_files import everything, noise, put
from unnoise.data import cache_check as check
from unnoise.data import cache_writer as build
from unnoise.errors import InputError

FILES = ["images.bin", "labels.npy", "meta.json"]


@pytest.fixture
def photos(root):
    for i in range(6):
        put(root, f"{'ab'[i % 2]}/{i}.png", noise(8, 8, 3))
    return root


def flip(path):
    """Change a byte in the middle; the length and the time of the file stay as they were."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def become_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def become_folder(path):
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


DAMAGE = {
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "long": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "brackets": lambda path: path.write_bytes(b"[" * 20_000),
    "zip": lambda path: path.write_bytes(b"PK\x03\x04"),
    "gone": lambda path: path.unlink(),
    "link": become_link,
    "folder": become_folder,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_mended_at_the_next_opening(photos, load, name, damage):
    first = load(photos)
    pixels, labels = everything(first), first.labels(np.arange(6))
    DAMAGE[damage](first.store.folder / name)
    again = load(photos)
    assert again == first
    np.testing.assert_array_equal(everything(again), pixels)
    np.testing.assert_array_equal(again.labels(np.arange(6)), labels)
    assert load(photos) == first
    assert sorted(path.name for path in first.store.folder.iterdir()) == FILES


def test_a_link_or_a_file_in_place_of_the_folder_is_replaced(photos, load, tmp_path):
    folder = (first := load(photos)).store.folder
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert load(photos) == first
    assert not folder.is_symlink()
    assert (tmp_path / "elsewhere" / "images.bin").exists()
    shutil.rmtree(folder)
    folder.write_text("in the way")
    assert load(photos) == first
    assert folder.is_dir()


@pytest.mark.parametrize("damage", ["flipped", "empty", "cut", "half", "gone", "link"])
def test_damage_during_a_training_ends_it_in_one_line_and_is_mended(photos, load, damage):
    first = load(photos)
    pixels = everything(first)
    DAMAGE[damage](first.store.folder / "images.bin")
    with pytest.raises(InputError, match="run the same command again") as told:
        first.read(np.array([5]))
    assert "\n" not in str(told.value)
    np.testing.assert_array_equal(everything(load(photos)), pixels)
    np.testing.assert_array_equal(everything(first), pixels)  # a process that still runs reads the mended files


def test_touched_files_are_checked_again_and_read_on(photos, load):
    first = load(photos)
    (first.store.folder / "images.bin").touch()
    assert len(first.read(np.arange(6))) == 6


def test_large_files_are_read_once_for_each_stamp(photos, load, monkeypatch):
    monkeypatch.setattr(check, "ALWAYS_CHECKED", 0)
    monkeypatch.setattr(check, "SETTLED", -(10**12))
    first, read, checksum = load(photos), [], check.checksum
    monkeypatch.setattr(check, "checksum", lambda *a: read.append(1) or checksum(*a))
    assert load(photos) == load(photos) == first
    assert len(read) == 1
    (first.store.folder / "checked.json").write_bytes(b"[" * 20_000)
    assert load(photos) == load(photos) == first
    assert len(read) == 2
    flip(first.store.folder / "images.bin")
    assert load(photos) == first
    read.clear()
    monkeypatch.setattr(check, "SETTLED", 10**12)
    (first.store.folder / "images.bin").touch()
    assert load(photos) == load(photos) == first  # a stamp as young as the clock is coarse is not trusted
    assert len(read) == 2


def test_many_who_build_and_mend_at_once(photos, load):
    def open_and_read(_):
        return load(photos).fingerprint

    with ThreadPoolExecutor(4) as pool:
        assert len({*pool.map(open_and_read, range(4))}) == 1
        for name in FILES:
            flip(load(photos).store.folder / name)
            assert len({*pool.map(open_and_read, range(4))}) == 1
    assert [path.name for path in load(photos).store.folder.parent.glob(".building-*")] == []


def test_a_whole_folder_of_another_process_is_never_replaced(photos, load, monkeypatch):
    """Two processes find the same damage; the second one keeps what the first one mended."""
    flip(load(photos).store.folder / "images.bin")
    real, results = build.number_classes, []

    def race(*values):
        if not results:
            results.append(None)
            results.append(load(photos))
            (results[1].store.folder / "mark").touch()
        return real(*values)

    monkeypatch.setattr(build, "number_classes", race)
    assert load(photos) == results[1]
    assert (results[1].store.folder / "mark").exists()


def test_wrong_metadata_of_the_right_form_is_not_trusted(photos, load):
    first = load(photos)
    path = first.store.folder / "meta.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "fingerprint": "0" * 64}))
    assert load(photos).fingerprint == first.fingerprint


def test_rows_are_read_as_numpy_reads_them(photos, load):
    data = load(photos)
    pixels = everything(data)
    for rows in ([], [3], [5, 0, 0, 1, 2, 4], [-1, 0, -6]):
        np.testing.assert_array_equal(data.read(np.array(rows, int)), pixels[np.array(rows, int)])
    with pytest.raises(IndexError):
        data.read(np.array([6]))
