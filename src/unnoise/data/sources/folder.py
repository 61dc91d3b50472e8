"""A folder of images: recursive, in sorted order, sub-folders are classes."""

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
    ITEM,
    Group,
    Groups,
    Item,
    Source,
    class_names,
    is_hidden,
    is_image,
    label_of,
    printable,
    suffix_of,
)
from unnoise.errors import InputError

T = TypeVar("T")
TOGETHER = 64  # images of a group


def read_folder(root: Path) -> Source:
    """Look at names, sizes and times; nothing is opened."""
    digest = hashlib.sha256(os.fsencode(root.resolve()))
    ignored: Counter[str] = Counter()
    count = 0
    for path in walk(root):
        if not is_image(path.name):
            ignored[suffix_of(path.name)] += 1
            continue
        count += 1
        digest.update(os.fsencode(path.relative_to(root)) + stamp(path))
    return Source(
        root.resolve().name or "data",
        digest.hexdigest(),
        lambda: stream(root, images(root)),
        count,
        ignored,
        groups=lambda _: grouped(root),
    )


def images(root: Path) -> Iterator[Path]:
    return (path for path in walk(root) if is_image(path.name))


def stream(root: Path, paths: Iterable[Path]) -> Iterator[Item]:
    for path in paths:
        parts = [printable(part) for part in path.relative_to(root).parts]
        yield Item("/".join(parts), path, label_of(parts))


def grouped(root: Path) -> Groups:
    """Neighbours by name; only their paths are kept."""
    each, labels, paths = list[Group](), set[str | None](), images(root)
    while some := [*islice(paths, TOGETHER)]:
        labels |= {item.label for item in stream(root, some)}
        digest = hashlib.sha256()
        for path in some:
            size = path.stat().st_size if path.exists() else None
            digest.update(os.fsencode(path.relative_to(root)) + f"\0{size}\0".encode())
        each.append(Group(len(some), partial(stream, root, some), digest.hexdigest(), ITEM * len(some)))
    return Groups(each, class_names(labels))


def walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files below a folder, sorted, links followed once."""
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
            yield from walk(path, (*above, real))
        elif path.is_file() or not path.exists():  # a dangling link is reported when it is opened; a pipe never is
            yield path


def stamp(path: Path) -> bytes:
    try:
        stat = path.stat()
    except OSError:
        return b"\0gone\0"
    return f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()


def images_below(folder: Path) -> bool:
    return any(True for _ in images(folder))


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Of a data set in another format; where splits are named, the training split alone."""
    found = [path for path in walk(folder) if path.suffix.lower() == suffix]
    return training([(str(path.relative_to(folder)), path) for path in found])


def training(named: Sequence[tuple[str, T]]) -> list[T]:
    """Those with the word train in a folder's or their own name; all where none has it."""
    return [place for name, place in named if re.search(r"(^|[^a-z])train(ing|set)?([^a-z]|$)", name.lower())] or [
        place for _, place in named
    ]
