"""The pass that decodes: it writes raw pixels, labels, and metadata into a folder of the cache."""

import hashlib
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from unnoise.data.cache_check import LABELS, META, PIXELS, CacheMetadata, write_metadata
from unnoise.data.decode import Content, Decoded, TargetFormat, decode
from unnoise.data.numbers import Coverage
from unnoise.data.sources.classes import NO_CLASSES, why_no_class
from unnoise.data.sources.source import Array, Item, Source, UnreadableImage, class_names, normal_label, to_nfc
from unnoise.data.target_format import MAX_NAMED, format_suffixes
from unnoise.errors import InputError
from unnoise.progress import Report

BYTES_IN_FLIGHT = 2**26
IMAGES_IN_FLIGHT = 32  # enough to keep the threads busy, few enough for the memory
MAX_CLASS_NAMES = 10  # in a note


@dataclass
class DecodingTotals:
    """Running totals of the pass: counts, labels, and a hash; 8 bytes an image."""

    count: int = 0
    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    seen: dict[str, int] = field(default_factory=dict)  # label -> order of appearance
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    trained: Counter[str | None] = field(default_factory=Counter)  # images of each label, without the held-out ones
    unlabelled: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)  # images of each label that cannot be read
    held_out: list[list[int]] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    size: int = 0
    covered: Coverage = field(default_factory=Coverage)
    digest: Any = field(default_factory=hashlib.sha256)

    def skip(self, item: Item, why: UnreadableImage) -> None:
        """Count an image that cannot be read; name the first few."""
        self.skipped += 1
        if item.label is not None:
            self.unread[item.label] += 1
        if len(self.examples) < MAX_NAMED:
            self.examples.append(f"{item.name} ({why})")

    def add(self, item: Item, image: Decoded, data: bytes) -> None:
        """Count a decoded image."""
        self.digest.update(data)
        self.done.update(image.done)
        self.covered.add(image.pixels)
        self.add_label(normal_label(item.label), item)
        self.count += 1
        self.shape = image.pixels.shape
        self.size += len(data)

    def add_label(self, label: str | None, item: Item) -> None:
        """Count the label and the split of an image; held-out images have no part in what the classes are."""
        self.labels.append(-1 if label is None else self.seen.setdefault(label, len(self.seen)))
        if not item.held_out:
            self.trained[label] += 1
            if label is None and len(self.unlabelled) < MAX_NAMED:
                self.unlabelled.append(item.name)
        elif self.held_out and self.held_out[-1][1] == self.count:
            self.held_out[-1][1] += 1
        else:
            self.held_out.append([self.count, self.count + 1])


def write_images(source: Source, target: TargetFormat, examined: int, folder: Path, progress: Report) -> CacheMetadata:
    """Decode the first `examined` items into a new folder."""
    folder.mkdir()
    with (folder / PIXELS).open("wb") as file:
        totals = write_pixels(source, target, examined, file, progress)
        flush_to_disk(file)
    if not totals.count:
        raise InputError(f"none of the {examined} images in {source.name!r} can be read: {', '.join(totals.examples)}")
    classes, labels = number_classes(totals, source.classes)
    checksums = {PIXELS: totals.digest.hexdigest(), LABELS: write_array(folder / LABELS, labels)}
    header = (target.mode, totals.shape, totals.size, totals.count, classes)
    totals.digest.update(ascii(header).encode() + labels.astype("<i8").tobytes())
    if totals.held_out:
        totals.digest.update(ascii(totals.held_out).encode())
    notes = notes_for_user(totals, source, classes)
    why = "" if classes else why_no_classes(totals, source)
    fingerprint = totals.digest.hexdigest()
    facts = (target.mode, totals.shape, totals.count, classes, fingerprint, notes, totals.size)
    known: dict[str, Any] = {"spans": target.spans, "checksums": checksums, "data": source.origin or source.name}
    metadata = CacheMetadata(*facts, **known, held_out=totals.held_out, no_classes=why)
    write_small(folder / META, write_metadata(metadata))
    return metadata


def write_array(path: Path, array: Array) -> str:
    """Write an array into a file and return the SHA-256 of the file."""
    np.save(content := BytesIO(), array, allow_pickle=False)
    write_small(path, content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def write_small(path: Path, content: bytes) -> None:
    """Write a file and wait for the disk."""
    with path.open("wb") as file:
        file.write(content)
        flush_to_disk(file)


def flush_to_disk(file: IO[bytes]) -> None:
    """Make sure that the bytes are on the disk before the folder gets its name."""
    file.flush()
    os.fsync(file.fileno())


def write_pixels(
    source: Source, target: TargetFormat, examined: int, file: IO[bytes], progress: Report
) -> DecodingTotals:
    """Write the pixels of every image that can be read, one after another."""
    totals = DecodingTotals()
    for item, image in decode_in_order(islice(source.items(), examined), target):
        if isinstance(image, UnreadableImage):
            totals.skip(item, image)
        else:
            data = image.pixels.tobytes()
            file.write(data)
            totals.add(item, image, data)
        if (totals.count + totals.skipped) % IMAGES_IN_FLIGHT == 0:
            progress("decoding", totals.count + totals.skipped, examined)
    progress("decoding", totals.count + totals.skipped, examined)
    return totals


def decode_in_order(items: Iterator[Item], target: TargetFormat) -> Iterator[tuple[Item, Decoded | UnreadableImage]]:
    """Decode on several threads (Pillow works outside Python's lock), some images at a time; yield them in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while some := take_some(items):
            images = pool.map(partial(try_to_decode, target), [item.content for item in some])
            yield from zip(some, images, strict=True)


def take_some(items: Iterator[Item]) -> list[Item]:
    """Return the next items, as many as are decoded at a time: fewer if they are large."""
    some, size = list[Item](), 0
    for item in islice(items, IMAGES_IN_FLIGHT):
        some.append(item)
        size += len(item.content) if isinstance(item.content, bytes) else 0
        if size > BYTES_IN_FLIGHT:
            break
    return some


def try_to_decode(target: TargetFormat, content: Content) -> Decoded | UnreadableImage:
    """Decode one image, or return why it cannot be read."""
    try:
        return decode(content, target)
    except UnreadableImage as why:
        return why


def number_classes(totals: DecodingTotals, order: Sequence[str] | None) -> tuple[list[str], Array]:
    """Return the classes and an index into them for each image, -1 for none; no classes if labels are missing."""
    found = class_names(totals.trained, declared=order is not None)
    if not found:
        return [], np.full(totals.count, -1, np.int64)
    classes = [*dict.fromkeys(map(to_nfc, order or found))]
    index = {name: i for i, name in enumerate(classes)}
    numbers = np.array([*(index.get(name, -1) for name in totals.seen), -1], np.int64)
    return classes, numbers[np.array(totals.labels, np.int64)]  # -1 reads the last number, which is -1


def notes_for_user(totals: DecodingTotals, source: Source, classes: Sequence[str]) -> list[str]:
    """Return one line for each thing that the user would want to know."""
    notes = []
    if totals.skipped:
        more = ", ..." if totals.skipped > len(totals.examples) else ""
        total = totals.count + totals.skipped
        notes.append(f"skipped {totals.skipped} of {total} files: {', '.join(totals.examples)}{more}")
    if source.ignored:
        notes.append(f"ignored files that are not images: {format_suffixes(source)}")
    notes += [*notes_that_hold(source, classes), *totals.covered.warnings()]
    for what, n in sorted(totals.done.items()):
        notes.append(what.format(n=n) if n > 1 else what.format(n=n).removesuffix("s"))
    return notes + class_notes(totals, classes)


def notes_that_hold(source: Source, classes: Sequence[str]) -> list[str]:
    """Return the notes of a source, without reasons why there are no classes if there are."""
    return [note for note in source.notes if not (classes and note.startswith(NO_CLASSES))]


def reasons_in(source: Source) -> list[str]:
    """Return why the labels of a source do not count, as its notes say."""
    return [note.removeprefix(NO_CLASSES) for note in source.notes if note.startswith(NO_CLASSES)]


def class_notes(totals: DecodingTotals, classes: Sequence[str]) -> list[str]:
    """Return lines about classes: their names, and images that have none."""
    notes = []
    missing, named = totals.trained[None], ", ".join(totals.unlabelled)
    named += ", ..." if missing > len(totals.unlabelled) else ""
    if classes:
        notes.append(f"found classes: {format_names(classes)}")
        if missing:
            notes.append(
                f"without a class, and trained on without one: {missing:,} of {totals.count:,} images: {named}"
            )
    elif len(totals.trained) > 1 and not missing:
        notes.append(f"{NO_CLASSES}the labels {why_no_class(totals.trained, totals.count)}")  # type: ignore[arg-type]
    elif len(totals.trained) > 1:
        notes.append(f"no classes: {missing} of {totals.count} images have no label")
        notes.append(f"images without a label: {named}; put each into the folder of its class to have classes")
    if lost := [name for name in totals.unread if to_nfc(name) not in totals.seen]:
        notes.append(f"none of the images can be read of the classes: {format_names(sorted(lost))}")
    if new := [name for name in totals.seen if classes and name not in classes]:
        notes.append(f"only held-out images have these labels, which are no classes: {format_names(sorted(new))}")
    return notes + similar_names(classes)


def why_no_classes(totals: DecodingTotals, source: Source) -> str:
    """Return why the images have no classes: what label files hold, and which images have no label."""
    said = reasons_in(source)
    labels = [label for label in totals.trained if label is not None]
    missing, total = totals.trained[None], totals.trained.total()
    if labels and missing:
        more = ", ..." if missing > len(totals.unlabelled) else ""
        said.append(f"{missing:,} of {total:,} images have no label: {', '.join(totals.unlabelled)}{more}")
    elif labels:
        said.append(f"the labels {why_no_class(labels, total)}")
    return "; ".join(said)


def format_names(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f", and {len(names) - MAX_CLASS_NAMES} more" if len(names) > MAX_CLASS_NAMES else ""
    return f"{', '.join(names[:MAX_CLASS_NAMES])}{more}"


def similar_names(classes: Sequence[str]) -> list[str]:
    """Return a line for each group of classes whose names differ in capital letters or blanks only."""
    alike = defaultdict[str, list[str]](list)
    for name in classes:
        alike["".join(name.split()).casefold()].append(name)
    return [
        f"classes of their own, though their names differ in capital letters or blanks only: "
        f"{', '.join(map(repr, names))}; rename the folders if they are one class"
        for names in alike.values()
        if len(names) > 1
    ]
