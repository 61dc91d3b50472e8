"""`unnoise cache` lists what is kept, and removes only what unnoise made."""

import io
import json
import os
import tarfile
import time

import pytest
import torch

from image_files import noise, put
from unnoise.cache_folder import building
from unnoise.cli import main
from unnoise.data import open_data
from unnoise.tensors import save_tensors


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def filled(cache, tmp_path):
    """A cache of two sets of images, an index of shards and statistics."""
    for name in ("cats", "dogs"):
        put(tmp_path / name, "a.png", noise(8, 8, 3))
        open_data(str(tmp_path / name))
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        member = tarfile.TarInfo("a.png")
        content = (tmp_path / "cats" / "a.png").read_bytes()
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    open_data(str(tmp_path / "shard.tar"), stream=True)
    (cache / "statistics").mkdir()
    about = {"name": "birds", "network": "efficientnet"}
    save_tensors(cache / "statistics" / f"{'0' * 32}.safetensors", {"x": torch.zeros(3)}, about)
    return cache


def run(capsys, *given):
    assert main(["cache", *given]) == 0
    return capsys.readouterr().out


def age(path, days):
    os.utime(path, (time.time() - days * 86_400,) * 2)


def images(cache, name):
    return next(path.parent for path in cache.glob("*/meta.json") if name in json.loads(path.read_text())["data"])


def test_everything_is_listed_with_its_data(filled, tmp_path, capsys):
    age(images(filled, "dogs"), 3)
    said = run(capsys)
    for text in (
        f"1 decoded images of {tmp_path / 'cats'}, 8x8, RGB",
        "used 3 days ago",
        "the index of shard.tar",
        "statistics of birds (efficientnet)",
        f"4 parts (0.0 MB) in {filled}",
    ):
        assert text in said
    assert "stale" not in said


def test_an_empty_cache_and_none(cache, capsys):
    assert run(capsys) == f"0 parts (0.0 MB) in {cache}\n"
    assert run(capsys, "--clean", "--all") == f"removed 0 parts (0.0 MB) of 0 parts (0.0 MB) from {cache}\n"
    assert not cache.exists()


def test_clean_removes_what_is_stale_and_nothing_else(filled, tmp_path, capsys):
    damaged = images(filled, "dogs")
    (damaged / "labels.npy").write_bytes(b"")
    first_version = filled / ("a" * 32)
    first_version.mkdir()
    (first_version / "meta.json").write_text('{"mode": "L"}')
    killed = filled / ".building-1"
    killed.mkdir()
    age(killed, 8)
    old = filled / "statistics" / "partial-1.safetensors"
    old.touch()
    age(old, 8)
    elsewhere = put(tmp_path / "elsewhere", "a.png", noise(8, 8))
    link = filled / ("b" * 32)
    link.symlink_to(elsewhere.parent)
    mine = put(filled, "mine/photo.png", noise(8, 8))
    with building(filled):
        said = run(capsys, "--clean")
        assert "removed 5 parts" in said
        assert len([*filled.glob(".building-*")]) == 1
    assert not any(path.exists() for path in (damaged, first_version, killed, old))
    assert not link.is_symlink()
    assert elsewhere.exists()
    assert mine.exists()
    assert "3 parts" in run(capsys)


def test_older_than_and_all(filled, capsys):
    age(images(filled, "dogs"), 40)
    assert "--clean would remove 1 part " in run(capsys, "--older-than", "30")
    assert "removed 1 part " in run(capsys, "--clean", "--older-than", "30")
    (filled / "keep.txt").touch()
    assert "removed 3 parts" in run(capsys, "--clean", "--all")
    assert sorted(path.name for path in filled.rglob("*") if path.is_file()) in (["keep.txt"], [".lock", "keep.txt"])


def test_use_is_counted(filled, tmp_path, capsys):
    for path in (images(filled, "dogs"), *filled.glob("shards/*")):
        age(path, 40)
    data = open_data(str(tmp_path / "dogs"))
    open_data(str(tmp_path / "shard.tar"), stream=True)
    assert "would remove 0 parts" in run(capsys, "--older-than", "30")
    age(images(filled, "dogs"), 40)
    data.store.used -= 4_000  # a training has read for an hour
    data.read([0])
    assert "would remove 0 parts" in run(capsys, "--older-than", "30")


def test_a_name_cannot_forge_a_line(cache, tmp_path, capsys):
    put(tmp_path / "a\x1b[2J\nb", "a.png", noise(8, 8))
    open_data(str(tmp_path / "a\x1b[2J\nb"))
    said = run(capsys)
    assert "\x1b" not in said
    assert len(said.splitlines()) == 2


def test_what_cannot_be_removed_is_told(filled, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("unnoise.data.cache_list.shutil.rmtree", refuse)
    assert main(["cache", "--clean", "--all"]) == 2
    assert "cannot remove" in capsys.readouterr().err
