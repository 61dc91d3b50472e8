"""Images decoded once, kept as raw pixels in one file, and read back a batch at a time."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unnoise.data.build import build
from unnoise.data.fit import check_fit, parse_size
from unnoise.data.sources import Source, find
from unnoise.data.survey import Progress
from unnoise.errors import InputError

FORMAT = 1  # raise it whenever the files, or the pixels that the same images give, change


@dataclass(frozen=True)
class Dataset:
    """Images decoded once into a memory-mapped file."""

    folder: Path
    name: str
    mode: str  # L, LA, RGB, RGBA, I;16, or "" for arrays that are no picture
    shape: tuple[int, int, int]  # c, h, w
    count: int
    classes: tuple[str, ...]
    fingerprint: str  # sha256 of the decoded pixels and labels: what the model really saw
    notes: tuple[str, ...]  # what happened, for the user

    def __len__(self) -> int:
        return self.count

    def read(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Pixels [b, c, h, w]; the map is closed again so that touched pages do not pile up in our memory."""
        path = self.folder / "images.bin"
        values = self.count * int(np.prod(self.shape))
        dtype = np.uint8 if path.stat().st_size == values else np.uint16
        pixels = np.memmap(path, dtype, mode="r", shape=(self.count, *self.shape))
        return np.array(pixels[indices])

    def labels(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
        """Index into the classes [b], int64."""
        if not self.classes:
            return None
        return np.array(np.load(self.folder / "labels.npy", mmap_mode="r")[indices])


def open_data(  # noqa: PLR0913 - the options of the command line, one by one
    data: str,
    *,
    size: str | None = None,
    channels: int | None = None,
    fit: str = "crop",
    limit: int | None = None,
    cache: Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Dataset:
    """Find the images, and decode them unless that was done before."""
    check_fit(fit)
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: give 1 or more, or leave it out for all images")
    asked = parse_size(size) if size else None
    source = find(data)
    key = ascii((source.key, asked, channels, fit, limit, FORMAT))
    folder = (cache or default_cache()).absolute() / hashlib.sha256(key.encode()).hexdigest()[:32]
    ready = load(folder)
    if ready:
        return ready
    images = build(source, folder.parent, (size, channels, fit), limit, progress or silent)
    try:
        images.publish(folder)
    except OSError as error:
        raise unwritable(folder.parent, error) from None
    return load(folder) or Dataset(folder, **{})


def silent(phase: str, done: int, total: int | None) -> None:
    """Report to nobody."""
