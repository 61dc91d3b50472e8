"""The one pass that decodes: images in, a file of raw pixels, labels and what happened out."""

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from unnoise.data.decode import Content, Decoded, Plan, decode
from unnoise.data.sources.source import Array, Item, Source, UnreadableImage, class_names
from unnoise.data.target_format import NAMED, suffixes
from unnoise.errors import InputError
from unnoise.progress import Report

PIXELS, LABELS, META = "images.bin", "labels.npy", "meta.json"
WINDOW = 32  # images in flight: enough to keep the threads busy, few enough to hold
SHOWN = 10  # class names in a note


@dataclass(frozen=True)
class Result:
    """What is written beside the pixels."""

    mode: str
    shape: Sequence[int]  # c, h, w
    count: int
    classes: Sequence[str]
    fingerprint: str
    notes: Sequence[str]
    size: int  # of the file of pixels, in bytes


@dataclass
class Tally:
    """What has happened so far; 8 bytes an image."""

    count: int = 0
    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    seen: dict[str, int] = field(default_factory=dict)  # label -> order of appearance
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    shape: tuple[int, ...] = ()
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def skip(self, name: str, why: UnreadableImage) -> None:
        self.skipped += 1
        if len(self.examples) < NAMED:
            self.examples.append(f"{name} ({why})")

    def keep(self, item: Item, image: Decoded, data: bytes) -> None:
        self.digest.update(data)
        self.count += 1
        self.done.update(image.done)
        label = -1 if item.label is None else self.seen.setdefault(item.label, len(self.seen))
        self.labels.append(label)
        self.shape = image.pixels.shape
        self.size += len(data)


def write_images(source: Source, plan: Plan, examined: int, folder: Path, progress: Report) -> Result:
    """Decode the first `examined` items into a new folder."""
    folder.mkdir()
    with (folder / PIXELS).open("wb") as file:
        tally = write_pixels(source, plan, examined, file, progress)
        settle(file)
    if not tally.count:
        raise InputError(f"none of the {examined} images in {source.name!r} can be read: {', '.join(tally.examples)}")
    classes, labels = number(tally, source.classes)
    header = (plan.mode, tally.shape, tally.size, tally.count, classes)
    tally.digest.update(ascii(header).encode() + labels.astype("<i8").tobytes())
    notes = describe(tally, source, classes)
    result = Result(plan.mode, tally.shape, tally.count, classes, tally.digest.hexdigest(), notes, tally.size)
    with (folder / LABELS).open("wb") as file:
        np.save(file, labels, allow_pickle=False)
        settle(file)
    with (folder / META).open("wb") as file:
        file.write(json.dumps(asdict(result), indent=1).encode())
        settle(file)
    return result


def settle(file: IO[bytes]) -> None:
    """Make sure that the bytes are on the disk before the folder gets its name."""
    file.flush()
    os.fsync(file.fileno())


def write_pixels(source: Source, plan: Plan, examined: int, file: IO[bytes], progress: Report) -> Tally:
    tally = Tally()
    for item, image in decoded(islice(source.items(), examined), plan):
        if isinstance(image, UnreadableImage):
            tally.skip(item.name, image)
        else:
            data = image.pixels.tobytes()
            file.write(data)
            tally.keep(item, image, data)
        if (tally.count + tally.skipped) % WINDOW == 0:
            progress("decoding", tally.count + tally.skipped, examined)
    progress("decoding", tally.count + tally.skipped, examined)
    return tally


def decoded(items: Iterator[Item], plan: Plan) -> Iterator[tuple[Item, Decoded | UnreadableImage]]:
    """Decode on several threads (Pillow works outside Python's lock), a window at a time, in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while window := list(islice(items, WINDOW)):
            yield from zip(window, pool.map(partial(attempt, plan), [item.content for item in window]), strict=True)


def attempt(plan: Plan, content: Content) -> Decoded | UnreadableImage:
    try:
        return decode(content, plan)
    except UnreadableImage as why:
        return why


def number(tally: Tally, order: Sequence[str] | None) -> tuple[list[str], Array]:
    """Classes and an index into them for each image; none where a label is missing or all are the same."""
    labels = np.array(tally.labels, np.int64)
    if len(tally.seen) < 2 or labels.min() < 0:
        return [], np.full(tally.count, -1, np.int64)
    classes = list(order or class_names(tally.seen))
    place = {name: index for index, name in enumerate(classes)}
    return classes, np.array([place[name] for name in tally.seen], np.int64)[labels]


def describe(tally: Tally, source: Source, classes: Sequence[str]) -> list[str]:
    """One line for each thing that the user would want to know."""
    notes = []
    if tally.skipped:
        more = ", ..." if tally.skipped > len(tally.examples) else ""
        total = tally.count + tally.skipped
        notes.append(f"skipped {tally.skipped} of {total} files: {', '.join(tally.examples)}{more}")
    if source.ignored:
        notes.append(f"ignored files that are not images: {suffixes(source)}")
    for what, n in sorted(tally.done.items()):
        notes.append(what.format(n=n) if n > 1 else what.format(n=n).removesuffix("s"))
    unlabelled = tally.labels.count(-1)
    if classes:
        more = f", and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
        notes.append(f"found classes: {', '.join(classes[:SHOWN])}{more}")
    elif tally.seen and unlabelled:
        notes.append(f"no classes: {unlabelled} of {tally.count} images have no label")
    return notes
