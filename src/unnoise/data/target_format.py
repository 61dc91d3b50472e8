"""A first pass over the headers of all images, which decides the format that every image is converted to."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from unnoise.data.decode import Header, TargetFormat, array_mode, read_header, read_numbers
from unnoise.data.numbers import Measured
from unnoise.data.resize import MIN_SIDE, OWN_SIZE
from unnoise.data.sources.classes import NO_CLASSES
from unnoise.data.sources.source import MAX_PIXELS, READS, Source, UnreadableImage
from unnoise.errors import InputError
from unnoise.progress import Report
from unnoise.types import MODES

DRAWN_SIZE = (32, 32)  # default size of images that can draw themselves at any size
DEFAULT_SIZE = (64, 64)
MOST_OWN = 256  # shorter side of images that keep their own size: no feature extractor sees more by default
MODE_RANK = ("L", "I;16", "LA", "RGB", "RGBA", "")  # more channels win a tie
MAX_NAMED = 5  # unreadable images that a message names


@dataclass
class HeaderScan:
    """Counts of modes and sizes; they stay small however many images there are."""

    examined: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    channels: Counter[int] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    max_pixels: int = MAX_PIXELS
    array: bool = False
    drawn: bool = False
    smallest: int = 2**31  # side of an image
    measured: Measured = field(default_factory=Measured)

    def add(self, header: Header) -> None:
        self.modes[header.mode] += 1
        self.channels[header.channels] += 1
        self.smallest = min(self.smallest, *header.size)
        if len(self.sizes) < 2:  # the only question is whether there is one size
            self.sizes.add(header.size)

    def count_array_modes(self) -> None:
        """Count the modes anew by the channels: the pixels of arrays depend on the span of all of them."""
        spans = self.measured.spans
        for kind in self.measured.extents if self.array else ():
            counts = {c: n for c, n in self.channels.items() if array_mode(c, kind, spans)}
            self.modes = Counter({array_mode(c, kind, spans): n for c, n in counts.items()}) or self.modes


def scan_headers(source: Source, limit: int | None, progress: Report) -> HeaderScan:
    """Read headers until `limit` readable images are found; one header is enough if all images are alike.

    Images whose numbers need a span that is not known yet are decoded, to measure it.
    """
    found = HeaderScan(max_pixels=source.max_pixels, measured=Measured(source.spans))
    readable, settled = 0, True
    total = source.count if limit is None else min(limit, source.count or limit)
    for item in source.items():
        found.examined += 1
        try:
            header = read_header(item.content, DRAWN_SIZE, source.max_pixels)
            settled = found.measured.settled(header.numbers)
            if not settled:
                found.measured.add(read_numbers(item.content, source.max_pixels))
                settled = found.measured.settled(header.numbers)
            found.add(header)
            readable += 1
        except UnreadableImage as reason:
            if len(found.skipped) < MAX_NAMED:
                found.skipped.append(f"{item.name} ({reason})")
            if len(found.reasons) < 2:  # the only question is whether there is one reason
                found.reasons.add(str(reason))
        found.array = isinstance(item.content, np.ndarray)
        found.drawn = callable(item.content)
        if source.uniform and readable and settled and total is not None:
            found.examined = total
            break
        if readable == limit:
            break
        if found.examined % 500 == 0:
            progress("scanning", found.examined, total)
    progress("scanning", found.examined, total)
    if not readable:
        raise no_images_error(source, found)
    found.count_array_modes()
    return found


def no_images_error(source: Source, found: HeaderScan) -> InputError:
    """Say why there is nothing to train on."""
    if found.examined > 1 and len(found.reasons) == 1:
        return InputError(
            f"none of the {found.examined} images in {source.name!r} can be read; each is the same: {found.skipped[0]}"
        )
    if found.examined:
        return InputError(
            f"none of the {found.examined} images in {source.name!r} can be read: {', '.join(found.skipped)}"
        )
    others = f" ({format_suffixes(source)})" if source.ignored else ""
    total = sum(source.ignored.values())
    said = "".join(f"; {note}" for note in source.notes if not note.startswith(NO_CLASSES))
    return InputError(
        f"no images in {source.name!r}: 0 of {total} files count{others}{said}; unnoise reads {', '.join(READS)}"
    )


def format_suffixes(source: Source) -> str:
    """Return the most common suffixes of the files that are no images, such as `.txt 10, .mov 2`."""
    return ", ".join(f"{suffix} {n}" for suffix, n in Counter(source.ignored).most_common(5))


def choose_format(found: HeaderScan, size: tuple[int, int] | None, channels: int | None, fit: str) -> TargetFormat:
    """Choose the most common mode and the common size, except what the user asks for."""
    mode = max(found.modes, key=lambda mode: (found.modes[mode], MODE_RANK.index(mode)))
    chosen = own_size(found) if size == OWN_SIZE else size or default_size(found)
    return TargetFormat(choose_mode(mode, channels, found), chosen, fit, found.max_pixels, found.measured.spans)


def default_size(found: HeaderScan) -> tuple[int, int]:
    """Return the size of the images if they share one and it is small; otherwise 64x64."""
    if found.drawn:
        return DRAWN_SIZE
    own = next(iter(found.sizes)) if len(found.sizes) == 1 else DEFAULT_SIZE
    if max(own) > max(DEFAULT_SIZE):
        return DEFAULT_SIZE
    if min(own) < MIN_SIDE:
        raise InputError(f"the images are {own[0]}x{own[1]}; give size={MIN_SIDE} or more to enlarge them")
    return own


def own_size(found: HeaderScan) -> tuple[int, int]:
    """Return the size that all images share, shrunk if its shorter side is above MOST_OWN; else a square for all.

    The square is as small as the smallest side of an image, but not below the default size.
    """
    if len(found.sizes) != 1:
        side = min(max(*DEFAULT_SIZE, found.smallest), MOST_OWN)
        return side, side
    width, height = next(iter(found.sizes))
    if found.drawn or max(width, height) <= max(DEFAULT_SIZE):
        return default_size(found)
    scale = min(1.0, MOST_OWN / min(width, height))
    return max(MIN_SIDE, round(scale * width)), max(MIN_SIDE, round(scale * height))


def choose_mode(mode: str, channels: int | None, found: HeaderScan) -> str:
    """Return the most common mode, unless the user asks for a number of channels that it does not have."""
    if channels is None or (channels == 1 and mode == "I;16") or (found.array and channels in found.channels):
        return mode
    if not mode:
        own = next(iter(found.channels))
        raise InputError(f"channels={channels}: these arrays have {own} channels, which stay; leave it out")
    if channels not in MODES:
        raise InputError(f"channels={channels}: images have 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA)")
    return MODES[channels]
