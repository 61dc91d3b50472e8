"""Images decoded once, kept as raw pixels in one file, and read back a batch at a time."""

import hashlib
import json
import math
import os
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from unnoise.data.build import LABELS, META, PIXELS, Result, write_images
from unnoise.data.fit import check_fit, parse_size
from unnoise.data.items import Array
from unnoise.data.sources import Source, find
from unnoise.data.survey import Progress, make_plan, survey
from unnoise.errors import InputError

FORMAT = 1  # raise it whenever the files, or the pixels that the same images give, change


@dataclass(frozen=True)
class Dataset:
    """Images decoded once into a memory-mapped file."""

    folder: Path
    name: str
    mode: str  # L, LA, RGB, RGBA, I;16, or "" for arrays that are no picture
    shape: tuple[int, int, int]  # c, h, w
    count: int  # in the file
    classes: tuple[str, ...]
    fingerprint: str  # sha256 of the decoded pixels and labels: what the model really saw
    notes: tuple[str, ...]  # what happened, for the user
    rows: Array | None = field(default=None, compare=False)  # a part of them; None is all

    def __len__(self) -> int:
        return self.count if self.rows is None else len(self.rows)

    def part(self, rows: Array) -> "Dataset":
        """Some of the images, which are numbered anew."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def numbers(self, indices: Array) -> Array:
        """Of these images in the whole of the data."""
        return indices if self.rows is None else self.rows[indices]

    def read(self, indices: Array) -> Array:
        """Pixels [b, c, h, w]; the map is closed again so that touched pages do not pile up in our memory."""
        indices = self.numbers(indices)
        path = self.folder / PIXELS
        eight_bit = path.stat().st_size == self.count * math.prod(self.shape)
        dtype = np.uint8 if eight_bit else np.uint16
        return np.array(np.memmap(path, dtype, mode="r", shape=(self.count, *self.shape))[indices])

    def labels(self, indices: Array) -> Array | None:
        """Indices into the classes [b], int64."""
        indices = self.numbers(indices)
        return np.array(np.load(self.folder / LABELS, mmap_mode="r")[indices]) if self.classes else None


def open_data(
    data: str,
    *,
    size: str | None = None,
    channels: int | None = None,
    fit: str = "crop",
    limit: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Find the images, and decode them unless that was done before."""
    check_fit(fit)
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: give 1 or more, or leave it out for all images")
    asked = parse_size(size) if size else None
    source = find(data)
    key = ascii((source.key, asked, channels, fit, limit, FORMAT))
    folder = (cache or default_cache()).absolute() / hashlib.sha256(key.encode()).hexdigest()[:32]
    ready = load(folder, source.name)
    if ready:
        return ready
    with warnings.catch_warnings():  # of Pillow, about files; what matters of them is in the notes
        warnings.simplefilter("ignore")
        return build(source, folder, (size, channels, fit), limit, progress or silent)


def build(
    source: Source,
    folder: Path,
    wishes: tuple[str | None, int | None, str],
    limit: int | None,
    progress: Progress,
) -> Dataset:
    """Decode into a folder of our own and rename it, so that no one ever sees half of it."""
    found = survey(source, limit, progress)
    plan = make_plan(found, *wishes)
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
    return Dataset(folder, name, **values)


def default_cache() -> Path:
    """`$UNNOISE_CACHE`, else `unnoise` in the user's cache folder."""
    own = os.environ.get("UNNOISE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "unnoise"


def silent(phase: str, done: int, total: int | None) -> None:
    """Report to nobody."""
