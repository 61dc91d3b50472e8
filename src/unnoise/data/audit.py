"""The `unnoise data` audit: modes, sizes, classes, unreadable files, and duplicates in a set of images."""

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
from unnoise.data.target_format import DRAWN_SIZE
from unnoise.progress import Report

COMPARED_SIZE = 16  # width and height at which images are compared
NEAR_RMS = 0.06  # root mean square difference, in [-1, 1], below which two images are near copies: 8 of 256 steps
MATRIX_ROWS = 1_000  # of the matrix of all pairs that are in memory at a time
MAX_PAIRS = 100_000  # beyond this number the images are all alike, and counting the pairs says nothing
MAX_EXAMPLES = 5
COUNTED = ("skipped", "ignored", "found classes")  # notes on facts that have a row of their own

Pair = tuple[int, int]


def audit_data(data: Any, progress: Report) -> dict[str, Any]:
    """Return the facts about a folder, an archive, images in memory or a built-in dataset, ready for JSON.

    The images are decoded into the cache unless they are there.
    """
    source = find(data)
    found = audit_headers(source, progress)
    dataset = open_data(source, progress=progress)
    about = {"name": dataset.name, "fingerprint": dataset.fingerprint, "becomes": [dataset.mode, *dataset.shape]}
    about["notes"] = [note for note in dataset.notes if not note.startswith(COUNTED)]
    return {**about, **found, "duplicates": find_duplicates(dataset, progress)}


def audit_headers(source: Source, progress: Report) -> dict[str, Any]:
    """Count modes, sizes, shapes, labels and unreadable files, from the headers of all files."""
    modes, sizes, shapes, labels = (Counter[str]() for _ in range(4))
    broken = list[str]()
    count = 0
    for item in source.items():
        count += 1
        if count % 500 == 0:
            progress("scanning", count, source.count)
        try:
            header = read_header(item.content, DRAWN_SIZE, source.max_pixels)
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
        "broken": {"count": len(broken), "examples": broken[:MAX_EXAMPLES]},
        "ignored": dict(source.ignored),
        "modes": dict(modes.most_common()),
        "sizes": dict(sizes.most_common(MAX_EXAMPLES)),
        "different_sizes": len(sizes),
        "shapes": dict(shapes.most_common()),
        "classes": dict(labels.most_common()),
    }


def find_duplicates(dataset: Dataset, progress: Report) -> dict[str, Any]:
    """Count copies and near copies in the decoded images, and the pairs that the held-out split would separate."""
    small, by_digest = list[torch.Tensor](), defaultdict[bytes, list[int]](list)
    for start in range(0, len(dataset), 256):
        pixels = dataset.read(np.arange(start, min(start + 256, len(dataset))))
        for i, image in enumerate(pixels, start):
            by_digest[blake2b(image.tobytes(), digest_size=16).digest()].append(i)
        scaled = torch.from_numpy(pixels.astype(np.float32)) / (np.iinfo(pixels.dtype).max / 2) - 1
        small.append(F.adaptive_avg_pool2d(scaled, COMPARED_SIZE).flatten(1))
        progress("comparing", start + len(pixels), 2 * len(dataset))
    same = [pair for group in by_digest.values() for pair in combinations(group[:MAX_EXAMPLES], 2)]
    digest = {i: key for key, group in by_digest.items() for i in group}
    near = [(a, b) for a, b in near_pairs(torch.cat(small), progress) if digest[a] != digest[b]]
    _, held = split_held_out(dataset)
    inside = set() if held.rows is None else set(held.rows.tolist())
    return {
        "same": sum(len(group) - 1 for group in by_digest.values()),
        "near": len({later for _, later in near}),
        "parted": sum((a in inside) != (b in inside) for a, b in same + near),
        "examples": [list(pair) for pair in [*same, *near][:MAX_EXAMPLES]],
    }


def near_pairs(x: torch.Tensor, progress: Report) -> list[Pair]:
    """Return all pairs of rows of x [n, features] nearer than NEAR_RMS, or the first MAX_PAIRS."""
    limit, pairs = NEAR_RMS**2 * x.shape[1], list[Pair]()
    squares = x.square().sum(1)
    for start in range(0, len(x), MATRIX_ROWS):
        part = x[start : start + MATRIX_ROWS]
        apart = squares[start : start + MATRIX_ROWS, None] + squares[None, start:] - 2 * part @ x[start:].T
        for a, b in (apart < limit).triu(1).nonzero()[: MAX_PAIRS - len(pairs)].tolist():
            # Computed again without cancellation, which blurs small distances in the matrix.
            if float((x[start + a] - x[start + b]).square().sum()) < limit:
                pairs.append((start + a, start + b))
        progress("comparing", len(x) + start + len(part), 2 * len(x))
        if len(pairs) >= MAX_PAIRS:
            break
    return pairs


def format_audit(found: dict[str, Any]) -> list[str]:
    """Return the lines that `unnoise data` prints."""
    broken, copies = found["broken"], found["duplicates"]
    examples = ", ".join(f"{a} and {b}" for a, b in copies["examples"])
    rows = {
        "images": f"{found['files'] - broken['count']:,} of {found['files']:,} files can be read",
        "modes": format_counts(found["modes"].items()),
        "sizes": format_counts(found["sizes"].items(), found["different_sizes"]),
        "shapes": format_counts(found["shapes"].items()),
        "classes": format_counts(found["classes"].items()) or "none",
        "copies": f"{copies['same']:,} are exact copies of another image, {copies['near']:,} are near copies"
        + (f"; for example images {examples}" if examples else ""),
        "held out": f"{copies['parted']:,} pairs of copies would be separated by the default split"
        if copies["parted"]
        else "no copy of a held-out image would be trained on",
    }
    if broken["count"]:
        rows["broken"] = ", ".join(broken["examples"]) + (", ..." if broken["count"] > MAX_EXAMPLES else "")
    if found["ignored"]:
        rows["ignored"] = format_counts(found["ignored"].items())
    rows["balance"] = format_balance(list(found["classes"].values()))
    lines = [*rows.items(), *(("note", note) for note in found["notes"])]
    return [f"{name:10}{text}" for name, text in lines if text]


def format_counts(items: Iterable[tuple[str, int]], total: int = 0) -> str:
    """Return the first ten counts, such as `cat 43, dog 12`, and how many more there are of `total`."""
    every = list(items)
    text = ", ".join(f"{name} {count:,}" for name, count in every[:10])
    more = (total or len(every)) - min(len(every), 10)
    return f"{text}, and {more:,} more" if more > 0 else text


def format_balance(counts: Sequence[int]) -> str:
    """Return a warning if the classes differ much in size, otherwise nothing."""
    if len(counts) < 2 or max(counts) < 3 * min(counts):
        return ""
    return f"the largest class has {max(counts) / min(counts):.0f} times the images of the smallest"
