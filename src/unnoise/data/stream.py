"""Images read where they lie, when they are needed: for data that no disk has room to hold decoded."""

import hashlib
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from unnoise.data.dataset import Dataset
from unnoise.data.decode import Plan, decode
from unnoise.data.sources.source import Array, Group, Item, Source, UnreadableImage
from unnoise.data.target_format import make_plan, survey
from unnoise.errors import InputError
from unnoise.progress import Report

ROOM = 2**30  # bytes of encoded images that may be in memory
LOOKED_AT = 16, 16  # groups, and images of each, that decide what all become
TRIED = 1_000  # images that may stand in for one that cannot be read
TOLD = 5  # images that cannot be read, by name
UNKNOWN = -2  # label of an image that was not read yet
REFUSED = "--stream takes a folder of images, tar shards or parquet files; {} can only be decoded first: leave it out"


class Stream:
    """Groups of encoded images, of which the last ones read stay in memory; decoded on several threads."""

    def __init__(self, groups: Sequence[Group], plan: Plan, classes: Sequence[str]) -> None:
        self.each, self.plan, self.place = groups, plan, {name: i for i, name in enumerate(classes)}
        self.starts = np.cumsum([0, *(group.count for group in groups)])
        self.groups = np.repeat(np.arange(len(groups), dtype=np.int32), [group.count for group in groups])
        self.known = np.full(len(self.groups), UNKNOWN, np.int32)  # labels, of stand-ins where there are
        self.open: OrderedDict[int, list[Item]] = OrderedDict()
        self.among: tuple[Array | None, Array] = (None, self.starts)  # of the last one asked for, and sorted
        self.held = 0  # bytes of the groups that are open
        self.told, self.fresh = 0, list[str]()
        self.start_threads()

    def follow_process(self) -> None:
        """Start threads anew in another process, such as a worker of a DataLoader: threads do not survive a fork."""
        if self.process != os.getpid():
            self.start_threads()

    def start_threads(self) -> None:
        self.process, self.lock, self.pool = os.getpid(), Lock(), ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker process needs; threads and groups in memory stay here."""
        here: dict[str, Any] = {"process": 0, "lock": None, "pool": None, "open": OrderedDict(), "held": 0}
        return {**self.__dict__, **here}

    @property
    def room(self) -> int:
        """Images that may be open at a time."""
        return int(ROOM / (sum(group.size for group in self.each) / len(self.groups)))

    def pixels(self, rows: Array, among: Array | None = None) -> Array:
        """[b, c, h, w]; for an image that cannot be read stands the next that can, of those it is `among`."""
        self.follow_process()
        images = self.pool.map(partial(self.image, among=among), self.items(rows), rows.tolist())
        return np.stack([*images])

    def labels(self, rows: Array) -> Array:
        self.follow_process()
        unknown = rows[self.known[rows] == UNKNOWN]
        for item, row in zip(self.items(unknown), unknown.tolist(), strict=True):
            self.known[row] = self.label(item)
        return self.known[rows].astype(np.int64)

    def label(self, item: Item) -> int:
        return self.place.get(item.label or "", -1)

    def news(self) -> list[str]:
        said, self.fresh = self.fresh, []
        return said

    def items(self, rows: Array) -> list[Item]:
        """Each group is opened once, however the rows are mixed."""
        found: dict[int, Item] = {}
        groups = self.groups[rows]
        for i in np.unique(groups).tolist():
            items = self.group(i)
            found |= {row: items[row - self.starts[i]] for row in rows[groups == i].tolist()}
        return [found[row] for row in rows.tolist()]

    def group(self, i: int) -> list[Item]:
        """Read it, unless it is in memory; those not used for longest make room for it."""
        with self.lock:
            if i in self.open:
                self.open.move_to_end(i)
                return self.open[i]
            items, wanted = [*self.each[i].items()], self.each[i].count
            if len(items) != wanted:
                raise InputError(
                    f"the data has changed: {wanted} images were to be in a part of it that now has {len(items)}; "
                    f"the same command looks at it anew"
                )
            self.open[i] = items
            self.held += self.each[i].size
            while len(self.open) > 1 and self.held > ROOM:
                closed, _ = self.open.popitem(last=False)
                self.held -= self.each[closed].size
            return items

    def image(self, item: Item, row: int, among: Array | None) -> Array:
        """Decoded; and its label is known from now on."""
        try:
            pixels = decode(item.content, self.plan).pixels
        except UnreadableImage as error:
            return self.stand_in(item, row, among, error)
        self.known[row] = self.label(item)
        return pixels

    def stand_in(self, item: Item, row: int, among: Array | None, why: UnreadableImage) -> Array:
        """The pixels of the next image that can be read, and its label."""
        for other in self.following(row, among):
            (instead,) = self.items(other[None])
            with suppress(UnreadableImage):
                pixels = decode(instead.content, self.plan).pixels
                self.known[row] = self.label(instead)
                if self.told < TOLD:
                    self.told += 1
                    more = "; no more of these are told" if self.told == TOLD else ""
                    self.fresh.append(f"{item.name} cannot be read ({why}); {instead.name} is taken instead{more}")
                return pixels
        raise InputError(f"neither {item.name} can be read ({why}) nor any of the images after it")

    def following(self, row: int, among: Array | None) -> Array:
        """The next TRIED of those it is among."""
        if among is None:
            return (row + 1 + np.arange(min(TRIED, len(self.groups) - 1))) % len(self.groups)
        if self.among[0] is not among:
            self.among = among, np.sort(among)
        members = self.among[1]
        next_one = np.searchsorted(members, row, "right")
        following: Array = members[(next_one + np.arange(min(TRIED, len(members) - 1))) % len(members)]
        return following


def open_stream(
    source: Source, wishes: tuple[tuple[int, int] | None, int | None, str], limit: int | None, progress: Report
) -> Dataset:
    """Look at a few images of some groups, and at no other."""
    if source.groups is None:
        raise InputError(REFUSED.format(source.name))
    parts = source.groups(progress)
    groups = [group for group in parts.each if group.count]
    count = sum(group.count for group in groups)
    if not count:
        raise InputError(f"no images in {source.name!r}")
    picked = [groups[i] for i in np.unique(np.linspace(0, len(groups) - 1, LOOKED_AT[0]).round().astype(int))]
    looked_at = replace(source, items=partial(some, picked), count=None)
    plan = make_plan(survey(looked_at, None, progress), *wishes)
    store = Stream(groups, plan, parts.classes)
    c, h, w = store.pixels(np.zeros(1, np.int64))[0].shape
    contents = hashlib.sha256(b"".join(map(content_of, looked_at.items()))).hexdigest()
    about = (plan, parts.classes, [(group.count, group.mark) for group in groups], contents, limit)
    fingerprint = hashlib.sha256(ascii(about).encode()).hexdigest()
    notes = (f"read where they lie, in {len(groups):,} parts", *done_to(looked_at, plan))
    dataset = Dataset(store, source.name, plan.mode, (c, h, w), count, parts.classes, fingerprint, notes)
    return dataset if limit is None or limit >= count else dataset.part(np.arange(limit))


def some(groups: Sequence[Group]) -> Iterator[Item]:
    return chain.from_iterable(islice(group.items(), LOOKED_AT[1]) for group in groups)


def content_of(item: Item) -> bytes:
    """A hash of the encoded image; of one that is gone, nothing."""
    if isinstance(item.content, bytes):
        return hashlib.sha256(item.content).digest()
    with suppress(OSError):
        if isinstance(item.content, Path) and item.content.is_file():
            with item.content.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
    return b""


def done_to(looked_at: Source, plan: Plan) -> list[str]:
    """What is done to the images beyond decoding them, of those that were looked at."""
    done, items = Counter[str](), [*looked_at.items()]
    for item in items:
        with suppress(UnreadableImage):
            done.update(decode(item.content, plan).done)
    return [f"of {len(items)} images looked at: {what.format(n=n)}" for what, n in sorted(done.items())]
