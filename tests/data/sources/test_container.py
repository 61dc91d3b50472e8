"""The kind of a file is told by its first bytes, whatever its name is."""

import bz2
import gzip
import lzma
import pickle
import struct

import numpy as np
import pyarrow as pa
import pytest

from image_files import encoded, everything, noise, put, write_idx, write_parquet, write_tar, write_zip
from unnoise.data.sources.container import container_kind
from unnoise.errors import InputError

IMAGES = noise(4, 8, 8)
WRONG = ["", ".zip", ".npy", ".parquet", ".JPG", ".csv"]


def write_kind(path, kind):
    """Write four gray images of 8x8 pixels as a container of this kind."""
    members = {f"{i}.png": encoded(image) for i, image in enumerate(IMAGES)}
    if kind == "zip":
        write_zip(path, members)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, images=IMAGES)
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, IMAGES)
    elif kind == "idx":
        write_idx(path, IMAGES)
    elif kind == "parquet":
        write_parquet(path, IMAGES)
    elif kind == "arrow":
        table = pa.table({"image": [*members.values()]})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        write_tar(path, members)
        if kind != "tar":
            pack = {"compressed tar": gzip, "bz2": bz2, "xz": lzma}[kind]
            path.write_bytes(pack.compress(path.read_bytes()))


KINDS = ["zip", "npz", "npy", "idx", "parquet", "arrow", "tar", "compressed tar", "bz2", "xz"]


@pytest.mark.parametrize("kind", KINDS)
def test_first_bytes_decide_under_any_name(tmp_path, load, kind):
    write_kind(tmp_path / "written", kind)
    for suffix in WRONG:
        path = (tmp_path / "written").rename(tmp_path / f"set{suffix}")
        assert container_kind(path) == ("compressed tar" if kind in ("bz2", "xz") else kind)
        data = load(path)
        np.testing.assert_array_equal(everything(data)[:, 0], IMAGES)
        path.rename(tmp_path / "written")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [0.3, 0.9])
def test_cut_containers_are_refused_or_read_in_part_in_one_line(tmp_path, load, kind, left):
    path = tmp_path / "set"
    write_kind(path, kind)
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    try:
        data, said = load(path), ""
    except InputError as error:
        data, said = None, str(error)
    assert (str(path) in said) is (data is None)
    assert "\n" not in said
    if data is not None:
        np.testing.assert_array_equal(everything(data)[:, 0], IMAGES[: len(data)])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"7z\xbc\xaf\x27\x1c" + b"0" * 99, "is a 7z archive; unpack it"),
        (b"Rar!\x1a\x07" + b"0" * 99, "is a RAR archive; unpack it"),
        (b"\x28\xb5\x2f\xfd" + b"0" * 99, "is compressed by Zstandard; unpack it"),
        (b"\x1f\x9d\x90" + b"0" * 99, "is compressed by compress or LZ4; unpack it"),
        (b"\x04\x22\x4d\x18" + b"0" * 99, "is compressed by compress or LZ4; unpack it"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "is a MATLAB file; save its images as .npz"),
        (b"\x89HDF\r\n\x1a\n" + b"0" * 99, "is an HDF5 file; save its images as .npz"),
        (bytes(16) + struct.pack("<I", 0xBEEFC0DE) + bytes(99), "is an LMDB database; save its images as files"),
        (struct.pack("<Q", 50) + b"abcd\x0a" + bytes(99), "is a TFRecord file; save its images as files"),
        (pickle.dumps({"data": 1}, 2), "is a Python pickle, which can run code; save its images as .npz"),
        (b"<html><body>404</body></html>", "is an HTML page and no data"),
        (b"\0\0\0\x18ftypmp42" + bytes(99), "is a video; extract its frames first"),
        (gzip.compress(b"text" * 99, mtime=0), "is compressed, and what is in it is no tar file; unpack it"),
        (encoded(noise(8, 8)), "is one image; give the folder that holds it"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".zip", ".jpg"])
def test_what_is_not_read_is_named_with_the_fix(tmp_path, load, content, says, suffix):
    path = tmp_path / f"set{suffix}"
    path.write_bytes(content)
    if "compressed, and" in says or "video" in says:
        path = path.rename(tmp_path / "set")
    with pytest.raises(InputError) as caught:
        load(path)
    assert f"{str(path)!r} {says}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("data.pkl", "a Python pickle"),
        ("train.mat", "a MATLAB file"),
        ("train.tfrecord-00000-of-00010", "a TFRecord file"),
        ("train.beton", "an FFCV file"),
        ("data_batch_1.bin", "binary data of CIFAR"),
        ("train_X.bin", r"binary data of STL-10; save numpy.fromfile"),
        ("mnist_train.csv", "a table; give the folder of its images"),
        ("train.zip.001", "a part of an archive; join the parts"),
        ("train.tar.part-aa", "a part of an archive; join the parts"),
        ("train.z01", "a part of an archive; join the parts"),
    ],
)
def test_a_name_tells_what_the_first_bytes_do_not(tmp_path, load, name, says):
    (tmp_path / name).write_bytes(b"\x07 of no format" * 40)
    with pytest.raises(InputError, match=says):
        load(tmp_path / name)


def test_a_file_of_pytorch_is_a_pickle(tmp_path, load):
    write_zip(tmp_path / "training.pt", {"training/data.pkl": b"x", "training/version": b"3", "training/data/0": b"y"})
    with pytest.raises(InputError, match="is a file of PyTorch with a Python pickle"):
        load(tmp_path / "training.pt")


def test_one_image_is_no_container_under_any_name(root, load):
    for name in ("a.png", "a.zip", "a", "a.npy"):
        with pytest.raises(InputError, match="is one image; give the folder"):
            load(put(root, name, noise(8, 8)))
