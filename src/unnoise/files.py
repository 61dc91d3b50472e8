"""Write files that are whole or not there at all, and take folders that no other program uses."""

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from unnoise.errors import InputError

LOCK = ".lock"


@contextmanager
def replacing(path: Path, before: Path | None = None, *, flush: bool = True) -> Iterator[Path]:
    """Provide a temporary path to write to; it replaces `path` only when it is whole and on the disk.

    Args:
        path: the file to write.
        before: keep the file that was at `path` under this name; None drops it.
        flush: wait for the disk; without it, a power cut may leave an empty file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        if flush:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        if before and path.exists():
            path.replace(before)
        temporary.replace(path)
        if flush:
            flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Let a new name survive a power cut, on systems that can flush a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, result: Any) -> None:
    """Write JSON as a whole file; numbers that are not finite become null, which every reader of JSON knows."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite_json(result), indent=1, allow_nan=False), encoding="utf-8")


def finite_json(value: Any) -> Any:
    """Return the value with None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; raise ValueError if it is damaged or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of JSON lines that can be read; the last line may have been cut off."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def check_writable(path: Path, flag: str) -> None:
    """Raise InputError if no file can be written at a path; call it before work whose result goes there.

    An unnamed file is made next to the path, since permissions do not tell all.

    Args:
        path: The file that will be written.
        flag: The flag that names another place.
    """
    if why := unwritable(path):
        raise InputError(f"cannot write {path} ({why}); name another place by {flag}")


def unwritable(path: Path) -> str:
    """Return why no file can be written at a path, or an empty text if one can."""
    try:
        if path.is_dir():
            return "it is a folder"
        with tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.name[:40]}."):
            return ""
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def check_new_folder(wanted: str | None, parent: Path) -> None:
    """Raise InputError if `new_folder` would fail; call it before work whose results go there."""
    folder = parent / "new" if wanted is None else check_vacant(wanted)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if why := unwritable(existing / "new"):
        raise InputError(f"cannot write to {existing} ({why}); choose another folder with --out")


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return a path whose ~ is replaced by a home folder; raise InputError if there is none."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = Path(text).parts[0]
        raise InputError(f"{text}: no home folder of {user} is known here; write the path without {user}") from None


def refuse_dead_link(path: Path) -> None:
    """Raise InputError if a path, or a folder above it, is a link to nothing."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise InputError(f"{place} is a link to {place.readlink()}, which is not there")


def new_folder(wanted: str | None, parent: Path, stem: str) -> Path:
    """Create the folder `wanted`, or the first free parent/stem-N; never use a folder that holds files."""
    if wanted is None:
        return next(path for i in count(1) if (path := parent / f"{stem}-{i}") and create_folder(path))
    create_folder(folder := check_vacant(wanted))
    return folder


def check_vacant(wanted: str) -> Path:
    """Return a folder that does not exist, or is empty except for hidden files; else raise InputError."""
    folder = user_path(wanted)
    refuse_dead_link(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; name a new folder")
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"--out {folder} already holds files, which are never overwritten; name a new folder")
    return folder


def create_folder(folder: Path) -> bool:
    """Make a folder; return False if it exists already, so that two programs never take the same one."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        if folder.is_dir():
            return False
        refuse_dead_link(folder)
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another folder with --out") from error
    return True


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder in this context; raise InputError if another program uses it. The lock ends with the process."""
    if (folder / LOCK).is_symlink():  # FileLock may empty the file that the link leads to
        raise InputError(f"{folder / LOCK} is a link, which is never followed; remove it")
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder} is in use by another program; wait for it, or name a new folder") from None
    except OSError as error:
        raise InputError(
            f"cannot write to {folder} ({error.strerror}); copy it to a folder that you may write"
        ) from error
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of programs that were killed while they wrote."""
    for part in folder.rglob(".*.part*"):
        number = part.name.partition(".part")[0].rpartition(".")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            part.unlink(missing_ok=True)
