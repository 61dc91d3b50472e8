"""A first look at all images, from their headers, to decide what they all become."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from unnoise.data.decode import Header, Plan, read_header
from unnoise.data.resize import SMALLEST
from unnoise.data.sources.source import READS, Source, UnreadableImage
from unnoise.errors import InputError
from unnoise.progress import Report
from unnoise.types import MODES

DRAWN = (32, 32)  # default size of images that can draw themselves at any
DEFAULT = (64, 64)
RANK = ("L", "I;16", "LA", "RGB", "RGBA", "")  # more channels win a tie
NAMED = 5


@dataclass
class Survey:
    """What was found; it stays small however many images there are."""

    examined: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    channels: set[int] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    array: bool = False
    drawn: bool = False

    def add(self, header: Header) -> None:
        self.modes[header.mode] += 1
        self.channels.add(header.channels)
        if len(self.sizes) < 2:  # whether there is one size is all that matters
            self.sizes.add(header.size)


def survey(source: Source, limit: int | None, progress: Report) -> Survey:
    """Read headers until `limit` images are found."""
    found, readable = Survey(), 0
    total = source.count if limit is None else min(limit, source.count or limit)
    for item in source.items():
        found.examined += 1
        try:
            found.add(read_header(item.content, DRAWN))
            readable += 1
        except UnreadableImage as reason:
            if len(found.skipped) < NAMED:
                found.skipped.append(f"{item.name} ({reason})")
        found.array = isinstance(item.content, np.ndarray)
        found.drawn = callable(item.content)
        if source.uniform and readable and total is not None:
            found.examined = total
            break
        if readable == limit:
            break
        if found.examined % 500 == 0:
            progress("scanning", found.examined, total)
    progress("scanning", found.examined, total)
    if not readable:
        raise nothing(source, found)
    return found


def nothing(source: Source, found: Survey) -> InputError:
    """Say why there is nothing to train on."""
    if found.examined:
        return InputError(
            f"none of the {found.examined} images in {source.name!r} can be read: {', '.join(found.skipped)}"
        )
    others = f" ({suffixes(source)})" if source.ignored else ""
    total = sum(source.ignored.values())
    return InputError(
        f"no images in {source.name!r}: 0 of {total} files count{others}; unnoise reads {', '.join(READS)}"
    )


def suffixes(source: Source) -> str:
    """`.txt 10, .mov 2`."""
    return ", ".join(f"{suffix} {n}" for suffix, n in Counter(source.ignored).most_common(5))


def make_plan(found: Survey, size: tuple[int, int] | None, channels: int | None, fit: str) -> Plan:
    mode = max(found.modes, key=lambda mode: (found.modes[mode], RANK.index(mode)))
    chosen = size or default_size(found)
    return Plan(choose_mode(mode, channels, found), chosen, fit)


def default_size(found: Survey) -> tuple[int, int]:
    """The size they all have, where it is one and small."""
    if found.drawn:
        return DRAWN
    own = next(iter(found.sizes)) if len(found.sizes) == 1 else DEFAULT
    if max(own) > max(DEFAULT):
        return DEFAULT
    if min(own) < SMALLEST:
        raise InputError(f"the images are {own[0]}x{own[1]}; give size={SMALLEST} or more to enlarge them")
    return own


def choose_mode(mode: str, channels: int | None, found: Survey) -> str:
    """The most common mode, unless the user asks for a number of channels that it has not."""
    if channels is None or (channels == 1 and mode == "I;16") or (found.array and channels in found.channels):
        return mode
    if not mode:
        own = next(iter(found.channels))
        raise InputError(f"channels={channels}: these arrays have {own} channels, which stay; leave it out")
    if channels not in MODES:
        raise InputError(f"channels={channels}: images have 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA)")
    return MODES[channels]
