"""Simulate how often an interval of 95 % holds the truth: sets of images are drawn from real ones, again and again.

The sets of a repetition have no image in common. So the difference of their means varies as it does for new images,
however few images there are to draw from.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from unnoise.evaluation import metrics, neighbours
from unnoise.evaluation.neighbours import Features
from unnoise.evaluation.scores import Score, wilson
from unnoise.evaluation.statistics import Statistics
from unnoise.progress import Report, Say

Scored: TypeAlias = dict[str, tuple[Score, Score | None]]  # by name: the score, and what equal sets get

SECONDS, LEAST, MOST = 60.0, 20, 500  # time of a check; repetitions
GROUPS_OF_SCORES = {"precision_recall": "neighbours", "density_coverage": "neighbours", "kid": "kid", "fid": "fid"}
LEAST_IMAGES = 50  # of a simulated set


def statistics_of(features: Features, chance: np.random.Generator) -> Statistics:
    """Return the statistics of features, with pixels of chance for their keys."""
    s = Statistics.empty(features.shape[1], 0, 1)
    pixels = torch.from_numpy(chance.integers(0, 256, (len(features), 1, 1, 8), dtype=np.uint8))
    s.add(features.float(), torch.zeros(len(features), 0), pixels)
    return s


def score(a: Statistics, b: Statistics, names: Sequence[str]) -> Scored:
    """Return the named scores, of kid, fid and neighbours."""
    found: Scored = {}
    if "kid" in names:
        found["kid"] = metrics.kid(a.kept, b.kept), metrics.kid_floor(a, b)
    if "fid" in names:
        equal = metrics.fid_floor(a, b)
        found["fid"] = metrics.fid(a, b, equal), equal
    if "neighbours" in names:
        n = min(a.n, b.n)
        x, y = a.kept[:n], b.kept[:n]
        shares = (*neighbours.precision_recall(x, y), *neighbours.density_coverage(x, y))
        found |= dict(zip(("precision", "recall", "density", "coverage"), ((s, None) for s in shares), strict=True))
    return found


def repeat(
    features: Features, n: int, m: int, change: Callable[[Features], Features], names: Sequence[str], repeats: int
) -> Iterator[Scored]:
    """Draw sets of n and m and score them, again and again; `change` makes the first set one of other images."""
    for seed in range(repeats):
        chance = np.random.default_rng(seed)
        rows = chance.permutation(len(features))
        a = change(features[rows[:n]])
        yield score(statistics_of(a, chance), statistics_of(features[rows[n : n + m]], chance), names)


def held(interval: tuple[float, float], value: float) -> bool:
    """Return True if an interval holds a value."""
    return interval[0] <= value <= interval[1]


def summarize(draws: Sequence[Scored], *, equal: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each score: its mean, and the share of intervals that hold what they should.

    That is the mean of all repetitions, or 0 for the KID of equal sets.
    """
    for name in draws[0]:
        found = [draw[name] for draw in draws]
        mean = sum(one.value for one, _ in found) / len(found)
        truth = 0.0 if equal and name == "kid" else mean
        row: dict[str, Any] = {"score": name, "mean": mean}
        if np.isfinite(found[0][0].interval[0]):
            row["holds"] = sum(held(one.interval, truth) for one, _ in found) / len(found)
        if equal and found[0][1]:
            row["equal_holds"] = sum(held(floor.interval, one.value) for one, floor in found if floor) / len(found)
        yield row


def moved_to(drawn: Features, real: Features) -> Callable[[Features], Features]:
    """Return a change of real features that gives each of them the mean and spread that it has in drawn images."""
    middle, target = real.mean(0), drawn.mean(0)
    ratio = drawn.std(0) / real.std(0).clamp(min=1e-6)
    return lambda x: (x - middle) * ratio + target


def simulate(
    drawn: Features, pool: Features, reference: int, asked: Sequence[str], report: Report, say: Say
) -> dict[str, Any]:
    """Return the share of intervals that hold the truth, for sets that are equal and for sets like the drawn images.

    Args:
        drawn: The features of the scored images.
        pool: The features of all real images that are there; the sets are drawn from them.
        reference: The number of images that the scores compare with.
        asked: The names of the metrics.
        report, say: Called with (task, repetitions done, in total), and with a line.
    """
    share = min(1.0, len(pool) / (len(drawn) + reference))
    n, m = int(share * len(drawn)), int(share * reference)
    names = [*dict.fromkeys(GROUPS_OF_SCORES[name] for name in asked if name in GROUPS_OF_SCORES)]
    if "fid" in names and min(n, m) < metrics.ENOUGH * pool.shape[1]:
        names.remove("fid")
    if min(n, m) < LEAST_IMAGES or not names:
        return {"left_out": f"{len(pool):,} real images are too few to simulate {len(drawn):,} against {reference:,}"}
    changes = {"equal": lambda x: x, "moved": moved_to(drawn, pool)}
    begun = time.monotonic()
    next(repeat(pool, n, m, changes["moved"], names, 1))
    each = len(changes) * (time.monotonic() - begun)
    repeats = max(LEAST, min(MOST, int(SECONDS / each)))
    say(f"--check simulates {repeats} repetitions, which takes about {repeats * each:.0f} s")
    rows: dict[str, Any] = {}
    for done, (kind, change) in enumerate(changes.items()):
        draws = []
        for one in repeat(pool, n, m, change, names, repeats):
            draws.append(one)
            report("simulating", done * repeats + len(draws), len(changes) * repeats)
        for row in summarize(draws, equal=kind == "equal"):
            rows.setdefault(row["score"], {})[kind] = {
                key: {"share": row[key], "interval": list(wilson(row[key], repeats))}
                for key in ("holds", "equal_holds")
                if key in row
            }
    facts = {"n": n, "reference": m, "images": len(pool), "repeats": repeats}
    return {**facts, **({"fewer_than": [len(drawn), reference]} if share < 1 else {}), "scores": rows}


def format_coverage(result: dict[str, Any]) -> list[str]:
    """Return the lines that `unnoise eval --check` prints."""
    if "left_out" in result:
        return [f"warning: --check is left out: {result['left_out']}; add --reference, or hold out more images"]
    sets = f"sets of {result['n']:,} and {result['reference']:,} images, drawn from {result['images']:,} real ones"
    lines = [
        f"intervals of 95 % hold the truth in this share of {result['repeats']} repetitions (95 %): {sets}",
        f"{'':18}{'of equal sets':<25}{'of sets like these':<25}what equal sets get",
    ]
    for name, kinds in result["scores"].items():
        cells = [kinds["equal"].get("holds"), kinds["moved"].get("holds"), kinds["equal"].get("equal_holds")]
        lines.append(f"{name:18}{''.join(f'{format_share(cell):<25}' for cell in cells)}".rstrip())
    if fewer := result.get("fewer_than"):
        lines.append(
            f"warning: the check is of fewer images than the scores, which are of {fewer[0]:,} against {fewer[1]:,}: "
            "there are not enough real images to draw both sets without an image in common"
        )
    return lines


def format_share(cell: dict[str, Any] | None) -> str:
    """Return a share and its interval as text, or "-" if there is none."""
    if cell is None or not math.isfinite(cell["share"]):
        return "-"
    low, high = cell["interval"]
    return f"{cell['share']:.3f}, {low:.2f} to {high:.2f}"
