"""A first pass over the headers of all images, which decides the format that every image is converted to."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from unnoise.data.decode import Content, Header, TargetFormat, read_header, read_numbers
from unnoise.data.numbers import USUAL_SPANS, Extent, Spans, real_span, whole_span
from unnoise.data.resize import MIN_SIDE
from unnoise.data.sources.source import MAX_PIXELS, READS, Source, UnreadableImage
from unnoise.errors import InputError
from unnoise.progress import Report
from unnoise.types import MODES

DRAWN_SIZE = (32, 32)  # default size of images that can draw themselves at any size
DEFAULT_SIZE = (64, 64)
MODE_RANK = ("L", "I;16", "LA", "RGB", "RGBA", "")  # more channels win a tie
MAX_NAMED = 5  # unreadable images that a message names


@dataclass
class HeaderScan:
    """Counts of modes and sizes; they stay small however many images there are."""

    examined: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    channels: set[int] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    max_pixels: int = MAX_PIXELS
    array: bool = False
    drawn: bool = False
    whole: Extent = field(default_factory=Extent)  # numbers of deep images
    real: Extent = field(default_factory=Extent)

    def add(self, header: Header, content: Content) -> None:
        """Count the header of an image, and take note of the numbers of a deep one."""
        if header.mode == "I;16" and (values := read_numbers(content, self.max_pixels)) is not None:
            (self.real if values.dtype.kind == "f" else self.whole).add(values)
        self.modes[header.mode] += 1
        self.channels.add(header.channels)
        if len(self.sizes) < 2:  # the only question is whether there is one size
            self.sizes.add(header.size)

    @property
    def spans(self) -> Spans:
        """Return the spans of all numbers that were seen, and the usual ones of kinds that were not."""
        usual, whole, real = USUAL_SPANS, self.whole, self.real
        return Spans(
            whole_span(whole.low, whole.high) if whole.low <= whole.high else usual.whole,
            real_span(real.low, real.high) if real.low <= real.high else usual.real,
        )


def scan_headers(source: Source, limit: int | None, progress: Report) -> HeaderScan:
    """Read headers until `limit` readable images are found; one header is enough if all images are alike."""
    found, readable = HeaderScan(max_pixels=source.max_pixels), 0
    total = source.count if limit is None else min(limit, source.count or limit)
    for item in source.items():
        found.examined += 1
        try:
            found.add(read_header(item.content, DRAWN_SIZE, source.max_pixels), item.content)
            readable += 1
        except UnreadableImage as reason:
            if len(found.skipped) < MAX_NAMED:
                found.skipped.append(f"{item.name} ({reason})")
            if len(found.reasons) < 2:  # the only question is whether there is one reason
                found.reasons.add(str(reason))
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
        raise no_images_error(source, found)
    if source.span:  # of an array, whose items are brought to the whole range
        found.whole.add(np.array(source.span()))
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
    return InputError(
        f"no images in {source.name!r}: 0 of {total} files count{others}; unnoise reads {', '.join(READS)}"
    )


def format_suffixes(source: Source) -> str:
    """Return the most common suffixes of the files that are no images, such as `.txt 10, .mov 2`."""
    return ", ".join(f"{suffix} {n}" for suffix, n in Counter(source.ignored).most_common(5))


def choose_format(found: HeaderScan, size: tuple[int, int] | None, channels: int | None, fit: str) -> TargetFormat:
    """Choose the most common mode and the common size, except what the user asks for."""
    mode = max(found.modes, key=lambda mode: (found.modes[mode], MODE_RANK.index(mode)))
    chosen = size or default_size(found)
    return TargetFormat(choose_mode(mode, channels, found), chosen, fit, found.max_pixels, found.spans)


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
