"""The folder of the cache: private by default, written in whole parts, swept of parts that were left unfinished.

Nothing in the cache is opened through a link, which another user of a shared cache may have planted. A file is written
in a scratch folder of an unpredictable name and moved into place. The scratch folder is locked while its process lives,
so that the next program knows which scratch folders a killed process has left.
"""

import errno
import hashlib
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from unnoise.errors import InputError
from unnoise.files import LOCK, flush_folder

SCRATCH = ".building-"
OWNER = "owner"  # file in a scratch folder: the name of the machine that locks the folder
FORSAKEN = 7 * 86_400.0  # seconds without a change after which a scratch folder without a known owner is stale
LOCK_SECONDS = 60.0  # that a program waits for another one that moves files into the cache
DIGEST_BYTES = hashlib.sha256().digest_size
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def cache_folder() -> Path:
    """Return `$UNNOISE_CACHE`, or else `unnoise` in the user's cache folder."""
    own = os.environ.get("UNNOISE_CACHE")
    try:
        return Path(own).expanduser() if own else default_folder()
    except RuntimeError:  # no HOME, or ~NAME of a user who does not exist
        raise InputError(
            f"{f'UNNOISE_CACHE={own!r}' if own else 'the cache'} names no folder, since there is no such home folder; "
            f"set UNNOISE_CACHE to a folder that you may write"
        ) from None


def default_folder() -> Path:
    """Return the folder of the cache if UNNOISE_CACHE names none."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "unnoise"


def make_private(cache: Path) -> None:
    """Create the folder of the cache for its owner alone; a folder that UNNOISE_CACHE names keeps its permissions."""
    if cache.is_symlink() and not cache.exists():
        raise InputError(f"the cache {str(cache)!r} is a link to nothing; remove it, or set UNNOISE_CACHE to a folder")
    cache.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    with suppress(OSError, RuntimeError):  # another user owns it; there is no home folder
        if cache == default_folder() and not is_private(cache):
            cache.chmod(stat.S_IRWXU)


def is_private(cache: Path) -> bool:
    """Return True if the owner of the cache is the only one who may read it."""
    return not cache.stat().st_mode & OTHERS


@contextmanager
def building(cache: Path) -> Iterator[Path]:
    """Provide a scratch folder inside the cache; it is locked meanwhile, and removed at the end.

    Raises:
        OSError: If the cache cannot be written.
    """
    make_private(cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix=SCRATCH, ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        with locked(scratch):
            (scratch / OWNER).write_text(platform.node(), encoding="utf-8")  # after the lock: from now on it counts
            (work := scratch / "work").mkdir()
            yield work


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, if the disk has locks and no other program holds this one for long."""
    lock = FileLock(folder / LOCK, timeout=LOCK_SECONDS, mode=0o600 if is_private(folder) else 0o666)
    with suppress(OSError, NotImplementedError, Timeout):  # it keeps two repairs apart; each is whole without it
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def publish(new: Path, place: Path) -> None:
    """Move a finished file or folder to its place in the cache; what was there is replaced, and no link is followed."""
    if is_private(place.parent):
        restrict(new)
    if new.is_dir() and (place.is_symlink() or place.exists()):  # a rename replaces files alone
        place.rename(new.with_name("old"))
    new.replace(place)
    flush_folder(place.parent)


def restrict(path: Path) -> None:
    """Take the permissions of all users except the owner from a file, or from a folder and its files."""
    path.chmod(stat.S_IRWXU if path.is_dir() else stat.S_IRUSR | stat.S_IWUSR)
    for inside in path.iterdir() if path.is_dir() else ():
        restrict(inside)


def keep_file(place: Path, write: Callable[[Path], object]) -> None:
    """Write a file of a sub-folder of the cache as a whole.

    Args:
        place: The file, CACHE/KIND/NAME.
        write: Writes the file that it is given.

    Raises:
        OSError: If the cache cannot be written.
    """
    folder, cache = place.parent, place.parent.parent
    with building(cache) as work:
        if not is_real_folder(folder):
            (work / folder.name).mkdir()
            publish(work / folder.name, folder)
        write(work / place.name)
        publish(work / place.name, place)


def keep_bytes(place: Path, content: bytes) -> None:
    """Write a file of a sub-folder of the cache, the checksum first; raise OSError if the cache cannot be written."""
    keep_file(place, lambda path: path.write_bytes(hashlib.sha256(content).digest() + content))


def kept_bytes(place: Path) -> bytes | None:
    """Return the content of a file of `keep_bytes` for use; None if it is missing or damaged."""
    content = checked_bytes(place)
    if content is not None:
        mark_used(place)
    return content


def checked_bytes(place: Path) -> bytes | None:
    """Return the content of a file of `keep_bytes`; None if it is missing or damaged."""
    try:
        with open_regular(place) as file:
            whole = file.read()
    except OSError:
        return None
    digest, content = whole[:DIGEST_BYTES], whole[DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading, unbuffered; raise OSError for a link, a folder or a pipe."""
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def is_real_folder(path: Path) -> bool:
    """Return True if a path is a folder and no link to one."""
    return path.is_dir() and not path.is_symlink()


def mark_used(path: Path) -> None:
    """Set the time of a file or folder of the cache to now, which is what `unnoise cache` shows as its last use."""
    with suppress(OSError):  # a read-only cache, or the file of another user
        os.utime(path)


def sweep(cache: Path) -> int:
    """Remove scratch folders that killed processes have left, never one of a living process; return how many."""
    stale = [path for path in cache.glob(f"{SCRATCH}*") if is_forsaken(path)]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return sum(not path.exists() for path in stale)


def is_forsaken(scratch: Path) -> bool:
    """Return True if the process that made a scratch folder has ended.

    The lock tells it on this machine. For another machine, whose locks may not be seen here, or another version of
    unnoise, which had no lock, a week without a change tells it.
    """
    try:
        if not is_real_folder(scratch):
            return False
        if (scratch / OWNER).is_file() and (scratch / OWNER).read_text(encoding="utf-8") == platform.node():
            with FileLock(scratch / LOCK, timeout=0):
                return True
        newest = max(path.lstat().st_mtime for path in (scratch, *scratch.rglob("*")))
        return time.time() - newest > FORSAKEN
    except (OSError, NotImplementedError, ValueError):  # Timeout is an OSError: a living process holds the lock
        return False
