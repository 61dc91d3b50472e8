"""Images in zip and tar files, and hostile archives."""

import io
import tarfile

import numpy as np
import pytest

from image_files import encoded, everything, noise, write_tar, write_zip
from unnoise.data.sources.find import find
from unnoise.errors import InputError

MEMBERS = {"b/2.png": 1, "a/1.png": 0, "b/c/3.PNG": 2}


@pytest.mark.parametrize("top", ["", "flowers/"])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz"])
def test_archives(tmp_path, load, suffix, top):
    images = [noise(8, 10) for _ in range(3)]
    members = {top + name: encoded(images[index]) for name, index in MEMBERS.items()}
    members |= {"__MACOSX/a.png": b"x", f"{top}.hidden.png": b"x", f"{top}readme.txt": b"x"}
    path = tmp_path / f"set.{suffix}"
    (write_zip if suffix == "zip" else write_tar)(path, members)
    data = load(path)
    assert data.name == "set"
    assert data.classes == ("a", "b")
    order = [1, 0, 2] if suffix in ("tar.gz", "tgz") else [0, 1, 2]  # compressed tar files keep their own order
    np.testing.assert_array_equal(everything(data)[:, 0], [images[index] for index in order])
    assert data.labels(np.arange(3)).tolist() == [[0, 1, 1][index] for index in order]
    assert "ignored files that are not images: .txt 1" in data.notes


EVIL = ["../up.png", "a/../../up.png", "/abs.png", "..\\up.png", "C:\\up.png", "C:/up.png"]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_names_that_point_outside_are_ignored(tmp_path, load, suffix):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / f"set.{suffix}"
    (write_zip if suffix == "zip" else write_tar)(path, dict.fromkeys([*EVIL, "good.png"], encoded(noise(8, 8))))
    assert [item.name for item in find(str(path)).items()] == ["good.png"]
    assert len(load(path)) == 1
    assert {near.name for near in tmp_path.iterdir()} == {"inside", "cache"}


def test_tar_links_are_ignored(tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("a.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert list(find(str(path)).items()) == []


def test_member_size_is_bounded(tmp_path, monkeypatch, load):
    monkeypatch.setattr("unnoise.data.sources.archive.MAX_BYTES", 1000)
    for suffix, write in (("zip", write_zip), ("tar", write_tar), ("tar.gz", write_tar)):
        path = tmp_path / f"set.{suffix}"
        write(path, {"a.png": encoded(noise(8, 8)), "b.png": bytes(1001)})
        assert any("b.png (larger than" in note for note in load(path).notes)


def test_damaged_member_is_skipped(tmp_path, load):
    path = tmp_path / "set.zip"
    write_zip(path, {"a.png": encoded(noise(8, 8)), "b.png": b"x" * 500})
    path.write_bytes(path.read_bytes().replace(b"x" * 500, b"x" * 400 + b"y" * 100))
    assert any("b.png (damaged in the archive)" in note for note in load(path).notes)


def test_cut_archives_give_one_line(tmp_path, load):
    members = {f"{index}.png": encoded(noise(32, 32, 3)) for index in range(20)}
    for suffix, write in (("zip", write_zip), ("tar.gz", write_tar)):
        path = tmp_path / f"set.{suffix}"
        write(path, members)
        path.write_bytes(path.read_bytes()[:30000])
        with pytest.raises(InputError, match="is the archive complete"):
            load(path)


@pytest.mark.parametrize("how", ["tar", "tar streamed", "tar.gz", "shards"])
def test_images_that_are_links_in_a_tar_are_named(root, load, how):
    suffix, _, streamed = how.partition(" ")
    path = root / f"set.{'tar.gz' if suffix == 'tar.gz' else 'tar'}"
    with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as archive:
        for i in range(3):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(content := encoded(noise(8, 8)))
            archive.addfile(info, io.BytesIO(content))
        for name, kind in (("3.png", tarfile.LNKTYPE), ("4.png", tarfile.SYMTYPE), ("5.txt", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "0.png"
            archive.addfile(info)
    data = load(root if how == "shards" else path, stream=bool(streamed))
    assert len(data) == 3
    assert "left out 2 images that are links: 3.png, 4.png; unpack it and give the folder" in data.notes


def test_members_that_python_cannot_unpack_are_not_said_to_be_encrypted(root, load):
    write_zip(root / "a.zip", {f"{i}.png": encoded(noise(8, 8)) for i in range(2)})
    content = bytearray((root / "a.zip").read_bytes())
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(mark) + at] = 9  # Deflate64, as Windows writes it
    (root / "a.zip").write_bytes(content)
    data = load(root / "a.zip")
    assert len(data) == 1
    assert any(
        "0.png (compressed in a way that Python does not read; unpack the archive" in note for note in data.notes
    )
