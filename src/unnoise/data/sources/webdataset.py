"""Tar shards in the WebDataset layout: KEY.jpg, and the class as text in KEY.cls, or as a folder; read in place.

The place of each image is found once, by reading the headers, and stored in the cache.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from itertools import chain
from typing import NamedTuple

import numpy as np

from unnoise.cache_folder import cache_folder, keep_bytes, kept_bytes
from unnoise.data.sources.archive import ARCHIVE_DAMAGE, list_tar_images, read_at, root_depth, sample_key
from unnoise.data.sources.remote import Place
from unnoise.data.sources.source import (
    ITEM_BYTES,
    Array,
    Group,
    Groups,
    Item,
    Source,
    class_names,
    explain_damage,
    file_key,
    label_from_path,
)
from unnoise.progress import Report

GROUP_IMAGES, GROUP_BYTES = 256, 2**24  # the most images and bytes of a group
INDEX_FORMAT = 3  # raise it whenever the stored index changes


class ShardIndex(NamedTuple):
    """The place of every image in the shards, one shard after another."""

    counts: Array  # images of each shard
    at: Array  # offset of the bytes of each image in its shard
    size: Array
    label: Array  # index into the classes, -1 if there is no label
    classes: Array  # their names


def read_shards(paths: Sequence[Place], name: str) -> Source:
    """Turn tar shards into a source; headers are read when the images are."""
    key = file_key(*paths)

    def groups(progress: Report) -> Groups:
        return shard_groups(paths, load_index(paths, key, progress))

    def items() -> Iterator[Item]:
        return chain.from_iterable(group.items() for group in groups(lambda *_: None).each)

    return Source(name, key, items, groups=groups)


def shard_groups(paths: Sequence[Place], found: ShardIndex) -> Groups:
    """Return the groups of all shards."""
    classes, each, first = tuple(found.classes.tolist()), list[Group](), 0
    for path, count in zip(paths, found.counts.tolist(), strict=True):
        for begin, end in cut_into_groups(found.size[first : first + count]):
            rows = slice(first + begin, first + end)
            at, size, label = (array[rows] for array in (found.at, found.size, found.label))
            names = [None if i < 0 else classes[i] for i in label.tolist()]
            mark = hashlib.sha256(at.tobytes() + size.tobytes() + label.tobytes()).hexdigest()
            items = partial(shard_items, path, at, size, names, begin)
            each.append(Group(len(names), items, f"{path.name} {mark}", int(size.sum()) + ITEM_BYTES * len(names)))
        first += count
    return Groups(each, classes)


def cut_into_groups(sizes: Array) -> Iterator[tuple[int, int]]:
    """Yield ranges of neighbours: at most GROUP_IMAGES images and GROUP_BYTES bytes, or one larger image."""
    ends, begin = sizes.cumsum(), 0
    while begin < len(sizes):
        before = ends[begin] - sizes[begin]
        end = min(begin + GROUP_IMAGES, max(begin + 1, int(np.searchsorted(ends, before + GROUP_BYTES, "right"))))
        yield begin, end
        begin = end


def shard_items(path: Place, at: Array, size: Array, labels: Sequence[str | None], first: int) -> Iterator[Item]:
    """Yield the items of one group, in their order in the shard."""
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), path.open("rb") as file:
        for i, (begin, length, label) in enumerate(zip(at.tolist(), size.tolist(), labels, strict=True)):
            yield Item(f"{path.name} image {first + i}", read_at(file, begin, length), label)


def load_index(paths: Sequence[Place], key: str, progress: Report) -> ShardIndex:
    """Return the index of these shards from the cache; if it is missing or damaged, build it and store it."""
    place = cache_folder() / "shards" / f"{hashlib.sha256(f'{key} {INDEX_FORMAT}'.encode()).hexdigest()[:32]}.npz"
    if kept := kept_bytes(place):
        arrays = np.load(BytesIO(kept), allow_pickle=False)
        return ShardIndex(**{name: arrays[name] for name in ShardIndex._fields})
    found = build_index(paths, progress)
    np.savez(content := BytesIO(), **found._asdict(), data=np.array(paths[0].name))
    with suppress(OSError):  # a cache that is full or read-only: the index is built at each start
        keep_bytes(place, content.getvalue())
    return found


def build_index(paths: Sequence[Place], progress: Report) -> ShardIndex:
    """Find every image by reading the headers of the shards."""
    counts, at, size, labels = list[int](), list[Array](), list[Array](), list[str | None]()
    for i, path in enumerate(paths):
        progress("indexing shards", i, len(paths))
        named: dict[str, str] = {}
        images = [*list_tar_images(path, "r:", Counter(), named)]
        counts.append(len(images))
        at.append(np.array([image.at for image in images], np.int64))
        size.append(np.array([image.size for image in images], np.int64))
        depth = root_depth(images)
        labels += [
            named.get(sample_key("/".join(image.parts))) or label_from_path(image.parts[depth:]) for image in images
        ]
    progress("indexing shards", len(paths), len(paths))
    classes = class_names(set(labels))
    known = {name: i for i, name in enumerate(classes)}
    label = np.array([known.get(name or "", -1) for name in labels], np.int64)
    return ShardIndex(
        np.array(counts, np.int64), np.concatenate(at), np.concatenate(size), label, np.array(classes, str)
    )
