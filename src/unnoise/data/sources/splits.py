"""Splits that are files of their own, such as `train-00000.parquet` next to `test-00000.parquet`."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TypeVar, overload

from unnoise.data.sources.classes import join_first
from unnoise.data.sources.layout import HELD_OUT_WORD, TRAIN_WORD
from unnoise.data.sources.source import Groups, Item, Source
from unnoise.progress import Report

T = TypeVar("T")


def read_splits(named: Sequence[tuple[str, T]], read: Callable[[Sequence[T]], Source]) -> Source:
    """Read files that may be splits of one dataset: the held-out ones are marked, files of no split are left out."""
    train, held_out, others = split_files(named)
    source = read(train)
    if held_out:
        names = [name for name, _ in named if split_of_file(name)]
        source = join_splits(source, read(held_out), names)
    if others:
        left = f"left out {len(others):,} files that belong to no split: {join_first(others)}"
        source = replace(source, notes=Notes(source.notes, [left]))
    return source


class Notes(Sequence[str]):
    """Lines from several sources, which may still grow."""

    def __init__(self, *each: Sequence[str]) -> None:
        self.each = each

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return [*chain.from_iterable(self.each)][index]

    def __len__(self) -> int:
        return sum(map(len, self.each))


def join_splits(train: Source, held_out: Source, names: Sequence[str]) -> Source:
    """Return one source of two: the images of the second one are held out."""
    count = None if train.count is None or held_out.count is None else train.count + held_out.count
    number = "the images" if held_out.count is None else f"{held_out.count:,} images"
    key = hashlib.sha256(ascii((train.key, "held out", held_out.key)).encode()).hexdigest()

    def groups(progress: Report) -> Groups:
        assert train.groups is not None
        assert held_out.groups is not None
        each, classes = train.groups(progress)
        others = held_out.groups(progress).each
        marked = [replace(group, items=partial(marked_items, group.items), held_out=True) for group in others]
        return Groups([*each, *marked], classes)

    return replace(
        train,
        key=key,
        items=lambda: chain(train.items(), marked_items(held_out.items)),
        count=count,
        groups=groups if train.groups and held_out.groups else None,
        uniform=False,
        notes=Notes(train.notes, [f"{number} of the held-out splits are not trained on: {join_first(names)}"]),
    )


def join_sources(name: str, sources: Sequence[Source]) -> Source:
    """Return one source of several: the images of one after another."""
    if len(sources) == 1:
        return sources[0]
    counts = [source.count for source in sources]
    key = hashlib.sha256(ascii([source.key for source in sources]).encode()).hexdigest()
    return Source(
        name,
        key,
        lambda: chain.from_iterable(source.items() for source in sources),
        None if None in counts else sum(count or 0 for count in counts),
        sum((Counter(source.ignored) for source in sources), Counter[str]()),
        notes=Notes(*(source.notes for source in sources)),
    )


def marked_items(items: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Yield the items of a held-out split."""
    for item in items():
        yield item._replace(name=f"{item.name} (held out)", held_out=True)


def split_files(named: Sequence[tuple[str, T]]) -> tuple[list[T], list[T], list[str]]:
    """Divide files by the split that their name, or the name of a folder, says.

    Args:
        named: the path and the file itself, for each file.

    Returns:
        The files to train on, the files that are held out, and the names of files that belong to no split. If no file
        belongs to a training split, all files are trained on.
    """
    train, held_out, others = list[T](), list[T](), list[tuple[str, T]]()
    for name, file in named:
        kind = split_of_file(name)
        if kind is None:
            others.append((name, file))
        else:
            (held_out if kind else train).append(file)
    if train:
        return train, held_out, [name for name, _ in others]
    return [file for _, file in named], [], []


def split_of_file(name: str) -> bool | None:
    """Return False for a file of a training split, True for a held-out one; the word nearest to the end decides."""
    words = re.findall(rf"(?<![a-z])(?:({TRAIN_WORD})|{HELD_OUT_WORD}|t10k)(?:set)?(?![a-z])", name.lower())
    return None if not words else not words[-1]
