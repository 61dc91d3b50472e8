"""The `unnoise data` audit: modes, sizes, classes, unreadable files, and duplicates in a set of images."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from itertools import combinations, islice, pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset, split_held_out
from unnoise.data.decode import read_header
from unnoise.data.sources.find import find
from unnoise.data.sources.source import Array, Source, UnreadableImage
from unnoise.data.target_format import DRAWN_SIZE
from unnoise.progress import Report, silent

COMPARED_SIZE = 16  # width and height at which images are compared
NEAR_RMS = 0.06  # root mean square difference, in [-1, 1], below which two images are near copies: 8 of 256 steps
STEPS = 127.5  # of the 8 bits in which images are compared first, for each unit of [-1, 1]
MATRIX_ROWS = 1_000  # rows and columns of the matrix of all pairs that are in memory at a time
PAIRS_AT_ONCE = 4_096  # that are compared before rounding
MAX_VALUES = 2**24  # of images that are in memory as floats
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
    about["no_classes"] = dataset.no_classes
    return {**about, **found, "duplicates": find_duplicates(dataset, progress)}


def audit_headers(source: Source, progress: Report) -> dict[str, Any]:
    """Count modes, sizes, shapes, labels and unreadable files, from the headers of all files."""
    modes, sizes, shapes, labels = (Counter[str]() for _ in range(4))
    examples, count, broken = list[str](), 0, 0
    for item in source.items():
        count += 1
        if count % 500 == 0:
            progress("scanning", count, source.count)
        try:
            header = read_header(item.content, DRAWN_SIZE, source.max_pixels)
        except UnreadableImage as reason:
            broken += 1
            if broken <= MAX_EXAMPLES:
                examples.append(f"{item.name} ({reason})")
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
        "broken": {"count": broken, "examples": examples},
        "ignored": dict(source.ignored),
        "modes": dict(modes.most_common()),
        "sizes": dict(sizes.most_common(MAX_EXAMPLES)),
        "different_sizes": len(sizes),
        "shapes": dict(shapes.most_common()),
        "classes": dict(labels.most_common()),
    }


def find_duplicates(dataset: Dataset, progress: Report) -> dict[str, Any]:
    """Count copies and near copies in the decoded images, and the pairs that the held-out split would separate.

    The memory is 256 bytes for each channel of an image of any size: a small copy in 8 bits.
    """
    groups, near = find_copies(dataset, progress)
    same = [pair for group in groups for pair in combinations(group[:MAX_EXAMPLES], 2)]
    trained, _ = split_held_out(dataset)
    inside = set(range(len(dataset)) if trained.rows is None else trained.rows.tolist())
    return {
        "same": sum(len(group) - 1 for group in groups),
        "near": len({later for _, later in near}),
        "different": len(dataset) - len(later_ones(groups, near)),
        "parted": sum((a in inside) != (b in inside) for a, b in same + near),
        "examples": [list(pair) for pair in [*same, *near][:MAX_EXAMPLES]],
    }


def find_copies(dataset: Dataset, progress: Report) -> tuple[list[list[int]], list[Pair]]:
    """Return the groups of images with the same pixels, and the pairs of near copies of different pixels."""
    rounded, digests = small_copies(dataset, progress)
    _, content = np.unique(digests, axis=0, return_inverse=True)  # [n], equal for exact copies
    content = content.reshape(-1)
    return sorted(exact_copies(content), key=min), near_pairs(rounded, content, partial(scaled_down, dataset), progress)


def later_ones(groups: Iterable[list[int]], near: Iterable[Pair]) -> set[int]:
    """Return the images that are a copy or a near copy of an image before them."""
    return {later for group in groups for later in sorted(group)[1:]} | {later for _, later in near}


def count_different(dataset: Dataset) -> int:
    """Return how many images are no copy or near copy of an image before them."""
    return len(dataset) - len(later_ones(*find_copies(dataset, silent)))


def small_copies(dataset: Dataset, progress: Report) -> tuple[Array, Array]:
    """Return each image at COMPARED_SIZE, rounded to 8 bits [n, features], and a digest of its pixels [n, 2]."""
    features = dataset.shape[0] * COMPARED_SIZE**2
    rounded, digests = np.empty((len(dataset), features), np.uint8), np.empty((len(dataset), 2), np.uint64)
    at_once = images_at_once(dataset)
    for start in range(0, len(dataset), at_once):
        pixels = dataset.read(np.arange(start, min(start + at_once, len(dataset))))
        for i, image in enumerate(pixels, start):
            digests[i] = np.frombuffer(blake2b(image.tobytes(), digest_size=16).digest(), np.uint64)
        rounded[start : start + len(pixels)] = ((scale_down(pixels) + 1) * STEPS).round()
        progress("comparing", start + len(pixels), 2 * len(dataset))
    return rounded, digests


def images_at_once(dataset: Dataset) -> int:
    """Return how many images may be in memory as floats."""
    return max(1, min(256, MAX_VALUES // math.prod(dataset.shape)))


def scale_down(pixels: Array) -> torch.Tensor:
    """Return images [b, c, h, w] at COMPARED_SIZE in [-1, 1], [b, features]."""
    scaled = torch.from_numpy(pixels.astype(np.float32)) / (np.iinfo(pixels.dtype).max / 2) - 1
    return F.adaptive_avg_pool2d(scaled, COMPARED_SIZE).flatten(1)


def scaled_down(dataset: Dataset, rows: Array) -> torch.Tensor:
    """Read these images and return them at COMPARED_SIZE, [b, features]."""
    at_once = images_at_once(dataset)
    parts = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
    return torch.cat([scale_down(dataset.read(part)) for part in parts])


def exact_copies(content: Array) -> Iterator[list[int]]:
    """Yield the numbers of the images of each content that is there more than once."""
    order = np.argsort(content, kind="stable")
    starts = np.flatnonzero(np.diff(content[order], prepend=-1, append=-1))
    for start, end in pairwise(starts):
        if end - start > 1:
            yield order[start:end].tolist()


def near_pairs(rounded: Array, content: Array, exact: Callable[[Array], torch.Tensor], progress: Report) -> list[Pair]:
    """Return all pairs of images of different content nearer than NEAR_RMS, or MAX_PAIRS of them.

    Args:
        rounded: Small copies of the images in 8 bits, [n, features].
        content: A number for each image [n], equal for exact copies.
        exact: Returns the small copies of some images before rounding.
        progress: Called with (task, done, total).
    """
    pairs = list[Pair]()
    for start in range(0, n := len(rounded), MATRIX_ROWS):
        rows = np.arange(start, min(start + MATRIX_ROWS, n))
        for other in range(start, n, MATRIX_ROWS):
            columns = np.arange(other, min(other + MATRIX_ROWS, n))
            maybe = candidates(rounded, rows, columns)
            maybe = maybe[content[maybe[:, 0]] != content[maybe[:, 1]]]
            pairs += islice(confirmed(maybe, exact), MAX_PAIRS - len(pairs))
        progress("comparing", n + start + len(rows), 2 * n)
        if len(pairs) >= MAX_PAIRS:
            break
    return sorted(pairs)


def candidates(rounded: Array, rows: Array, columns: Array) -> Array:
    """Return the pairs (row, column) [k, 2], row before column, that may be nearer than NEAR_RMS.

    Rounding moves a value by half a step at most, so a distance by one step at most (root mean square). The products
    of small whole numbers are exact in float32.
    """
    a, b = (torch.from_numpy(rounded[part]).float() - 128 for part in (rows, columns))
    apart = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    found = (apart < a.shape[1] * (NEAR_RMS * STEPS + 1) ** 2).nonzero().numpy()
    pairs = np.stack([rows[found[:, 0]], columns[found[:, 1]]], axis=1)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def confirmed(pairs: Array, exact: Callable[[Array], torch.Tensor]) -> Iterator[Pair]:
    """Yield the pairs [k, 2] whose images are nearer than NEAR_RMS before rounding."""
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = pairs[start : start + PAIRS_AT_ONCE]
        images, place = np.unique(part, return_inverse=True)
        x, (a, b) = exact(images), torch.from_numpy(place.reshape(-1, 2)).T
        near = (x[a] - x[b]).square().sum(1) < NEAR_RMS**2 * x.shape[1]
        yield from map(tuple, part[near.numpy()].tolist())


def format_audit(found: dict[str, Any]) -> list[str]:
    """Return the lines that `unnoise data` prints."""
    broken, copies = found["broken"], found["duplicates"]
    examples = ", ".join(f"{a} and {b}" for a, b in copies["examples"])
    rows = {
        "images": f"{found['files'] - broken['count']:,} of {found['files']:,} files can be read",
        "modes": format_counts(found["modes"].items()),
        "sizes": format_counts(found["sizes"].items(), found["different_sizes"]),
        "shapes": format_counts(found["shapes"].items()),
        "classes": format_classes(found),
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


def format_classes(found: dict[str, Any]) -> str:
    """Return the number of images of each class, or why there are no classes."""
    counts, why = format_counts(found["classes"].items()), found["no_classes"]
    return f"none: {why}" if why else counts or "none"


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
