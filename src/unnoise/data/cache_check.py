"""The files of decoded images in the cache: they are checked before they are used.

`meta.json` holds the SHA-256 of every other file and of itself. The small files are checked at each opening. So are
pixels up to `ALWAYS_CHECKED` bytes. More pixels are checked once, and again whenever the stamp of their file changes:
size, inode, and the times of its content and of its facts, which no program can set back. So 50 GB are not read at each
start. A disk that loses bytes leaves the stamp as it is; `unnoise cache --clean` checks everything.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from unnoise.cache_folder import is_private, is_real_folder, open_regular, restrict
from unnoise.data.numbers import Spans
from unnoise.data.sources.source import Array
from unnoise.files import parse_json
from unnoise.progress import Report, silent

CACHE_FORMAT = 2  # raise it whenever the files, or the pixels that the same images give, change
PIXELS, LABELS, META, CHECKED = "images.bin", "labels.npy", "meta.json", "checked.json"
ALWAYS_CHECKED = 2**26  # bytes of pixels that are checked at each opening; it takes a quarter of a second at most
CHECKED_AT_ONCE = 2**24  # bytes that are in memory
SETTLED = 2 * 10**9  # nanoseconds; the clock of a disk may be as coarse, and then a stamp hides a second change
SIZE_MAX = 2**26  # bytes of a small file
Stamp = tuple[int, int, int, int]  # size, inode, time of the content and of the facts in ns


class DamagedCacheError(ValueError):
    """Raised if decoded images are not what was written; the message is a few words."""


@dataclass(frozen=True)
class CacheMetadata:
    """The content of the JSON file next to the pixels."""

    mode: str
    shape: Sequence[int]  # c, h, w
    count: int
    classes: Sequence[str]
    fingerprint: str
    notes: Sequence[str]
    size: int  # bytes of the file of pixels
    spans: Spans = field(default_factory=dict)  # of the numbers
    checksums: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of each file
    no_classes: str = ""  # why there are no classes
    data: str = ""  # the name of the source, for `unnoise cache`
    held_out: Sequence[Sequence[int]] = ()  # ranges of the images in held-out splits: the first, and the one after
    format: int = CACHE_FORMAT


def write_metadata(metadata: CacheMetadata) -> bytes:
    """Return the JSON of the metadata and its own checksum."""
    values = asdict(metadata)
    return json.dumps({**values, "sha256": digest_of(values)}, indent=1).encode()


def read_metadata(folder: Path) -> CacheMetadata:
    """Return the metadata of a folder of decoded images; raise OSError or DamagedCacheError if they are not whole."""
    if not is_real_folder(folder):
        raise DamagedCacheError("no folder")
    values = parse_json(read_small(folder / META))
    if not isinstance(values, dict) or values.pop("sha256", None) != digest_of(values):
        raise DamagedCacheError(f"the checksum of {META} is wrong")
    return CacheMetadata(**values)


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_small(path: Path) -> bytes:
    """Return the content of a small file; raise OSError if it is missing, or a link."""
    with open_regular(path) as file:
        return file.read()


def read_array(folder: Path, name: str, metadata: CacheMetadata) -> Array:
    """Return the array in a file after checking its checksum; raise OSError or DamagedCacheError."""
    content = read_small(folder / name)
    if hashlib.sha256(content).hexdigest() != metadata.checksums.get(name):
        raise DamagedCacheError(f"the checksum of {name} is wrong")
    array: Array = np.load(BytesIO(content), allow_pickle=False)
    return array


def stamp_of(file: IO[bytes]) -> Stamp:
    """Return what changes whenever the content of an open file does."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def check_pixels(folder: Path, metadata: CacheMetadata, progress: Report = silent, *, always: bool = False) -> Stamp:
    """Check the pixels, unless they were checked with the same stamp, and return the stamp.

    Args:
        folder: The folder of decoded images.
        metadata: Its metadata.
        progress: Called with (task, megabytes done, megabytes in total).
        always: Read all bytes, also if the stamp is known.

    Raises:
        OSError: If the file is missing or cannot be read.
        DamagedCacheError: If the pixels have changed since they were written.
    """
    with open_regular(folder / PIXELS) as file:
        stamp = stamp_of(file)
        if stamp[0] != metadata.size:
            raise DamagedCacheError(f"{PIXELS} has {stamp[0]} bytes in place of {metadata.size}")
        wanted = metadata.checksums.get(PIXELS, "")
        known = [*stamp, wanted]
        if not always and stamp[0] > ALWAYS_CHECKED and read_checked(folder) == known:
            return stamp
        if checksum(file, stamp[0], progress) != wanted or stamp_of(file) != stamp:
            raise DamagedCacheError(f"the checksum of {PIXELS} is wrong")
    if stamp[0] > ALWAYS_CHECKED and time.time_ns() - max(stamp[2:]) > SETTLED:
        with suppress(OSError):  # a read-only cache is checked each time
            keep_checked(folder, known)
    return stamp


def keep_checked(folder: Path, known: Sequence[object]) -> None:
    """Keep the stamp and the checksum of pixels that were checked; raise OSError if the folder cannot be written."""
    part = folder / f"{CHECKED}.{os.getpid()}"
    with part.open("x") as file:  # x opens no link
        json.dump(known, file)
    if is_private(folder):
        restrict(part)
    part.replace(folder / CHECKED)


def read_checked(folder: Path) -> Any:
    """Return the stamp and the checksum of the pixels that were checked last, or None."""
    try:
        return parse_json(read_small(folder / CHECKED))
    except (OSError, ValueError):
        return None


def checksum(file: IO[bytes], size: int, progress: Report) -> str:
    """Return the SHA-256 of an open file."""
    digest, done = hashlib.sha256(), 0
    while some := file.read(CHECKED_AT_ONCE):
        digest.update(some)
        done += len(some)
        if size > ALWAYS_CHECKED:
            progress("checking decoded images (MB)", done // 10**6, size // 10**6)
    return digest.hexdigest()


def read_rows(file: IO[bytes], rows: Array, out: Array) -> None:
    """Read images by their numbers into `out` [b, c, h, w]; neighbours are read at once.

    The file is not mapped: if it is cut short or its disk fails, a map would end the process by SIGBUS.
    """
    size = out.nbytes // max(1, len(rows))
    flat = out.reshape(-1).view(np.uint8).reshape(len(rows), size)
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
    for begin, end in zip(starts, [*starts[1:], len(rows)], strict=False):  # no rows: an end without a start
        file.seek(int(rows[begin]) * size)
        part = flat[begin:end].reshape(-1).data
        while part:
            if not (n := file.readinto(part)):  # type: ignore[attr-defined]
                raise DamagedCacheError(f"{PIXELS} ends too early")
            part = part[n:]
