"""Tar shards, as WebDataset writes them: KEY.jpg, and its class as text in KEY.cls, or its folder; read in place.

Where each image lies is found once, by the headers, and kept in the cache.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from unnoise.data.sources.archive import DAMAGE, bytes_at, key_of, root_depth, survey_tar
from unnoise.data.sources.remote import Place
from unnoise.data.sources.source import (
    ITEM,
    Array,
    Group,
    Groups,
    Item,
    Source,
    class_names,
    errors_in_words,
    file_key,
    label_of,
)
from unnoise.files import cache_folder, replacing
from unnoise.progress import Report

TOGETHER, BYTES = 256, 2**24  # images of a group, and of all of them
FORMAT = 2  # of the index


class Index(NamedTuple):
    """Of all shards, one after another."""

    counts: Array  # images of each shard
    at: Array  # offset of the bytes of each image in its shard
    size: Array
    label: Array  # index into the classes, -1 where there is none
    classes: Array  # their names


def read_shards(paths: Sequence[Place], name: str) -> Source:
    key = file_key(*paths)

    def groups(progress: Report) -> Groups:
        return grouped(paths, index(paths, key, progress))

    def items() -> Iterator[Item]:
        return chain.from_iterable(group.items() for group in groups(lambda *_: None).each)

    return Source(name, key, items, groups=groups)


def grouped(paths: Sequence[Place], found: Index) -> Groups:
    classes, each, first = tuple(found.classes.tolist()), list[Group](), 0
    for path, count in zip(paths, found.counts.tolist(), strict=True):
        for begin, end in pieces(found.size[first : first + count]):
            rows = slice(first + begin, first + end)
            at, size, label = (array[rows] for array in (found.at, found.size, found.label))
            names = [None if i < 0 else classes[i] for i in label.tolist()]
            mark = hashlib.sha256(at.tobytes() + size.tobytes() + label.tobytes()).hexdigest()
            items = partial(members, path, at, size, names, begin)
            each.append(Group(len(names), items, f"{path.name} {mark}", int(size.sum()) + ITEM * len(names)))
        first += count
    return Groups(each, classes)


def pieces(sizes: Array) -> Iterator[tuple[int, int]]:
    """Ranges of neighbours, of TOGETHER images or BYTES bytes at most, or of one larger image."""
    ends, begin = sizes.cumsum(), 0
    while begin < len(sizes):
        before = ends[begin] - sizes[begin]
        end = min(begin + TOGETHER, max(begin + 1, int(np.searchsorted(ends, before + BYTES, "right"))))
        yield begin, end
        begin = end


def members(path: Place, at: Array, size: Array, labels: Sequence[str | None], first: int) -> Iterator[Item]:
    """Of a piece of a shard, in the order they lie in it."""
    with errors_in_words(path, DAMAGE, "archive"), path.open("rb") as file:
        for i, (begin, length, label) in enumerate(zip(at.tolist(), size.tolist(), labels, strict=True)):
            yield Item(f"{path.name} image {first + i}", bytes_at(file, begin, length), label)


def index(paths: Sequence[Place], key: str, progress: Report) -> Index:
    place = cache_folder() / "shards" / f"{hashlib.sha256(f'{key} {FORMAT}'.encode()).hexdigest()[:32]}.npz"
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return Index(**{name: kept[name] for name in Index._fields})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass  # not there, or damaged: found again
    found = looked_up(paths, progress)
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as temporary:
        np.savez(temporary, **found._asdict())
    return found


def looked_up(paths: Sequence[Place], progress: Report) -> Index:
    counts, at, size, labels = list[int](), list[Array](), list[Array](), list[str | None]()
    for i, path in enumerate(paths):
        progress("indexing shards", i, len(paths))
        named: dict[str, str] = {}
        images = [*survey_tar(path, "r:", Counter(), named)]
        counts.append(len(images))
        at.append(np.array([image.at for image in images], np.int64))
        size.append(np.array([image.size for image in images], np.int64))
        depth = root_depth(images)
        labels += [named.get(key_of("/".join(image.parts))) or label_of(image.parts[depth:]) for image in images]
    progress("indexing shards", len(paths), len(paths))
    classes = class_names(set(labels))
    known = {name: i for i, name in enumerate(classes)}
    label = np.array([known.get(name or "", -1) for name in labels], np.int64)
    return Index(np.array(counts, np.int64), np.concatenate(at), np.concatenate(size), label, np.array(classes, str))
