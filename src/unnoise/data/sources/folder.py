"""Folders of images: recursive, in sorted order; sub-folders are classes."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from unnoise.data.sources.source import (
    ITEM_BYTES,
    Group,
    Groups,
    Item,
    Source,
    class_names,
    is_hidden,
    is_image,
    label_from_path,
    printable,
    suffix_of,
)
from unnoise.errors import InputError

T = TypeVar("T")
GROUP_IMAGES = 64  # images of a group


def read_folder(root: Path) -> Source:
    """Turn a folder of images into a source by names, sizes and times; no image is opened."""
    digest = hashlib.sha256(os.fsencode(root.resolve()))
    ignored: Counter[str] = Counter()
    count = 0
    for path in walk_files(root):
        if not is_image(path.name):
            ignored[suffix_of(path.name)] += 1
            continue
        count += 1
        digest.update(os.fsencode(path.relative_to(root)) + stat_bytes(path))
    return Source(
        root.resolve().name or "data",
        digest.hexdigest(),
        lambda: folder_items(root, image_paths(root)),
        count,
        ignored,
        groups=lambda _: folder_groups(root),
    )


def image_paths(root: Path) -> Iterator[Path]:
    """Yield the paths of all images below a folder, in order."""
    return (path for path in walk_files(root) if is_image(path.name))


def folder_items(root: Path, paths: Iterable[Path]) -> Iterator[Item]:
    for path in paths:
        parts = [printable(part) for part in path.relative_to(root).parts]
        yield Item("/".join(parts), path, label_from_path(parts))


def folder_groups(root: Path) -> Groups:
    """Return groups of neighbours by name; only their paths are kept in memory."""
    each, labels, paths = list[Group](), set[str | None](), image_paths(root)
    while some := [*islice(paths, GROUP_IMAGES)]:
        labels |= {item.label for item in folder_items(root, some)}
        digest = hashlib.sha256()
        for path in some:
            size = path.stat().st_size if path.exists() else None
            digest.update(os.fsencode(path.relative_to(root)) + f"\0{size}\0".encode())
        each.append(Group(len(some), partial(folder_items, root, some), digest.hexdigest(), ITEM_BYTES * len(some)))
    return Groups(each, class_names(labels))


def walk_files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield all files below a folder, sorted; links are followed once."""
    real = folder.resolve()
    if real in above:  # a link back to a folder we are in
        return
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - plain names sort faster than paths
    except OSError as error:
        raise InputError(f"cannot list {str(folder)!r}: {error.strerror}") from None
    for name in names:
        path = folder / name
        if is_hidden(name):
            continue
        if path.is_dir():
            yield from walk_files(path, (*above, real))
        elif path.is_file() or not path.exists():  # a dangling link is reported when it is opened; a pipe never is
            yield path


def stat_bytes(path: Path) -> bytes:
    """Return size and time of a file, for the key of a source."""
    try:
        stat = path.stat()
    except OSError:
        return b"\0gone\0"
    return f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()


def has_images(folder: Path) -> bool:
    """Return whether there is any image below a folder."""
    return any(True for _ in image_paths(folder))


def files_with_suffix(folder: Path, suffix: str) -> list[Path]:
    """Return the files below a folder with this suffix; if splits are named, the training split alone."""
    found = [path for path in walk_files(folder) if path.suffix.lower() == suffix]
    return training_split([(str(path.relative_to(folder)), path) for path in found])


def training_split(named: Sequence[tuple[str, T]]) -> list[T]:
    """Return the files with the word train in the name of a folder or file; all files if no name has the word."""
    return [place for name, place in named if re.search(r"(^|[^a-z])train(ing|set)?([^a-z]|$)", name.lower())] or [
        place for _, place in named
    ]
