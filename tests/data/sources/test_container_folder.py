"""Folders that hold archives or other files of data, as they are downloaded."""

import gzip
import json
import pickle
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from image_files import encoded, everything, noise, put, write_idx, write_parquet, write_tar, write_zip
from unnoise.data.dataset import split_held_out
from unnoise.errors import InputError


def members(n=3, above=""):
    return {f"{above}{kind}/{i}.png": encoded(noise(8, 8)) for kind in ("cat", "dog") for i in range(n)}


@pytest.mark.parametrize("name", ["archive (1).zip", "sub/data.zip", "data.tar.gz", "data.tgz", "data.tar", "data"])
def test_the_only_archive_is_opened(root, load, name):
    path = root / name
    path.parent.mkdir(exist_ok=True)
    (write_tar if ".t" in name else write_zip)(path, members())
    (root / "README.md").write_text("text")
    (root / "LICENSE").write_text("text")
    data = load(root)
    assert (len(data), data.classes) == (6, ("cat", "dog"))
    if ".t" not in name:
        assert f"opened {name}, the only file of data in the folder" in data.notes


def test_the_only_array_or_table_is_opened(root, load):
    np.savez(root / "x.npz", images=noise(6, 8, 8), labels=np.arange(6) % 2)
    assert load(root).classes == ("0", "1")
    (root / "x.npz").unlink()
    np.save(root / "x.npy", noise(6, 8, 8))
    assert len(load(root)) == 6
    (root / "x.npy").unlink()
    write_parquet(root / "table", noise(4, 8, 8), [0, 1, 0, 1])
    assert load(root).classes == ("0", "1")


def test_a_link_to_a_file_without_a_suffix_is_followed(tmp_path, load):
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    write_zip(tmp_path / "blobs" / "0f1e", members())
    (snapshot / "data.zip").symlink_to("../../blobs/0f1e")
    assert load(snapshot).classes == ("cat", "dog")


def test_tables_next_to_the_only_archive_are_named(root, load):
    write_zip(root / "train.zip", {f"{i}.png": encoded(noise(8, 8)) for i in range(4)})
    (root / "labels.csv").write_text("id,label\n0,cat\n")
    assert "not read: labels.csv; to use their labels, unpack train.zip next to them" in load(root).notes


def test_several_archives_are_splits_or_refused(root, load):
    write_zip(root / "train.zip", members(4))
    write_zip(root / "test.zip", {f"{i}.png": encoded(noise(8, 8)) for i in range(3)})
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert [len(part) for part in split_held_out(data)] == [8, 3]
    write_zip(root / "val.zip", members(1))
    assert [len(part) for part in split_held_out(load(root))] == [8, 5]
    (root / "train.zip").rename(root / "a.zip")
    with pytest.raises(InputError, match=r"3 archives or other files .*: a.zip, test.zip, val.zip; give one of them"):
        load(root)


def test_archives_next_to_images_are_named(root, load):
    put(root, "photo.png", noise(64, 64, 3))
    write_zip(root / "data.zip", members())
    assert "not read: data.zip; unpack what holds images, or give it alone" in load(root).notes


@pytest.mark.parametrize("kind", ["parquet", "zip", "tar"])
def test_a_banner_next_to_the_data_is_no_data(root, load, kind):
    put(root, "assets/banner.png", np.zeros((8, 8), np.uint8))
    if kind == "parquet":
        write_parquet(root / "data" / "train-00000-of-00001.parquet", noise(20, 8, 8), [0, 1] * 10)
    else:
        (write_zip if kind == "zip" else write_tar)(root / f"set.{kind}", members(10))
    data = load(root)
    assert (len(data), len(data.classes)) == (20, 2)
    assert "left out 1 images next to files of more data: assets/banner.png" in data.notes
    for i in range(11):
        put(root, f"{i}.png", noise(8, 8))
    assert len(load(root)) == 12


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_archives_in_an_archive_are_named(root, load, write):
    write_zip(root / "inner.zip", members())
    path = root / ("outer.tar" if write is write_tar else "outer.zip")
    write(path, {"train.zip": (root / "inner.zip").read_bytes(), "read.me": b"text"})
    with pytest.raises(InputError, match=r"archives inside an archive: train.zip; unpack it and give the folder"):
        load(path)
    write(path, {"train.zip": (root / "inner.zip").read_bytes(), "0.png": encoded(noise(8, 8))})
    assert (
        "not read, for they are archives inside an archive: train.zip; unpack it and give the folder"
        in load(path).notes
    )


@pytest.mark.parametrize("end", ["", ".gz"])
def test_arrays_in_an_archive_ask_to_unpack_it(root, load, end):
    write_idx(root / f"train-images-idx3-ubyte{end}", noise(4, 8, 8))
    write_tar(root / "mnist.tar.gz", {"train-images-idx3-ubyte": (root / f"train-images-idx3-ubyte{end}").read_bytes()})
    with pytest.raises(InputError, match="unpack it and give the folder"):
        load(root / "mnist.tar.gz")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"data_batch_1": pickle.dumps({}, 2), "readme.html": b"<html>"}, "data_batch_1' is a Python pickle"),
        ({"data_batch_1.bin": b"\x07" * 99}, "data_batch_1.bin' is binary data of CIFAR; use cifar10"),
        ({"train_X.bin": b"\x07" * 99, "class_names.txt": b"cat"}, "train_X.bin' is binary data of STL-10"),
        ({"train_32x32.mat": b"MATLAB 5.0 MAT-file"}, "train_32x32.mat' is a MATLAB file"),
        (
            {"lock.mdb": bytes(99), "data.mdb": bytes(16) + struct.pack("<I", 0xBEEFC0DE)},
            "data.mdb' is an LMDB database",
        ),
        ({"train-00000-of-00001": struct.pack("<Q", 50) + b"abcd\x0a" + bytes(99)}, "is a TFRecord file"),
        ({"x.h5": b"\x89HDF\r\n\x1a\n"}, "x.h5' is an HDF5 file"),
        ({".zgroup": b"{}", "images/0.0": b"x"}, "is a Zarr array"),
        ({"s0.tar.zst": b"\x28\xb5\x2f\xfd" + bytes(99)}, "s0.tar.zst' is compressed by Zstandard"),
        ({"a.zip.001": b"PK\x03\x04", "a.zip.002": b"x"}, "a.zip.001' is a part of an archive; join the parts"),
        ({"0f1e": encoded(noise(8, 8))}, r"0f1e' is an image \(PNG\) whose name has no suffix of one"),
        ({"train.7z": b"7z\xbc\xaf\x27\x1c", "labels.csv": b"id,label"}, "train.7z' is a 7z archive"),
    ],
)
def test_a_folder_of_files_that_are_not_read_is_refused_by_name(root, load, files, says):
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        load(root)
    assert "\n" not in str(caught.value)


# Downloads


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_img2dataset(root, load, packed, streamed):
    for shard in range(2):
        files, keys = {}, [f"{shard:05}{i:04}" for i in range(3)]
        for key in keys[:2]:  # the third one could not be downloaded
            about = {"caption": "a cat", "url": "http://x/y.jpg", "key": key, "status": "success", "width": 8}
            files |= {f"{key}.jpg": encoded(noise(8, 8), "JPEG"), f"{key}.txt": b"a cat"}
            files[f"{key}.json"] = json.dumps(about).encode()
        write_tar(root / f"{shard:05}.tar", files)
        if packed:
            (root / f"{shard:05}.tar").write_bytes(gzip.compress((root / f"{shard:05}.tar").read_bytes()))
        (root / f"{shard:05}_stats.json").write_text(json.dumps({"count": 3, "successes": 2}))
        columns = {"url": ["http://x/y.jpg"] * 3, "caption": ["a cat"] * 3, "key": keys, "status": ["success"] * 3}
        pq.write_table(pa.table(columns), root / f"{shard:05}.parquet")
    if packed and streamed:
        with pytest.raises(InputError, match=r"--stream cannot read .*00000.tar', which is compressed; unpack"):
            load(root, stream=True)
        return
    data = load(root, stream=streamed)
    assert (len(data), data.classes, data.held_out) == (4, (), None)
    assert everything(data).shape == (4, 1, 8, 8)


def test_compressed_shards_next_to_plain_ones(root, load):
    images = noise(12, 8, 8)
    for i, suffix in enumerate(("tar", "tar.gz", "tgz")):
        files = {
            f"{split}/{kind}/{n}.png": encoded(images[4 * i + 2 * s + k])
            for s, split in enumerate(("train", "val"))
            for k, kind in enumerate(("cat", "dog"))
            for n in (i,)
        }
        write_tar(root / f"s{i}.{suffix}", files)
    data = load(root)
    assert data.classes == ("cat", "dog")
    trained, held_out = split_held_out(data)
    np.testing.assert_array_equal(everything(trained)[:, 0], images[[0, 1, 4, 5, 8, 9]])
    np.testing.assert_array_equal(everything(held_out)[:, 0], images[[2, 3, 6, 7, 10, 11]])
    (root / "s1.tar.gz").write_bytes((root / "s1.tar.gz").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cannot read '.*s1.tar.gz'"):
        load(root)


def test_nested_keys_and_captions_in_a_tar(root, load):
    files = {}
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            for i in range(3):
                key = f"{split}/{kind}/{i:04}"
                files |= {f"{key}.jpg": encoded(noise(8, 8), "JPEG"), f"{key}.txt": b"text", f"{key}.json": b'{"w": 8}'}
    write_tar(root / "set.tar", files)
    for path, streamed in ((root, False), (root, True), (root / "set.tar", False), (root / "set.tar", True)):
        data = load(path, stream=streamed)
        assert data.classes == ("cat", "dog")
        assert [len(part) for part in split_held_out(data)] == [6, 6]


@pytest.mark.parametrize("name", ["train-0.tar", "train-0.parquet", "train-0.arrow", "train-0.tar.gz"])
def test_a_file_of_another_kind_than_its_name_is_told_by_what_it_is(root, load, name):
    for content, says in (
        (
            b"version https://git-lfs.github.com/spec/v1",
            "is a Git LFS pointer and not the file itself; run git lfs pull",
        ),
        (b"<!DOCTYPE html>", "is an HTML page and no data"),
    ):
        (root / name).write_bytes(content)
        with pytest.raises(InputError, match=says):
            load(root)
    write_zip(root / name, members())
    with pytest.raises(InputError, match="by its first bytes it is zip; give it alone"):
        load(root)
    assert len(load(root / name)) == 6


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_several_tars_joined_in_one_file_are_told(root, load, suffix):
    for i in range(2):
        write_tar(root / f"{i}.tar", {f"{i}.png": encoded(noise(8, 8))})
    joined = b"".join((root / f"{i}.tar").read_bytes() for i in range(2))
    for i in range(2):
        (root / f"{i}.tar").unlink()
    (root / f"set.{suffix}").write_bytes(gzip.compress(joined) if suffix == "tar.gz" else joined)
    for path in (root, root / f"set.{suffix}"):
        data = load(path)
        assert len(data) == 1
        assert any(f"read only to the end mark: set.{suffix}" in note for note in data.notes)
