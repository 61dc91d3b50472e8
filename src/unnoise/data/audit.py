"""What is in a set of images: kinds, sizes, classes, what can't be read, and what is there twice."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset, split_held_out
from unnoise.data.decode import read_header
from unnoise.data.sources.find import find
from unnoise.data.sources.source import Source, UnreadableImage
from unnoise.data.target_format import DRAWN
from unnoise.progress import Report

SIDE = 16  # images are compared at this size
NEAR = 0.06  # root mean square difference, in [-1, 1], below which two images are nearly the same: 8 of 256 steps
ROWS = 1_000  # of the matrix of all pairs that are in memory at a time
MOST = 100_000  # pairs: beyond that the images are all alike, and counting them says nothing
SHOWN = 5  # examples

Pair = tuple[int, int]


def census(data: str, progress: Report) -> dict[str, Any]:
    """Of a folder, archive, array or built-in set; the decoded images come from the cache, or go there."""
    found = headers(find(data), progress)
    dataset = open_data(data, progress=progress)
    about = {"name": dataset.name, "fingerprint": dataset.fingerprint, "becomes": [dataset.mode, *dataset.shape]}
    return {**about, **found, "duplicates": duplicates(dataset, progress)}


def headers(source: Source, progress: Report) -> dict[str, Any]:
    """From the headers of all files: modes, sizes, shapes, labels, and those that can't be read."""
    modes, sizes, shapes, labels = (Counter[str]() for _ in range(4))
    broken = list[str]()
    count = 0
    for item in source.items():
        count += 1
        if count % 500 == 0:
            progress("scanning", count, source.count)
        try:
            header = read_header(item.content, DRAWN)
        except UnreadableImage as reason:
            broken.append(f"{item.name} ({reason})")
            continue
        width, height = header.size
        modes[header.mode or f"{header.channels} channels"] += 1
        sizes[f"{width}x{height}"] += 1
        shapes["square" if width == height else "wide" if width > height else "tall"] += 1
        if item.label is not None:
            labels[item.label] += 1
    progress("scanning", count, source.count)
    return {
        "files": count,
        "broken": {"count": len(broken), "examples": broken[:SHOWN]},
        "ignored": dict(source.ignored),
        "modes": dict(modes.most_common()),
        "sizes": dict(sizes.most_common(SHOWN)),
        "different_sizes": len(sizes),
        "shapes": dict(shapes.most_common()),
        "classes": dict(labels.most_common()),
    }


def duplicates(dataset: Dataset, progress: Report) -> dict[str, Any]:
    """Images of the decoded set that are the same, or nearly, and of these pairs those that a split would part."""
    small, named = list[torch.Tensor](), defaultdict[bytes, list[int]](list)
    for start in range(0, len(dataset), 256):
        pixels = dataset.read(np.arange(start, min(start + 256, len(dataset))))
        for i, image in enumerate(pixels, start):
            named[blake2b(image.tobytes(), digest_size=16).digest()].append(i)
        scaled = torch.from_numpy(pixels.astype(np.float32)) / (np.iinfo(pixels.dtype).max / 2) - 1
        small.append(F.adaptive_avg_pool2d(scaled, SIDE).flatten(1))
        progress("comparing", start + len(pixels), 2 * len(dataset))
    same = [pair for group in named.values() for pair in combinations(group[:SHOWN], 2)]
    digest = {i: key for key, group in named.items() for i in group}
    near = [(a, b) for a, b in near_pairs(torch.cat(small), progress) if digest[a] != digest[b]]
    _, held = split_held_out(dataset)
    inside = set() if held.rows is None else set(held.rows.tolist())
    return {
        "same": sum(len(group) - 1 for group in named.values()),
        "near": len({later for _, later in near}),
        "parted": sum((a in inside) != (b in inside) for a, b in same + near),
        "examples": [list(pair) for pair in [*same, *near][:SHOWN]],
    }


def near_pairs(x: torch.Tensor, progress: Report) -> list[Pair]:
    """All pairs nearer than NEAR, or the first MOST."""
    limit, pairs = NEAR**2 * x.shape[1], list[Pair]()
    squares = x.square().sum(1)
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        apart = squares[start : start + ROWS, None] + squares[None, start:] - 2 * part @ x[start:].T
        for a, b in (apart < limit).triu(1).nonzero()[: MOST - len(pairs)].tolist():
            if float((x[start + a] - x[start + b]).square().sum()) < limit:  # exactly, where the square root is small
                pairs.append((start + a, start + b))
        progress("comparing", len(x) + start + len(part), 2 * len(x))
        if len(pairs) >= MOST:
            break
    return pairs


def table(found: dict[str, Any]) -> list[str]:
    """What is printed of it."""
    broken, twice = found["broken"], found["duplicates"]
    rows = {
        "images": f"{found['files'] - broken['count']:,} of {found['files']:,} files can be read",
        "modes": counted(found["modes"].items()),
        "sizes": counted(found["sizes"].items(), found["different_sizes"]),
        "shapes": counted(found["shapes"].items()),
        "classes": counted(found["classes"].items()) or "none",
        "twice": f"{twice['same']:,} are exact copies of another, {twice['near']:,} nearly"
        + (
            f"; for example images {', '.join(f'{a} and {b}' for a, b in twice['examples'])}"
            if twice["examples"]
            else ""
        ),
        "held out": f"{twice['parted']:,} pairs of copies would be parted by the usual split"
        if twice["parted"]
        else "no copy of an image that is held out would be trained on",
    }
    if broken["count"]:
        rows["broken"] = ", ".join(broken["examples"]) + (", ..." if broken["count"] > SHOWN else "")
    if found["ignored"]:
        rows["ignored"] = counted(found["ignored"].items())
    rows["balance"] = balance(list(found["classes"].values()))
    return [f"{name:10}{text}" for name, text in rows.items() if text]


def counted(items: Iterable[tuple[str, int]], of: int = 0) -> str:
    shown = list(items)
    text = ", ".join(f"{name} {count:,}" for name, count in shown[:10])
    more = (of or len(shown)) - min(len(shown), 10)
    return f"{text}, and {more:,} more" if more > 0 else text


def balance(counts: Sequence[int]) -> str:
    """Something to say only where classes differ much."""
    if len(counts) < 2 or max(counts) < 3 * min(counts):
        return ""
    return f"the largest class has {max(counts) / min(counts):.0f} times the images of the smallest"
