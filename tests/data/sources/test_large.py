"""Small containers that unpack to much are refused, or are read a little at a time."""

import io
import struct
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from image_files import encoded, noise
from unnoise.data.cache_writer import IMAGES_IN_FLIGHT, take_some
from unnoise.data.sources.parquet import grows
from unnoise.data.sources.source import Item
from unnoise.errors import InputError


def test_a_member_of_a_zip_that_grows_a_thousand_times_is_skipped(tmp_path, load):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(100 * 2**20))
        archive.writestr("sound.png", encoded(noise(8, 8, 3)))
    data = load(tmp_path / "x.zip")
    assert len(data) == 1
    assert any("bomb.png" in note and "grow to 104,857,600" in note for note in data.notes)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_tar_whose_header_is_huge_is_refused(tmp_path, load, kind, suffix):
    path = tmp_path / f"x.{suffix}"
    with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as archive:
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, 20 * 2**20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(InputError, match="header of 20,971,520 bytes"):
        load(path)


def test_an_array_whose_header_claims_to_be_huge_is_refused(tmp_path, load):
    header = b"\x93NUMPY\x02\x00" + struct.pack("<I", 10 * 2**20)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header + b" " * (10 * 2**20))
    with pytest.raises(InputError, match=r"x\.npz"):
        load(tmp_path / "x.npz")


def test_a_table_that_unpacks_to_much_is_read_row_by_row(tmp_path):
    pq.write_table(pa.table({"image": [bytes(2**20)] * 64}), tmp_path / "bomb.parquet", compression="zstd")
    pq.write_table(pa.table({"image": [encoded(noise(32, 32, 3))] * 64}), tmp_path / "sound.parquet")
    assert grows(pq.ParquetFile(tmp_path / "bomb.parquet").metadata.row_group(0))
    assert not grows(pq.ParquetFile(tmp_path / "sound.parquet").metadata.row_group(0))


def test_large_images_are_decoded_a_few_at_a_time():
    sizes = [len(take_some(Item("", bytes(size)) for _ in range(100))) for size in (1000, 2**24, 2**27)]
    assert sizes == [IMAGES_IN_FLIGHT, 5, 1]


def test_a_large_array_is_read_a_little_at_a_time(tmp_path, load):
    np.savez_compressed(tmp_path / "x.npz", np.zeros((2000, 64, 64, 3), np.uint8))
    assert len(load(tmp_path / "x.npz", limit=10)) == 10
