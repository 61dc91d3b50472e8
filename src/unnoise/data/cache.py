"""The cache of decoded images: raw pixels in one file for each dataset, read back a batch at a time."""

import hashlib
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from unnoise.cache_folder import building, cache_folder, locked, mark_used, open_regular, publish, sweep
from unnoise.data.cache_check import (
    CACHE_FORMAT,
    LABELS,
    PIXELS,
    CacheMetadata,
    DamagedCacheError,
    Stamp,
    check_pixels,
    read_array,
    read_metadata,
    read_rows,
    stamp_of,
)
from unnoise.data.cache_writer import write_images
from unnoise.data.dataset import Dataset
from unnoise.data.decode import TargetFormat
from unnoise.data.resize import OWN_SIZE, Size, check_fit, parse_size
from unnoise.data.sources.find import find
from unnoise.data.sources.source import Array, Source
from unnoise.data.stream import open_stream
from unnoise.data.target_format import choose_format, scan_headers
from unnoise.errors import InputError
from unnoise.progress import Report, silent
from unnoise.types import MODES

USED_EVERY = 3_600.0  # seconds; a long training tells `unnoise cache` so often that it uses the images
Wishes: TypeAlias = tuple[tuple[int, int] | None, int | None, str]  # (width, height), channels, fit


@dataclass
class DecodedImages:
    """A store of images that were decoded once into a file."""

    folder: Path
    count: int
    shape: tuple[int, int, int]  # c, h, w
    metadata: CacheMetadata | None = field(default=None, repr=False)
    classes: Array | None = field(default=None, repr=False, compare=False)  # the label of each image
    stamp: Stamp | None = None  # of the file of pixels when it was checked
    used: float = 0.0  # when it was last told that the images are used
    groups, room = None, 0

    def pixels(self, rows: Array, among: Array | None = None) -> Array:  # noqa: ARG002  # every image can be read
        """Return the pixels [b, c, h, w]; a file that was changed since it was checked is checked again."""
        rows = np.where(rows < 0, rows + self.count, rows)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.count:
            raise IndexError(f"images {rows.min()} to {rows.max()} of {self.count}")
        with self.reading() as metadata, open_regular(self.folder / PIXELS) as file:
            if stamp_of(file) != self.stamp:
                self.stamp = check_pixels(self.folder, metadata)
            eight_bit = metadata.size == self.count * math.prod(self.shape)
            pixels = np.empty((len(rows), *self.shape), np.uint8 if eight_bit else np.uint16)
            read_rows(file, rows, pixels)
        if time.monotonic() - self.used > USED_EVERY:
            self.used = time.monotonic()
            mark_used(self.folder)
        return pixels

    def labels(self, rows: Array) -> Array:
        """Return indices into the classes [b], int64."""
        with self.reading() as metadata:
            if self.classes is None:
                self.classes = read_array(self.folder, LABELS, metadata)
            return self.classes[rows]

    @contextmanager
    def reading(self) -> Iterator[CacheMetadata]:
        """Provide the metadata; turn a missing or damaged file into an InputError."""
        try:
            yield self.metadata or read_metadata(self.folder)
        except (OSError, DamagedCacheError) as error:
            raise InputError(
                f"the decoded images in {self.folder} are missing or damaged ({error}); run the same command again to "
                f"decode them anew"
            ) from error

    def news(self) -> list[str]:
        """Return nothing: every warning was given when the images were decoded."""
        return []


def open_data(  # noqa: PLR0913 - each is a wish of its own
    data: Any,
    *,
    size: Size | None = None,
    channels: int | None = None,
    fit: str = "crop",
    limit: int | None = None,
    cache: Path | None = None,
    stream: bool = False,
    label_column: str | None = None,
    progress: Report | None = None,
) -> Dataset:
    """Find images and decode them into the cache, unless an earlier call did; return them as a dataset.

    Args:
        data: A folder, archive, array or parquet file, address (`hf://...`), or built-in dataset ("faces:count=5000");
            or images in memory: an array or tensor [n, h, w], [n, h, w, c] or [n, c, h, w] of whole numbers, floats
            or bool; a torch or Hugging Face dataset; a list of paths, PIL images, arrays, or (image, label) pairs.
        size: Pixels: 64, (width, height), "96x64", or "own", up to 256; by default the common size up to 64, or 64.
        channels: 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA); by default what most of the images have.
        fit: How an image of another shape becomes this size: crop, pad or stretch.
        limit: Use the first `limit` images only.
        cache: The folder of the cache; by default the one that UNNOISE_CACHE names.
        stream: Read images from their files when they are needed, and decode nothing beforehand.
        label_column: The column, field or array that holds the labels; by default one of a usual name, as `label`.
        progress: Called with (stage, done, total).

    Returns:
        Images and labels: `data[i]` is an image [c, h, w], float32 in [-1, 1], and its label.

    Raises:
        InputError: If the data is missing, has no readable image, or an option has a value that is not allowed.
    """
    wishes = check_wishes(size, channels, fit, limit)
    if isinstance(data, Dataset) and fits_already(data, wishes, limit):
        return data
    source, progress = find(data, label_column), progress or silent
    if stream:
        return open_stream(source, wishes, limit, progress)
    return open_decoded(source, cache or cache_folder(), wishes, limit, progress)


def check_wishes(size: Size | None, channels: int | None, fit: str, limit: int | None) -> Wishes:
    """Return what the user wants the images to be; raise InputError if a value is not allowed."""
    check_fit(fit)
    check_whole("limit", limit, "all images")
    check_whole("channels", channels, "the channels that most images have")
    return parse_size(size) if size is not None and size != "" else None, channels, fit


def open_decoded(source: Source, cache: Path, wishes: Wishes, limit: int | None, progress: Report) -> Dataset:
    """Open the images that an earlier run decoded, or decode them."""
    key = ascii((source.key, *wishes, limit, CACHE_FORMAT, *sorted(source.spans.items())))
    folder = cache.absolute() / hashlib.sha256(key.encode()).hexdigest()[:32]
    if ready := load_cached(folder, source.name, progress):
        return ready
    with warnings.catch_warnings():  # Pillow warns about files; the notes say what matters
        warnings.simplefilter("ignore")
        return decode_into_cache(source, folder, wishes, limit, progress)


def check_whole(name: str, value: object, default: str) -> None:
    """Raise InputError if a value is neither None nor a whole number of 1 or more."""
    if value is not None and (type(value) is not int or value < 1):
        raise InputError(f"{name}={value!r}: give a whole number of 1 or more, or leave it out for {default}")


def fits_already(data: Dataset, wishes: Wishes, limit: int | None) -> bool:
    """Return whether an opened dataset, not a part of one, is what the options ask for."""
    (c, h, w), (size, channels, _) = data.shape, wishes
    if data.rows is not None or size not in (None, OWN_SIZE, (w, h)):
        return False
    return channels in (None, c) and len(data) <= (limit or len(data))


def decode_into_cache(source: Source, folder: Path, wishes: Wishes, limit: int | None, progress: Report) -> Dataset:
    """Decode into a scratch folder and rename it, so that no process ever sees half of the images."""
    found = scan_headers(source, limit, progress)
    target = choose_format(found, *wishes)
    sweep(folder.parent)
    check_disk_space(found.examined, target, folder.parent)
    try:
        with building(folder.parent) as work:
            metadata = write_images(source, target, found.examined, work / "new", progress)
            return publish_folder(work / "new", folder, source.name, metadata)
    except OSError as error:
        raise InputError(
            f"cannot write the cache folder {str(folder.parent)!r}: {error.strerror or error}; "
            "set UNNOISE_CACHE to a folder with room that you may write, or make room by 'unnoise cache --clean'"
        ) from None


def check_disk_space(count: int, target: TargetFormat, cache: Path) -> None:
    """Raise InputError if the disk is too small, before hours are spent on decoding.

    The channels of arrays that are no images are not known yet, so that these are not checked.
    """
    bands = {mode: channels for channels, mode in MODES.items()} | {"I;16": 2}
    needed = count * math.prod(target.size) * bands.get(target.mode, 0)
    existing = next(place for place in (cache, *cache.parents) if place.exists())
    if needed > (free := shutil.disk_usage(existing).free):
        raise InputError(
            f"{count:,} decoded images take {needed / 1e9:,.1f} GB, and {str(existing)!r} has room for "
            f"{free / 1e9:,.1f}: use --stream to read the images from their files, set UNNOISE_CACHE to a folder "
            f"with more room, or make room by 'unnoise cache --clean'"
        )


def publish_folder(new: Path, folder: Path, name: str, metadata: CacheMetadata) -> Dataset:
    """Move the finished folder to its place; if another process was faster, keep the folder of that process."""
    with locked(folder.parent):  # two processes may find the same damage: only one may replace what it found
        if ready := load_cached(folder, name):
            return ready
        publish(new, folder)
    with open_regular(folder / PIXELS) as file:
        return cached_dataset(folder, name, metadata, stamp_of(file))


def load_cached(folder: Path, name: str, progress: Report = silent) -> Dataset | None:
    """Open the images that an earlier run decoded; return None if they are not there or damaged."""
    try:
        metadata = read_metadata(folder)
        dataset = cached_dataset(folder, name, metadata, check_pixels(folder, metadata, progress))
    except (OSError, ValueError, TypeError):
        return None
    mark_used(folder)
    return dataset


def cached_dataset(folder: Path, name: str, metadata: CacheMetadata, stamp: Stamp) -> Dataset:
    """Return the dataset of a folder of decoded images whose pixels have been checked with this stamp."""
    c, h, w = metadata.shape
    labels = read_array(folder, LABELS, metadata)
    store = DecodedImages(folder, metadata.count, (c, h, w), metadata, labels, stamp, time.monotonic())
    facts = metadata.mode, (c, h, w), metadata.count, tuple(metadata.classes), metadata.fingerprint
    spans = {kind: (low, high) for kind, (low, high) in dict(metadata.spans).items()}
    ranges = [np.arange(first, last) for first, last in metadata.held_out]
    held_out = np.concatenate(ranges) if ranges else None
    return Dataset(
        store, name, *facts, tuple(metadata.notes), spans=spans, held_out=held_out, no_classes=metadata.no_classes
    )
