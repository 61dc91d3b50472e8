"""The pass that decodes: it writes raw pixels, labels, and metadata into a folder of the cache."""

import hashlib
import os
from array import array
from collections import Counter
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
from unnoise.data.sources.source import Array, Item, Source, UnreadableImage, class_names
from unnoise.data.target_format import MAX_NAMED, format_suffixes
from unnoise.errors import InputError
from unnoise.progress import Report

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
    shape: tuple[int, ...] = ()
    size: int = 0
    covered: Coverage = field(default_factory=Coverage)
    digest: Any = field(default_factory=hashlib.sha256)

    def skip(self, name: str, why: UnreadableImage) -> None:
        """Count an image that cannot be read; name the first few."""
        self.skipped += 1
        if len(self.examples) < MAX_NAMED:
            self.examples.append(f"{name} ({why})")

    def add(self, item: Item, image: Decoded, data: bytes) -> None:
        """Count a decoded image."""
        self.digest.update(data)
        self.count += 1
        self.done.update(image.done)
        self.covered.add(image.pixels)
        label = -1 if item.label is None else self.seen.setdefault(item.label, len(self.seen))
        self.labels.append(label)
        self.shape = image.pixels.shape
        self.size += len(data)


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
    notes = notes_for_user(totals, source, classes)
    fingerprint = totals.digest.hexdigest()
    facts = (target.mode, totals.shape, totals.count, classes, fingerprint, notes, totals.size)
    metadata = CacheMetadata(*facts, spans=target.spans, checksums=checksums, data=source.name)
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
            totals.skip(item.name, image)
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
        while some := list(islice(items, IMAGES_IN_FLIGHT)):
            images = pool.map(partial(try_to_decode, target), [item.content for item in some])
            yield from zip(some, images, strict=True)


def try_to_decode(target: TargetFormat, content: Content) -> Decoded | UnreadableImage:
    """Decode one image, or return why it cannot be read."""
    try:
        return decode(content, target)
    except UnreadableImage as why:
        return why


def number_classes(totals: DecodingTotals, order: Sequence[str] | None) -> tuple[list[str], Array]:
    """Return the classes and an index into them for each image; none if a label is missing or all are the same."""
    labels = np.array(totals.labels, np.int64)
    if len(totals.seen) < 2 or labels.min() < 0:
        return [], np.full(totals.count, -1, np.int64)
    classes = list(order or class_names(totals.seen))
    index = {name: i for i, name in enumerate(classes)}
    return classes, np.array([index[name] for name in totals.seen], np.int64)[labels]


def notes_for_user(totals: DecodingTotals, source: Source, classes: Sequence[str]) -> list[str]:
    """Return one line for each thing that the user would want to know."""
    notes = []
    if totals.skipped:
        more = ", ..." if totals.skipped > len(totals.examples) else ""
        total = totals.count + totals.skipped
        notes.append(f"skipped {totals.skipped} of {total} files: {', '.join(totals.examples)}{more}")
    if source.ignored:
        notes.append(f"ignored files that are not images: {format_suffixes(source)}")
    notes += [*source.notes, *totals.covered.warnings()]
    for what, n in sorted(totals.done.items()):
        notes.append(what.format(n=n) if n > 1 else what.format(n=n).removesuffix("s"))
    unlabelled = totals.labels.count(-1)
    if classes:
        more = f", and {len(classes) - MAX_CLASS_NAMES} more" if len(classes) > MAX_CLASS_NAMES else ""
        notes.append(f"found classes: {', '.join(classes[:MAX_CLASS_NAMES])}{more}")
    elif totals.seen and unlabelled:
        notes.append(f"no classes: {unlabelled} of {totals.count} images have no label")
    return notes
