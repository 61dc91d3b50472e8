"""The damage ladder: KID of real images that are made worse in known ways, so that a KID can be said in words.

Each rung is a kind of damage. The highest rung is a set that consists of one real image, again and again.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.cache_folder import keep_file
from unnoise.errors import InputError
from unnoise.evaluation.damage import RUNGS, Damage
from unnoise.evaluation.features import Extractor, as_rgb
from unnoise.evaluation.image_sets import ImageSet, every_batch, extraction_seconds
from unnoise.evaluation.measure import read_kept, statistics_file
from unnoise.evaluation.metrics import KernelMeans, cubic, remainder
from unnoise.evaluation.scores import Score, growing, plain_score
from unnoise.evaluation.statistics import Statistics, content_keys
from unnoise.images import Uint8Images
from unnoise.progress import Report
from unnoise.tensors import save_tensors

REAL, REPEATED = "real images", "one image repeated"  # the lowest and the highest rung
MOST = 500  # images that are damaged: most rungs are then known to 5 or 10 percent

Features = Float64[Tensor, "n d"]


def ladder(images: ImageSet, real: Statistics, extractor: Extractor, report: Report) -> dict[str, Score]:
    """Return the KID of each rung, by name and ascending; for a dataset they are computed once and cached.

    Args:
        images: The real images.
        real: Their statistics, by the same feature extractor.
        extractor: The feature extractor.
        report: Called with (task, images done, images in total).
    """
    place = ladder_file(images, extractor)
    if place and (kept := read_kept(place)) is not None and kept["rungs"].shape == (len(RUNGS) + 1, 4):
        values = kept["rungs"].tolist()
    else:
        values = [[s.value, s.standard_error, *s.interval] for s in climb(images, real, extractor, report)]
        if place:
            with suppress(InputError, OSError):  # a full disk does not end a measurement
                rows = {"rungs": torch.tensor(values, dtype=torch.float64)}
                keep_file(place, lambda path: save_tensors(path, rows, {}))
    scores = {
        name: Score(value, error, (low, high)) for name, (value, error, low, high) in zip(names(), values, strict=True)
    }
    return dict(sorted(scores.items(), key=lambda pair: pair[1].value))


def names() -> list[str]:
    """Return the names of all rungs, in the order in which they are stored."""
    return [*RUNGS, REPEATED]


def ladder_file(images: ImageSet, extractor: Extractor) -> Path | None:
    """Return the cache file of a ladder, or None if it is not cached."""
    if images.key is None or not extractor.cacheable:
        return None
    return statistics_file("ladder-", (images.key, names(), MOST), extractor)


def ladder_seconds(images: ImageSet, extractor: Extractor) -> float:
    """Estimate the seconds that the ladder takes; 0 if it is cached."""
    place = ladder_file(images, extractor)
    if place and place.exists():
        return 0.0
    return len(RUNGS) * min(MOST, images.n) * extraction_seconds(extractor)


def climb(images: ImageSet, real: Statistics, extractor: Extractor, report: Report) -> Iterator[Score]:
    """Yield the KID of each rung."""
    y, keys = real.kept[:MOST].double(), real.keys[:MOST]
    found: dict[str, dict[int, Tensor]] = {name: {} for name in RUNGS}
    with torch.inference_mode():
        for pixels in images.stream(every_batch):
            some = pixels[torch.isin(content_keys(pixels), keys)]
            for name, change in RUNGS.items() if len(some) else ():
                found[name] |= zip(content_keys(some).tolist(), damaged_features(some, change, extractor), strict=True)
            report("damaging", len(RUNGS) * len(found[next(iter(RUNGS))]), len(RUNGS) * len(keys))
    for name in RUNGS:
        yield damage_kid(torch.stack([found[name][key] for key in keys.tolist()]), y)
    yield repeated_kid(y)


def damaged_features(pixels: Uint8Images, change: Damage, extractor: Extractor) -> Features:
    """Return the features of images that were made worse, as the feature extractor sees them: in RGB."""
    return extractor(change(as_rgb(pixels.cpu())))[0].cpu().double()


def damage_kid(x: Features, y: Features) -> Score:
    """Return the KID of images x that are changed images y, row by row: Gretton et al. 2012 (JMLR 13, 723), eq. 4.

    An image is never compared with its own original, so the value has no bias, and the images themselves cancel.
    """
    mixed, n = cubic(x, y), len(x)
    h = cubic(x, x) + cubic(y, y) - mixed - mixed.T
    h.fill_diagonal_(0)
    rows, square = h.sum(1) / (n - 1), float(h.square().sum()) / (n * (n - 1))
    second = 2 * remainder(KernelMeans(rows, rows, square)) / n**2
    return growing(float(rows.mean()), second, 4 * float(rows.var()) / n - 2 * second)


def repeated_kid(y: Features) -> Score:
    """Return the KID of a set that consists of one image y, the mean over all y: E k(y, y) - E k(y, y')."""
    kernel, n = cubic(y, y), len(y)
    own, others = kernel.diagonal(), (kernel.sum(1) - kernel.diagonal()) / (n - 1)
    variance = float((own - 2 * others).var()) / n
    return growing(float(own.mean() - others.mean()), 0.0, variance)


def position(kid: Score, rungs: dict[str, Score]) -> dict[str, Any]:
    """Return where a KID lies on the ladder, as plain values.

    "from" and "to" are the nearest rungs that the interval is clear of; "to" is None above the highest rung. "way" is
    the share of the way from real images to one image repeated. KID is a squared distance, so its root is taken.
    """
    low, high = kid.interval
    lower = [name for name, rung in rungs.items() if rung.interval[1] <= low]
    higher = [name for name, rung in rungs.items() if rung.interval[0] >= high]
    value, *interval = (math.sqrt(max(v, 0.0) / rungs[REPEATED].value) for v in (kid.value, low, high))
    return {
        "from": lower[-1] if lower else REAL,
        "to": higher[0] if higher else None,
        "way": {"value": value, "interval": interval},
    }


def plain_ladder(kid: Score, rungs: dict[str, Score]) -> dict[str, Any]:
    """Return the ladder, and where a KID lies on it, as plain values."""
    return {**position(kid, rungs), "rungs": {name: plain_score(rung) for name, rung in rungs.items()}}


def describe_ladder(found: dict[str, Any]) -> str:
    """Return in words where a KID lies on the ladder; KID x 1000 stands behind each rung."""
    way, (low, high) = found["way"]["value"], found["way"]["interval"]
    start, end = (
        f"{name} ({1000 * found['rungs'][name]['value']:,.0f})" if name in found["rungs"] else name
        for name in (found["from"], found["to"])
    )
    between = f"between {start} and {end}" if end else f"above {start}"
    return f"{between}: {way:.0%} of the way from {REAL} to {REPEATED}, {low:.0%} to {high:.0%}"
