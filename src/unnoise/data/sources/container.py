"""The kind of a file that holds many images, told by its first bytes: a suffix may be missing or wrong."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from unnoise.errors import InputError

HEAD = 1024  # bytes that are looked at; the mark of a tar file is at 257
MAGIC = (
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
COMPRESSIONS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
)
REFUSED = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and give the folder"),
    (b"Rar!", "a RAR archive; unpack it and give the folder"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it and give the folder, or the .tar file"),
    (b"\x89HDF", "an HDF5 file; save its images as .npz, or as files in a folder"),
    (b"SQLite format 3", "an SQLite database; save its images as files in a folder"),
    (b"%PDF", "a PDF file; save its images as files in a folder"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself; run git lfs pull"),
    (b"<!DOCTYPE html", "an HTML page and no data; was the download refused?"),
    (b"<html", "an HTML page and no data; was the download refused?"),
    (b"\x80\x02", "a Python pickle, which can run code; save its images as .npz"),
    (b"\x80\x03", "a Python pickle, which can run code; save its images as .npz"),
    (b"\x80\x04", "a Python pickle, which can run code; save its images as .npz"),
    (b"\x80\x05", "a Python pickle, which can run code; save its images as .npz"),
)
IDX_TYPES = {0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E}


def container_kind(path: Path) -> str | None:
    """Return zip, npz, tar, compressed tar, npy, parquet, arrow or idx; None if the first bytes say nothing.

    Raises:
        InputError: If the file is of a known kind that is not read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    for magic, what in REFUSED:
        if head.lower().startswith(magic.lower()):
            raise InputError(f"{str(path)!r} is {what}")
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return zip_kind(path)
    return compressed_kind(path, head) or plain_kind(head)


def zip_kind(path: Path) -> str:
    """Return npz if all members are arrays of NumPy, otherwise zip."""
    with suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, IndexError):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"
    return "npz" if path.suffix.lower() == ".npz" else "zip"


def compressed_kind(path: Path, head: bytes) -> str | None:
    """Return the kind of a compressed file, None if it is not compressed or holds something else."""
    for magic, opener in COMPRESSIONS:
        if head.startswith(magic):
            try:
                with path.open("rb") as file, opener(file) as content:
                    inside = plain_kind(content.read(HEAD))
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                return None
            if inside == "idx":
                return "idx" if opener is COMPRESSIONS[0][1] else None
            return "compressed tar" if inside == "tar" else None
    return None


def plain_kind(head: bytes) -> str | None:
    """Return tar or idx, None if it is neither."""
    if len(head) >= 4 and head[:2] == b"\0\0" and head[2] in IDX_TYPES and 1 <= head[3] <= 4:
        return "idx"
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return "tar"
