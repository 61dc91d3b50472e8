"""The kind of a file that holds many images, told by its first bytes: a suffix may be missing or wrong."""

import bz2
import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from PIL import Image

from unnoise.data.file_kinds import HEAD as MORE
from unnoise.data.file_kinds import describe_file
from unnoise.data.sources.remote import Place
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
TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
ARCHIVE_SUFFIXES = (*TAR_SUFFIXES, ".zip", ".7z", ".rar", ".zst", ".gz", ".bz2", ".xz")
PICKLE = "a Python pickle, which can run code; save its images as .npz"
MATLAB = "a MATLAB file; save its images as .npz, or as files in a folder"
AS_FILES = "save its images as files in a folder"
STL_10 = "binary data of STL-10; save numpy.fromfile(...).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1) as .npy"
REFUSED = (  # the first bytes, in large or small letters, and words that follow "it is"
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and give the folder"),
    (rb"rar!", "a RAR archive; unpack it and give the folder"),
    (rb"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it and give the folder, or the .tar file"),
    (rb"\x1f\x9d|\x04\x22\x4d\x18", "compressed by compress or LZ4; unpack it and give the folder, or the .tar file"),
    (rb"matlab [57]", MATLAB),
    (rb"\x89hdf", "an HDF5 file; save its images as .npz, or as files in a folder"),
    (rb".{16}\xde\xc0\xef\xbe", f"an LMDB database; {AS_FILES}"),
    (rb".{4}\0{4}.{4}\x0a", f"a TFRecord file; {AS_FILES}, or as tar shards"),
    (rb"sqlite format 3", f"an SQLite database; {AS_FILES}"),
    (rb"%pdf", f"a PDF file; {AS_FILES}"),
    (rb"version https://git-lfs", "a Git LFS pointer and not the file itself; run git lfs pull"),
    (rb"\s*<(!doctype )?html", "an HTML page and no data; was the download refused?"),
    (rb"\x80[\x02-\x05]", PICKLE),
)
PARTS = r"\.(zip|7z|rar|tar|tgz|gz)\.(\d{2,3}|part[-_]?\w*)$|\.z\d\d$|\.part\d+\.rar$|[-_.]part[-_]?a[a-z]$"
REFUSED_NAMES = (  # the name in small letters, if the first bytes do not tell
    (r"\.(pkl|pickle|pt|pth)$", PICKLE),
    (r"\.mat$", MATLAB),
    (r"\.mdb$", f"an LMDB database; {AS_FILES}"),
    (r"\.tfrecords?\b", f"a TFRecord file; {AS_FILES}, or as tar shards"),
    (r"\.beton$", f"an FFCV file; {AS_FILES}"),
    (
        r"(^|/)(data_batch_\d|test_batch|train|test)\.bin$",
        "binary data of CIFAR; use cifar10, or save its images as .npz",
    ),
    (r"(train|test|unlabeled)_x\.bin$", STL_10),
    (r"\.(csv|tsv|jsonl?|txt|xlsx?)$", "a table; give the folder of its images, or save pixels that are in it as .npz"),
)
IDX_TYPES = {0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E}


def container_kind(path: Path) -> str | None:
    """Return zip, npz, tar, compressed tar, npy, parquet, arrow or idx; None if the first bytes say nothing.

    Raises:
        InputError: If the file is of a known kind that is not read.
    """
    if re.search(PARTS, path.name.lower()):
        raise InputError(f"{str(path)!r} is a part of an archive; join the parts into one file first")
    head = first_bytes(path)
    for magic, what in REFUSED:
        if re.match(magic, head, re.DOTALL | re.IGNORECASE):
            raise InputError(f"{str(path)!r} is {what}")
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        kind = zip_kind(path)
        if kind == "torch":
            raise InputError(f"{str(path)!r} is a file of PyTorch with {PICKLE}")
        return kind
    return compressed_kind(path, head) or plain_kind(head)


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file; raise InputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def image_format(path: Path) -> str:
    """Return the format of an image that Pillow knows by its first bytes; "" if the file is none."""
    try:
        with Image.open(path) as image:
            return image.format or ""
    except Image.DecompressionBombError:
        return "huge"
    except Exception:  # noqa: BLE001 - a damaged file can raise anything inside a plugin
        return ""


def words_for(path: Path) -> str:
    """Return in a few words what a file is that is no container, and what to do about it."""
    with path.open("rb") as file:
        head = file.read(MORE)
        if opener_of(head):
            return "compressed, and what is in it is no tar file; unpack it and give the folder"
        return describe_file(head, file)


def refuse_by_name(path: Path) -> None:
    """Raise InputError if the name of a file, whose first bytes say nothing, tells a kind that is not read."""
    for pattern, what in REFUSED_NAMES:
        if re.search(pattern, path.name.lower()):
            raise InputError(f"{str(path)!r} is {what}")


def zip_kind(path: Path) -> str:
    """Return npz if all members are arrays of NumPy, torch for a file of PyTorch, otherwise zip."""
    with suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, IndexError):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/data.pkl") for name in names) and any(name.endswith("/version") for name in names):
            return "torch"
        return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"
    return "npz" if path.suffix.lower() == ".npz" else "zip"


def compressed_kind(path: Path, head: bytes) -> str | None:
    """Return the kind of a compressed file, None if it is not compressed or holds something else."""
    if (opener := opener_of(head)) is None:
        return None
    try:
        with unpacked(path) as content:
            inside = plain_kind(content.read(HEAD))
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return None
    if inside == "idx":
        return "idx" if opener is COMPRESSIONS[0][1] else None
    return "compressed tar" if inside == "tar" else None


@contextmanager
def unpacked(path: Place) -> Iterator[IO[bytes]]:
    """Open a file; one that is compressed by gzip, bzip2 or xz is unpacked while it is read, from front to back."""
    with path.open("rb") as file:
        opener = opener_of(file.read(HEAD))
        file.seek(0)
        if opener is None:
            yield file
        else:
            with opener(file) as content:
                yield content


def opener_of(head: bytes) -> Callable[[IO[bytes]], Any] | None:
    """Return what unpacks a file with these first bytes; None if it is not compressed."""
    return next((opener for magic, opener in COMPRESSIONS if head.startswith(magic)), None)


def plain_kind(head: bytes) -> str | None:
    """Return tar or idx, None if it is neither."""
    if len(head) >= 4 and head[:2] == b"\0\0" and head[2] in IDX_TYPES and 1 <= head[3] <= 4:
        return "idx"
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return "tar"
