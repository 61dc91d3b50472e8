"""`unnoise cache` lists the parts of the cache, and removes stale parts, old parts, or all.

Only parts that unnoise made are listed and removed: another file in the folder stays. The last use is the time of the
file or folder, which is set to now at each use, and every hour during a training.
"""

import json
import math
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from unnoise.cache_folder import SCRATCH, cache_folder, checked_bytes, is_forsaken, is_real_folder, locked
from unnoise.config import CacheConfig
from unnoise.data.cache_check import CACHE_FORMAT, LABELS, check_pixels, read_array, read_metadata
from unnoise.errors import InputError
from unnoise.progress import Report, silent

UNFINISHED_DAYS = 7.0  # after which unfinished statistics are stale
DAY = 86_400.0
KEY = re.compile(r"[0-9a-f]{32}")


class Part(NamedTuple):
    """A part of the cache: a folder of decoded images, a file of statistics, ..."""

    path: Path
    about: str
    size: int  # bytes
    used: float  # time of the last use, in seconds since 1970
    stale: str = ""  # why nothing will use it, or ""
    busy: bool = False  # a process writes it now


def list_parts(cache: Path, progress: Report = silent, *, check: bool = False) -> list[Part]:
    """Return the parts of a cache, the last used first; with `check`, every byte of decoded images is checked."""
    paths, parts = [*cache.glob("*")], list[Part]()
    for kind, pattern in (("statistics", "*.safetensors"), ("shards", "*.npz")):
        paths += (cache / kind).glob(pattern) if is_real_folder(cache / kind) else ()
    for path in paths:
        with suppress(FileNotFoundError):  # another process has just removed it
            parts += describe_part(path, progress, check=check)
    return sorted(parts, key=lambda part: -part.used)


def describe_part(path: Path, progress: Report, *, check: bool) -> Iterator[Part]:
    """Yield the part at a path, if it is one."""
    found, busy = path.lstat(), False
    if path.name.startswith(SCRATCH) and is_real_folder(path):
        about, stale = "an unfinished part", "its process was killed" if is_forsaken(path) else ""
        busy = not stale
    elif path.is_symlink() and (KEY.match(path.name) or path.parent.name in ("statistics", "shards")):
        about, stale = "a link", "no link in the cache is followed"
    elif KEY.fullmatch(path.name):
        about, stale = describe_images(path, progress, check=check)
    elif path.parent.name == "statistics":
        about, stale = describe_statistics(path, time.time() - found.st_mtime)
    elif path.parent.name == "shards":
        about, stale = describe_index(path)
    else:
        return
    yield Part(path, about, size_of(path), found.st_mtime, stale, busy)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the files of a folder; no link is followed."""
    inside = path.rglob("*") if is_real_folder(path) else ()
    return sum(file.lstat().st_size for file in (path, *inside) if file.is_symlink() or not file.is_dir())


def describe_images(folder: Path, progress: Report, *, check: bool) -> tuple[str, str]:
    """Return what decoded images are of, and why they are stale, or ""."""
    try:
        metadata = read_metadata(folder)
        if check:
            read_array(folder, LABELS, metadata)
            check_pixels(folder, metadata, progress, always=True)
    except (OSError, ValueError, TypeError, RecursionError):
        return "decoded images", "damaged, or of an earlier version"
    c, h, w = metadata.shape
    about = f"{metadata.count:,} decoded images of {metadata.data}, {w}x{h}, {metadata.mode or f'{c} channels'}"
    return about, "of an earlier version" if metadata.format < CACHE_FORMAT else ""


def describe_statistics(path: Path, age: float) -> tuple[str, str]:
    """Return what statistics are of, and why they are stale, or ""."""
    if path.name.startswith("partial-"):
        return "unfinished statistics", "unfinished for a week" if age > UNFINISHED_DAYS * DAY else ""
    try:
        with safe_open(path, "numpy") as file:
            about = json.loads((file.metadata() or {})["unnoise"])
        return f"statistics of {about['name']} ({about['network']})", ""
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return "statistics", "damaged"


def describe_index(path: Path) -> tuple[str, str]:
    """Return what an index of shards is of, and why it is stale, or ""."""
    content = checked_bytes(path)
    if content is None:
        return "an index of tar shards", "damaged, or of an earlier version"
    arrays = np.load(BytesIO(content), allow_pickle=False)
    return f"the index of {arrays['data']} and its {len(arrays['counts']):,} tar shards", ""


def choose_parts(parts: Sequence[Part], older_than: float | None, *, every: bool) -> list[Part]:
    """Return the parts to remove: the stale ones, and those not used for some days, or all; never one in work."""
    before = -math.inf if older_than is None else time.time() - older_than * DAY
    return [part for part in parts if not part.busy and (every or part.stale or part.used < before)]


def remove_parts(parts: Sequence[Part], cache: Path) -> None:
    """Remove parts of the cache; raise InputError if one cannot be removed."""
    with locked(cache):  # nobody moves a new folder to the place of an old one meanwhile
        for part in parts:
            try:
                shutil.rmtree(part.path) if is_real_folder(part.path) else part.path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(f"cannot remove {str(part.path)!r}: {error.strerror}") from error


def run_cache(config: CacheConfig, progress: Report = silent) -> list[str]:
    """List the cache or remove some parts, and return the lines for the user."""
    cache = cache_folder()
    parts = list_parts(cache, progress, check=config.clean)
    chosen = choose_parts(parts, config.older_than, every=config.all)
    if config.clean:
        if chosen:
            remove_parts(chosen, cache)
        return [*map(describe, chosen), f"removed {total(chosen)} of {total(parts)} from {cache}"]
    if config.all or config.older_than is not None:
        return [*map(describe, chosen), f"--clean would remove {total(chosen)} of {total(parts)} from {cache}"]
    hint = f"; --clean removes {total(chosen)}, which are stale" if chosen else ""
    return [*map(describe, parts), f"{total(parts)} in {cache}{hint}"]


def total(parts: Sequence[Part]) -> str:
    """Return the number and the size of some parts as text."""
    return f"{len(parts)} part{'s' * (len(parts) != 1)} ({size_text(sum(part.size for part in parts))})"


def describe(part: Part) -> str:
    """Return one line about a part."""
    days = int((time.time() - part.used) / DAY)
    used = "today" if days < 1 else f"{days:,} day{'s' * (days > 1)} ago"
    more = f" [{'in work' if part.busy else part.stale}]" if part.busy or part.stale else ""
    return f"{size_text(part.size):>9}  used {used:14}  {part.about}{more}"


def size_text(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
