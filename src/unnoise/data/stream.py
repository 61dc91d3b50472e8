"""Images that are read from their files when they are needed: for data that is too large to decode onto the disk."""

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

from unnoise.data.cache_writer import notes_that_hold, reasons_in, similar_names
from unnoise.data.dataset import Dataset
from unnoise.data.decode import TargetFormat, decode
from unnoise.data.numbers import CUT_OFF, Coverage, describe_unusual
from unnoise.data.sources.source import Array, Group, Item, Source, UnreadableImage, normal_label
from unnoise.data.target_format import choose_format, scan_headers
from unnoise.errors import InputError
from unnoise.progress import Report

MAX_OPEN_BYTES = 2**30  # encoded images that may be in memory
SAMPLE_GROUPS, SAMPLE_IMAGES = 16, 16  # groups, and images in each group, that decide the target format
MAX_TRIES = 1_000  # images that may replace one that cannot be read
MAX_WARNINGS = 5  # images that cannot be read, by name
UNREAD_LABEL = -2  # label of an image that was not read yet
REFUSED = "--stream takes a folder of images, tar shards or parquet files; {} can only be decoded first: leave it out"


class StreamedImages:
    """A store of groups of encoded images; the last groups read stay in memory, and several threads decode."""

    def __init__(self, groups: Sequence[Group], target: TargetFormat, classes: Sequence[str]) -> None:
        self.each, self.target = groups, target
        self.class_index = {name: i for i, name in enumerate(classes)}
        self.starts = np.cumsum([0, *(group.count for group in groups)])
        self.groups = np.repeat(np.arange(len(groups), dtype=np.int32), [group.count for group in groups])
        self.known = np.full(len(self.groups), UNREAD_LABEL, np.int32)  # labels; a replaced image has the new label
        self.open: OrderedDict[int, list[Item]] = OrderedDict()
        self.open_bytes = 0
        self.among: tuple[Array | None, Array] = (None, self.starts)  # the last rows asked for, and sorted
        self.warned, self.cut_off, self.warnings = 0, 0, list[str]()
        self.start_threads()

    def follow_process(self) -> None:
        """Start threads anew in another process, such as a worker of a DataLoader: threads do not survive a fork."""
        if self.process != os.getpid():
            self.start_threads()

    def start_threads(self) -> None:
        self.process, self.lock, self.pool = os.getpid(), Lock(), ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; threads and groups in memory stay in this one."""
        here: dict[str, Any] = {"process": 0, "lock": None, "pool": None, "open": OrderedDict(), "open_bytes": 0}
        return {**self.__dict__, **here}

    @property
    def room(self) -> int:
        """The number of images, in open groups, that may be in memory."""
        return int(MAX_OPEN_BYTES / (sum(group.size for group in self.each) / len(self.groups)))

    def pixels(self, rows: Array, among: Array | None = None) -> Array:
        """Return the pixels [b, c, h, w]; an unreadable image is replaced by the next readable one `among` these."""
        self.follow_process()
        images = self.pool.map(partial(self.decode_item, among=among), self.items(rows), rows.tolist())
        return np.stack([*images])

    def labels(self, rows: Array) -> Array:
        """Return indices into the classes [b], int64; -1 if an image has no label."""
        self.follow_process()
        unknown = rows[self.known[rows] == UNREAD_LABEL]
        for item, row in zip(self.items(unknown), unknown.tolist(), strict=True):
            self.known[row] = self.label_of(item)
        return self.known[rows].astype(np.int64)

    def label_of(self, item: Item) -> int:
        return self.class_index.get(normal_label(item.label) or "", -1)

    def news(self) -> list[str]:
        """Return the warnings about images that were read since the last call."""
        said, self.warnings = self.warnings, []
        return said

    def items(self, rows: Array) -> list[Item]:
        """Return the items of these rows; each group is opened once, however the rows are mixed."""
        found: dict[int, Item] = {}
        groups = self.groups[rows]
        for i in np.unique(groups).tolist():
            items = self.open_group(i)
            found |= {row: items[row - self.starts[i]] for row in rows[groups == i].tolist()}
        return [found[row] for row in rows.tolist()]

    def open_group(self, i: int) -> list[Item]:
        """Read group number i, unless it is in memory; the groups not used for longest make room."""
        with self.lock:
            if i in self.open:
                self.open.move_to_end(i)
                return self.open[i]
            items, wanted = [*self.each[i].items()], self.each[i].count
            if len(items) != wanted:
                raise InputError(
                    f"the data has changed: a group of {wanted} images now has {len(items)}; run the same command "
                    f"again to look at the data anew"
                )
            self.open[i] = items
            self.open_bytes += self.each[i].size
            while len(self.open) > 1 and self.open_bytes > MAX_OPEN_BYTES:
                closed, _ = self.open.popitem(last=False)
                self.open_bytes -= self.each[closed].size
            return items

    def decode_item(self, item: Item, row: int, among: Array | None) -> Array:
        """Return the pixels [c, h, w], and remember the label."""
        try:
            pixels, done = decode(item.content, self.target)
        except UnreadableImage as error:
            return self.decode_replacement(item, row, among, error)
        self.count_cut_off(item, done)
        self.known[row] = self.label_of(item)
        return pixels

    def count_cut_off(self, item: Item, done: Sequence[str]) -> None:
        """Warn of images with numbers beyond the span, which a sample decided: the first ones, then 10, 100, ..."""
        for note in done:
            if note.startswith(CUT_OFF):
                self.cut_off += 1
                if self.cut_off <= MAX_WARNINGS or str(self.cut_off).strip("0") == "1":
                    told = note.format(n=self.cut_off).removesuffix("s" if self.cut_off == 1 else "")
                    self.warnings.append(f"{told}, {item.name} too; without --stream the span is read from all images")

    def decode_replacement(self, item: Item, row: int, among: Array | None, why: UnreadableImage) -> Array:
        """Return the pixels [c, h, w] of the next image that can be read, and remember its label."""
        for other in self.rows_after(row, among):
            (instead,) = self.items(other[None])
            with suppress(UnreadableImage):
                pixels, done = decode(instead.content, self.target)
                self.count_cut_off(instead, done)
                self.known[row] = self.label_of(instead)
                if self.warned < MAX_WARNINGS:
                    self.warned += 1
                    more = "; later ones are not reported" if self.warned == MAX_WARNINGS else ""
                    self.warnings.append(f"{item.name} cannot be read ({why}); {instead.name} replaces it{more}")
                return pixels
        raise InputError(f"cannot read {item.name} ({why}), nor any of the images after it")

    def rows_after(self, row: int, among: Array | None) -> Array:
        """Return the next MAX_TRIES rows, `among` these if given, from the start again after the last one."""
        if among is None:
            return (row + 1 + np.arange(min(MAX_TRIES, len(self.groups) - 1))) % len(self.groups)
        if self.among[0] is not among:
            self.among = among, np.sort(among)
        members = self.among[1]
        next_one = np.searchsorted(members, row, "right")
        following: Array = members[(next_one + np.arange(min(MAX_TRIES, len(members) - 1))) % len(members)]
        return following


def open_stream(
    source: Source, wishes: tuple[tuple[int, int] | None, int | None, str], limit: int | None, progress: Report
) -> Dataset:
    """Open a dataset of streamed images; only a sample, a few images of some groups, is read for it."""
    if source.groups is None:
        raise InputError(REFUSED.format(source.name))
    parts = source.groups(progress)
    groups = [group for group in parts.each if group.count]
    count = sum(group.count for group in groups)
    if not count:
        raise InputError(f"no images in {source.name!r}")
    picked = [groups[i] for i in np.unique(np.linspace(0, len(groups) - 1, SAMPLE_GROUPS).round().astype(int))]
    sample = replace(source, items=partial(sample_items, picked), count=None)
    target = choose_format(scan_headers(sample, None, progress), *wishes)
    store = StreamedImages(groups, target, parts.classes)
    c, h, w = store.pixels(np.zeros(1, np.int64))[0].shape
    fingerprint = hash_sample(sample, target, (parts.classes, [*map(group_facts, groups)]), limit)
    how = f"images are read from their files during training, in {len(groups):,} groups"
    notes = (how, *notes_that_hold(source, parts.classes), *notes_on(sample, target), *similar_names(parts.classes))
    held_out = np.flatnonzero(np.repeat([group.held_out for group in groups], [group.count for group in groups]))
    why = "" if parts.classes else "; ".join(reasons_in(source))
    facts = (target.mode, (c, h, w), count, parts.classes, fingerprint, notes, target.spans)
    dataset = Dataset(store, source.name, *facts, held_out=held_out if len(held_out) else None, no_classes=why)
    return dataset if limit is None or limit >= count else dataset.part(np.arange(limit))


def group_facts(group: Group) -> tuple[Any, ...]:
    """Return the facts about a group that count for the fingerprint."""
    return (group.count, group.mark, "held out") if group.held_out else (group.count, group.mark)


def hash_sample(sample: Source, target: TargetFormat, facts: tuple[Any, Any], limit: int | None) -> str:
    """Return the fingerprint of streamed data: the content of a sample, and names, sizes and labels of all groups."""
    contents = hashlib.sha256(b"".join(map(hash_content, sample.items()))).hexdigest()
    plan = f"Plan(mode={target.mode!r}, size={target.size!r}, fit={target.fit!r})"  # as fingerprints have always had it
    plan += describe_unusual(target.spans)
    text = f"({plan}, {facts[0]!a}, {facts[1]!a}, {contents!a}, {limit!a})"
    return hashlib.sha256(text.encode()).hexdigest()


def sample_items(groups: Sequence[Group]) -> Iterator[Item]:
    return chain.from_iterable(islice(group.items(), SAMPLE_IMAGES) for group in groups)


def hash_content(item: Item) -> bytes:
    """Return a hash of the encoded image; nothing if the file is gone."""
    if isinstance(item.content, bytes):
        return hashlib.sha256(item.content).digest()
    with suppress(OSError):
        if isinstance(item.content, Path) and item.content.is_file():
            with item.content.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
    return b""


def notes_on(sample: Source, target: TargetFormat) -> list[str]:
    """Return notes on what is done to the images of the sample beyond decoding them."""
    done, items, covered = Counter[str](), [*sample.items()], Coverage()
    for item in items:
        with suppress(UnreadableImage):
            image = decode(item.content, target)
            done.update(image.done)
            covered.add(image.pixels)
    said = [what.format(n=n) for what, n in sorted(done.items())] + covered.warnings()
    return [f"in a sample of {len(items)} images: {text}" for text in said]
