"""Images read where they lie, when they are needed: for data that no disk has room to hold decoded."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from threading import Lock

import numpy as np

from unnoise.data.dataset import Dataset
from unnoise.data.decode import Plan, decode
from unnoise.data.items import Array, Group, Item, Progress, Source, Unreadable
from unnoise.data.survey import make_plan, survey
from unnoise.errors import InputError

ROOM = 2**30  # bytes of encoded images that may be in memory
LOOKED_AT = 16, 64  # groups, and images of each, that decide what all become
TOLD = 5  # images that cannot be read, by name
REFUSED = "--stream takes a folder of images, tar shards or parquet files; {} can only be decoded first: leave it out"


class Stream:
    """Groups of encoded images, of which the last ones read stay in memory; decoded on several threads."""

    def __init__(self, groups: Sequence[Group], plan: Plan, classes: Sequence[str]) -> None:
        self.each, self.plan, self.place = groups, plan, {name: i for i, name in enumerate(classes)}
        self.starts = np.cumsum([0, *(group.count for group in groups)])
        self.groups = np.repeat(np.arange(len(groups), dtype=np.int32), [group.count for group in groups])
        self.open: OrderedDict[int, list[Item]] = OrderedDict()
        self.instead: dict[int, int] = {}  # for images that cannot be read: a neighbour
        self.lock, self.told, self.fresh = Lock(), 0, list[str]()
        self.pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def pixels(self, rows: Array) -> Array:
        return np.stack([*self.pool.map(self.image, self.items(rows), rows.tolist())])

    def labels(self, rows: Array) -> Array:
        stand_in = np.array([self.instead.get(row, row) for row in rows.tolist()], np.int64)
        return np.array([self.place.get(item.label or "", -1) for item in self.items(stand_in)], np.int64)

    def news(self) -> list[str]:
        with self.lock:
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
            while len(self.open) > 1 and sum(map(size_of, self.open.values())) > ROOM:
                self.open.popitem(last=False)
            return items

    def image(self, item: Item, row: int) -> Array:
        """Decoded; of one that cannot be read the next in its group that can."""
        try:
            return decode(item.content, self.plan).pixels
        except Unreadable as error:
            why = error
        start, items = int(self.starts[self.groups[row]]), self.group(int(self.groups[row]))
        for step in range(1, len(items)):
            at = (row - start + step) % len(items)
            try:
                pixels = decode(items[at].content, self.plan).pixels
            except Unreadable:
                continue
            self.stands_in(start + at, row, f"{item.name} cannot be read ({why}); {items[at].name} is taken instead")
            return pixels
        raise InputError(f"none of {len(items)} images can be read: {item.name} ({why})")

    def stands_in(self, other: int, row: int, text: str) -> None:
        with self.lock:
            if row not in self.instead and self.told < TOLD:
                self.told += 1
                self.fresh.append(text + ("; no more of these are told" if self.told == TOLD else ""))
            self.instead[row] = other


def size_of(items: Sequence[Item]) -> int:
    return sum(len(item.content) if isinstance(item.content, bytes) else 0 for item in items)


def open_stream(
    source: Source, wishes: tuple[str | None, int | None, str], limit: int | None, progress: Progress
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
    found = survey(replace(source, items=partial(some, picked), count=None), None, progress)
    plan = make_plan(found, *wishes)
    store = Stream(groups, plan, parts.classes)
    first = store.pixels(np.zeros(1, np.int64))[0]
    about = (plan, parts.classes, [(group.count, group.mark) for group in groups], limit)
    fingerprint = hashlib.sha256(ascii(about).encode()).hexdigest()
    notes = (f"read where they lie, in {len(groups):,} parts",)
    c, h, w = first.shape
    dataset = Dataset(store, source.name, plan.mode, (c, h, w), count, parts.classes, fingerprint, notes)
    return dataset if limit is None or limit >= count else dataset.part(np.arange(limit))


def some(groups: Sequence[Group]) -> Iterator[Item]:
    return chain.from_iterable(islice(group.items(), LOOKED_AT[1]) for group in groups)
