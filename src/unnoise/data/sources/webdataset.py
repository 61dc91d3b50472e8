"""Tar shards in the WebDataset layout: KEY.jpg, and the class as text in KEY.cls, or as a folder; read in place.

The place of each image is found once, by reading the headers, and stored in the cache. Compressed shards are unpacked
while they are read, each from front to back.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from unnoise.cache_folder import cache_folder, keep_bytes, kept_bytes
from unnoise.data.sources.archive import ARCHIVE_DAMAGE, Listing, Member, list_tar_images, read_at
from unnoise.data.sources.container import HEAD, opener_of, unpacked
from unnoise.data.sources.labels import LabelFiles
from unnoise.data.sources.layout import FolderCount, Layout
from unnoise.data.sources.remote import Place
from unnoise.data.sources.samples import Samples
from unnoise.data.sources.source import (
    ITEM_BYTES,
    Array,
    Group,
    Groups,
    Item,
    Source,
    class_names,
    column_key,
    explain_damage,
    file_key,
    normal_label,
)
from unnoise.errors import InputError
from unnoise.progress import Report

GROUP_IMAGES, GROUP_BYTES = 256, 2**24  # the most images and bytes of a group
INDEX_FORMAT = 5  # raise it whenever the stored index changes
MAX_SAID = 5  # lines about single shards that are kept


class ShardIndex(NamedTuple):
    """The place of every image in the shards, one shard after another."""

    counts: Array  # images of each shard
    at: Array  # offset of the bytes of each image in its shard
    size: Array
    label: Array  # index into the classes, -1 if there is no label
    held_out: Array  # whether each image belongs to a held-out split
    classes: Array  # their names
    notes: Array  # lines for the user
    packed: Array  # whether each shard is compressed


def read_shards(paths: Sequence[Place], name: str, column: str | None = None) -> Source:
    """Turn tar shards into a source; headers are read when the images are."""
    key, notes = column_key(file_key(*paths), column), list[str]()

    def all_groups(progress: Report) -> tuple[ShardIndex, Groups]:
        index = load_index(paths, key, column, progress)
        notes[:] = index.notes.tolist()
        return index, shard_groups(paths, index)

    def items() -> Iterator[Item]:
        return chain.from_iterable(group.items() for group in all_groups(lambda *_: None)[1].each)

    def groups(progress: Report) -> Groups:
        index, found = all_groups(progress)
        if index.packed.any():
            packed = str(paths[int(index.packed.argmax())])
            raise InputError(
                f"--stream cannot read {packed!r}, which is compressed; unpack the shards to plain .tar files"
            )
        return found

    return Source(name, key, items, groups=groups, notes=notes)


def shard_groups(paths: Sequence[Place], found: ShardIndex) -> Groups:
    """Return the groups of all shards: the images to train on, and then the images of held-out splits."""
    classes, each = tuple(found.classes.tolist()), list[Group]()
    last = found.counts.cumsum()
    for held_out in (False, True):
        for path, end, count, packed in zip(paths, last.tolist(), found.counts.tolist(), found.packed, strict=True):
            numbers = np.flatnonzero(found.held_out[end - count : end] == held_out)
            rows = numbers + (end - count)
            for begin, stop in [(0, len(rows))] if packed else cut_into_groups(found.size[rows]):
                at, size, label = (array[rows[begin:stop]] for array in (found.at, found.size, found.label))
                names = [None if i < 0 else classes[i] for i in label.tolist()]
                mark = hashlib.sha256(at.tobytes() + size.tobytes() + label.tobytes()).hexdigest()
                images = [*zip(numbers[begin:stop].tolist(), names, strict=True)]
                items = partial(shard_items, path, at, size, images, held_out=held_out)
                room = int(size.sum()) + ITEM_BYTES * len(names)
                each.append(Group(len(names), items, f"{path.name} {mark}", room, held_out))
    return Groups(each, classes)


def cut_into_groups(sizes: Array) -> Iterator[tuple[int, int]]:
    """Yield ranges of neighbours: at most GROUP_IMAGES images and GROUP_BYTES bytes, or one larger image."""
    ends, begin = sizes.cumsum(), 0
    while begin < len(sizes):
        before = ends[begin] - sizes[begin]
        end = min(begin + GROUP_IMAGES, max(begin + 1, int(np.searchsorted(ends, before + GROUP_BYTES, "right"))))
        yield begin, end
        begin = end


def shard_items(
    path: Place, at: Array, size: Array, images: Sequence[tuple[int, str | None]], *, held_out: bool
) -> Iterator[Item]:
    """Yield the items of one group, in their order in the shard; `images` are their numbers in it and their labels."""
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), unpacked(path) as file:
        for begin, length, (number, label) in zip(at.tolist(), size.tolist(), images, strict=True):
            yield Item(f"{path.name} image {number}", read_at(file, begin, length), label, held_out)


def load_index(paths: Sequence[Place], key: str, column: str | None, progress: Report) -> ShardIndex:
    """Return the index of these shards from the cache; if it is missing or damaged, build it and store it."""
    place = cache_folder() / "shards" / f"{hashlib.sha256(f'{key} {INDEX_FORMAT}'.encode()).hexdigest()[:32]}.npz"
    if kept := kept_bytes(place):
        arrays = np.load(BytesIO(kept), allow_pickle=False)
        return ShardIndex(**{name: arrays[name] for name in ShardIndex._fields})
    found = build_index(paths, column, progress)
    np.savez(content := BytesIO(), **found._asdict(), data=np.array(paths[0].name))
    with suppress(OSError):  # a cache that is full or read-only: the index is built at each start
        keep_bytes(place, content.getvalue())
    return found


def build_index(paths: Sequence[Place], column: str | None, progress: Report) -> ShardIndex:
    """Find every image by reading the headers of the shards."""
    listing, said, shards, several = Listing(), dict[str, None](), list[list[tuple[Member, str | None]]](), Samples()
    for i, path in enumerate(paths):
        progress("indexing shards", i, len(paths))
        listing.files = LabelFiles(column)
        images = {"/".join(image.parts): image for image in list_tar_images(path, listing)}
        given = listing.files.read((name, None) for name in images)
        said |= dict.fromkeys(given.notes)
        shards.append([(image, (given.of or {}).get(name)) for name, image in images.items()])
    out = several.left_out([["/".join(image.parts) for image, _ in images] for images in shards])
    shards = [
        [(image, label) for image, label in images if "/".join(image.parts) not in names]
        for images, names in zip(shards, out, strict=True)
    ]
    listing.files, listing.said = LabelFiles(), several.notes()
    progress("indexing shards", len(paths), len(paths))
    found = [[*placed_images(images, layout)] for images, layout in zip(shards, layouts(shards, listing), strict=True)]
    flat = [*chain.from_iterable(found)]
    labels = [label for _, label, _ in flat]
    held_out = np.array([held for *_, held in flat], bool)
    classes = class_names(Counter(label for _, label, held in flat if not held))
    known = {name: i for i, name in enumerate(classes)}
    return ShardIndex(
        np.array([len(images) for images in found], np.int64),
        np.array([image.at for image, *_ in flat], np.int64),
        np.array([image.size for image, *_ in flat], np.int64),
        np.array([known.get(normal_label(label) or "", -1) for label in labels], np.int64),
        held_out,
        np.array(classes, str),
        np.array([*listing.notes, *islice(said, MAX_SAID)], str),
        np.array([*map(is_packed, paths)], bool),
    )


def is_packed(path: Place) -> bool:
    """Return whether a shard is compressed."""
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), path.open("rb") as file:
        return opener_of(file.read(HEAD)) is not None


def layouts(shards: Sequence[Sequence[tuple[Member, str | None]]], listing: Listing) -> list[Layout]:
    """Return the layout of the folders in each shard: splits count over all shards, other folders in each by itself."""
    whole = listing.layout(image for images in shards for image, _ in images)
    if whole.split is not None:
        return [whole] * len(shards)
    each = list[Layout]()
    for images in shards:
        counted = FolderCount()
        for image, _ in images:
            counted.add(image.parts)
        each.append(counted.layout())
    return each


def placed_images(
    images: Sequence[tuple[Member, str | None]], layout: Layout
) -> Iterator[tuple[Member, str | None, bool]]:
    """Yield the images that are used, each with its label and whether it is held out."""
    for image, label in images:
        if place := layout.place(image.parts[:-1]):
            yield image, label or place.label, place.held_out
