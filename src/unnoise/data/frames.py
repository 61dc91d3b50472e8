"""Files of several frames or pages, each frame as an image of its own; and files larger than the usual limit."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from unnoise.data.numbers import copy_with_tags
from unnoise.data.open_image import open_image, pages_of, refuse_huge
from unnoise.data.sources.find import find
from unnoise.data.sources.source import MAX_PIXELS, Broken, Groups, Item, Source, UnreadableImage
from unnoise.errors import InputError, unknown
from unnoise.progress import Report

FRAMES = ("first", "all")


def read_as(data: Any, frames: str = "first", max_pixels: int | None = None, label_column: str | None = None) -> Any:
    """Return data whose files are read in another way than usual; `open_data` accepts it as it accepts the data itself.

    Args:
        data: Anything that `open_data` accepts.
        frames: "first" reads the first frame or page of each file, "all" reads every one as an image of its own.
        max_pixels: The largest image that is read, in pixels; for files that you trust.
        label_column: The column, field or array of the labels, if it has no usual name.

    Raises:
        InputError: If the data is missing, or `frames` is neither of the two words.
    """
    if frames not in FRAMES:
        raise unknown("frames", frames, FRAMES)
    if label_column is not None:
        data = find(data, label_column)
    if frames == "first" and max_pixels is None:
        return data
    source = find(data)
    key = hashlib.sha256(ascii((source.key, frames, max_pixels)).encode()).hexdigest()
    source = replace(source, key=key, max_pixels=max_pixels or MAX_PIXELS)
    if frames == "first":
        return source
    return replace(source, items=partial(all_frames, source), count=None, groups=no_groups)


def no_groups(progress: Report) -> Groups:  # noqa: ARG001  # as sources list their groups
    """Raise InputError, since the frames of a file are known only when it is read."""
    raise InputError("--frames all and --stream exclude each other: leave one out")


def all_frames(source: Source) -> Iterator[Item]:
    """Yield each frame as an item; a file of one frame stays as it is, and so does a file that cannot be read."""
    for item in source.items():
        several = False
        try:
            if isinstance(item.content, Path | bytes):
                for frame in frames_of(item, source.max_pixels):
                    several = True
                    yield frame
        except UnreadableImage as why:
            if several:
                yield item._replace(name=f"{item.name}, later frames", content=Broken(str(why).encode()))
        if not several:
            yield item


def frames_of(item: Item, max_pixels: int) -> Iterator[Item]:
    """Yield the frames or pages of a file; nothing if there is one."""
    content: Any = item.content
    with open_image(content, max_pixels) as (image, _):
        pages = pages_of(image)
        for i in pages if len(pages) > 1 else ():
            image.seek(i)
            refuse_huge(image, max_pixels)
            yield item._replace(name=f"{item.name} frame {i}", content=copy_with_tags(image))
