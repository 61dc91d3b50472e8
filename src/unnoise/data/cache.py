"""Images decoded once, kept as raw pixels in one file, and read back a batch at a time."""

import hashlib
import json
import math
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unnoise.data.cache_writer import LABELS, META, PIXELS, Result, write_images
from unnoise.data.dataset import Dataset
from unnoise.data.decode import Plan
from unnoise.data.resize import Size, check_fit, parse_size
from unnoise.data.sources.find import Source, find
from unnoise.data.sources.source import Array
from unnoise.data.stream import open_stream
from unnoise.data.target_format import make_plan, survey
from unnoise.errors import InputError
from unnoise.files import cache_folder
from unnoise.progress import Report, silent
from unnoise.types import MODES

FORMAT = 1  # raise it whenever the files, or the pixels that the same images give, change


@dataclass(frozen=True)
class Kept:
    """Images decoded once into a memory-mapped file."""

    folder: Path
    count: int
    shape: tuple[int, int, int]  # c, h, w
    groups, room = None, 0

    def pixels(self, rows: Array, among: Array | None = None) -> Array:  # noqa: ARG002  # all can be read
        """[b, c, h, w]; the map is closed again so that touched pages do not pile up in our memory."""
        path = self.folder / PIXELS
        with self.there():
            eight_bit = path.stat().st_size == self.count * math.prod(self.shape)
            dtype = np.uint8 if eight_bit else np.uint16
            return np.array(np.memmap(path, dtype, mode="r", shape=(self.count, *self.shape))[rows])

    def labels(self, rows: Array) -> Array:
        """Indices into the classes [b], int64."""
        with self.there():
            return np.array(np.load(self.folder / LABELS, mmap_mode="r")[rows])

    @contextmanager
    def there(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise InputError(
                f"the decoded images in {self.folder} are gone or damaged ({error}); the same command "
                f"decodes them again"
            ) from error

    def news(self) -> list[str]:
        """Nothing: all was told when they were decoded."""
        return []


def open_data(
    data: Any,
    *,
    size: Size | None = None,
    channels: int | None = None,
    fit: str = "crop",
    limit: int | None = None,
    cache: Path | None = None,
    stream: bool = False,
    progress: Report | None = None,
) -> Dataset:
    """Find the images, and decode them unless that was done before; or read them as needed where they lie, `stream`."""
    check_fit(fit)
    check_whole("limit", limit, "all images")
    check_whole("channels", channels, "the channels that most images have")
    asked = parse_size(size) if size is not None and size != "" else None
    if isinstance(data, Dataset) and fits_already(data, asked, channels, limit):
        return data
    source = find(data)
    if stream:
        return open_stream(source, (asked, channels, fit), limit, progress or silent)
    key = ascii((source.key, asked, channels, fit, limit, FORMAT))
    folder = (cache or cache_folder()).absolute() / hashlib.sha256(key.encode()).hexdigest()[:32]
    ready = load(folder, source.name)
    if ready:
        return ready
    with warnings.catch_warnings():  # of Pillow, about files; what matters of them is in the notes
        warnings.simplefilter("ignore")
        return build(source, folder, (asked, channels, fit), limit, progress or silent)


def check_whole(name: str, value: object, default: str) -> None:
    """Raise InputError if a value is neither None nor a whole number of 1 or more."""
    if value is not None and (type(value) is not int or value < 1):
        raise InputError(f"{name}={value!r}: give a whole number of 1 or more, or leave it out for {default}")


def fits_already(data: Dataset, size: tuple[int, int] | None, channels: int | None, limit: int | None) -> bool:
    """Return whether an opened dataset, not a part of one, is what is asked for."""
    c, h, w = data.shape
    return data.rows is None and size in (None, (w, h)) and channels in (None, c) and len(data) <= (limit or len(data))


def build(
    source: Source,
    folder: Path,
    wishes: tuple[tuple[int, int] | None, int | None, str],
    limit: int | None,
    progress: Report,
) -> Dataset:
    """Decode into a folder of our own and rename it, so that no one ever sees half of it."""
    found = survey(source, limit, progress)
    plan = make_plan(found, *wishes)
    refuse_larger_than_disk(found.examined, plan, folder.parent)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as scratch:
            result = write_images(source, plan, found.examined, Path(scratch) / "new", progress)
            publish(Path(scratch) / "new", folder, source.name)
    except OSError as error:
        raise InputError(
            f"cannot write the cache folder {str(folder.parent)!r}: {error.strerror or error}; "
            "set UNNOISE_CACHE to a folder with room that you may write"
        ) from None
    return dataset_of(folder, source.name, result)


def refuse_larger_than_disk(count: int, plan: Plan, cache: Path) -> None:
    """Before hours are spent on decoding; arrays that are no picture are not known beforehand."""
    bands = {mode: channels for channels, mode in MODES.items()} | {"I;16": 2}
    needed = count * math.prod(plan.size) * bands.get(plan.mode, 0)
    there = next(place for place in (cache, *cache.parents) if place.exists())
    if needed > (free := shutil.disk_usage(there).free):
        raise InputError(
            f"{count:,} decoded images take {needed / 1e9:,.1f} GB, and {str(there)!r} has room for {free / 1e9:,.1f}: "
            f"--stream reads them where they lie, or set UNNOISE_CACHE to a folder with more room"
        )


def publish(new: Path, folder: Path, name: str) -> None:
    """Put the finished folder in its place; where another process was faster, keep theirs."""
    if folder.exists() and load(folder, name) is None:
        shutil.rmtree(folder)  # damaged from outside: a whole one is never replaced
    try:
        new.rename(folder)
    except OSError:
        if load(folder, name) is None:
            raise


def load(folder: Path, name: str) -> Dataset | None:
    """Open what an earlier run left, if it is whole."""
    try:
        result = Result(**json.loads((folder / META).read_text(encoding="utf-8")))
        whole = (folder / PIXELS).stat().st_size == result.size and (folder / LABELS).is_file()
        return dataset_of(folder, name, result) if whole else None
    except (OSError, ValueError, TypeError):
        return None


def dataset_of(folder: Path, name: str, result: Result) -> Dataset:
    values = asdict(result)
    del values["size"]
    c, h, w = result.shape
    values.update(shape=(c, h, w), classes=tuple(result.classes), notes=tuple(result.notes))
    return Dataset(Kept(folder, result.count, (c, h, w)), name, **values)
