"""Does the interval of the difference of two runs hold the truth? Scores pairs of sets, again and again.

    python -m benchmarks.quality.coverage_of_differences DATA OUT [--sizes 100 500 2000] [--ratios 1 5] [--repeats 500]

As in `coverage.py`, sets are drawn from the features of DATA. The features of an image are mixed from those of two
images. Image i of both sets has one of them in common, so they correlate as images of one seed do. "equal": both sets
and the reference have one distribution. "equal, shifted": both sets are changed in the same way. "different": one set
is changed. The truth is 0, or the mean of the repetitions. OUT/differences.json is written after each case.
"""

import argparse
import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.lib.machine import machine
from benchmarks.quality.coverage import CHANGES, extract
from unnoise.evaluation.coverage import held
from unnoise.evaluation.paired import Difference, contributions, difference
from unnoise.files import write_json

Pairs = dict[str, tuple[Difference, Difference]]  # by truth: with the seeds in common, and as if they had none


def mixed(one: Tensor, other: Tensor, correlation: float, middle: Tensor) -> Tensor:
    """Return features [n, d] that correlate with `one`, and have its mean and covariance."""
    return middle + math.sqrt(correlation) * (one - middle) + math.sqrt(1 - correlation) * (other - middle)


def repeat(features: Tensor, n: int, m: int, correlation: float, repeats: int) -> Iterator[Pairs]:
    """Draw two sets of n images and a reference of m, and compare them, again and again."""
    middle, direction = features.mean(0), torch.randn(features.shape[1], generator=torch.Generator().manual_seed(1))
    for seed in range(repeats):
        rows = np.random.default_rng(seed).permutation(len(features))
        parts = torch.split(features[rows[: 3 * n + 2 * m]], [n, n, n, m, m])
        a, b = (mixed(parts[0], own, correlation, middle) for own in parts[1:3])
        y = mixed(parts[3], parts[4], correlation, middle)
        shifted = [CHANGES["shifted"](x, direction) for x in (a, b)]
        found = [contributions(x, y) for x in (a, b, *shifted)]
        pairs = {"equal": (0, 1), "equal, shifted": (2, 3), "different": (0, 3)}
        yield {
            truth: (
                difference(found[i], found[j]),
                difference(found[i], found[j], same_seeds=False),
            )
            for truth, (i, j) in pairs.items()
        }


def summarize(draws: list[Pairs]) -> Iterator[dict[str, Any]]:
    """Yield a row for each truth: the share of intervals that hold it, and their mean half widths."""
    for truth in draws[0]:
        same, other = ([draw[truth][i].score for draw in draws] for i in range(2))
        mean = sum(score.value for score in same) / len(same)
        value = mean if truth == "different" else 0.0
        yield {
            "truth": truth,
            "mean": mean,
            "spread": float(np.std([score.value for score in same])),
            "holds": sum(held(score.interval, value) for score in same) / len(same),
            "holds_unpaired": sum(held(score.interval, value) for score in other) / len(other),
            "width": sum(score.interval[1] - score.interval[0] for score in same) / len(same),
            "width_unpaired": sum(score.interval[1] - score.interval[0] for score in other) / len(other),
        }


def main(arguments: argparse.Namespace) -> None:
    """Simulate each case that is not in the result yet, and print the rows of its table."""
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    features, place = extract(arguments.data, folder), folder / "differences.json"
    rows = json.loads(place.read_text())["rows"] if place.exists() else []
    print("| images | reference | correlation | truth | holds it | width x 1000 | as if unpaired |", flush=True)
    print("|---:|---:|---:|---|---:|---:|---:|")
    for n, ratio, correlation in product(arguments.sizes, arguments.ratios, arguments.correlations):
        case = {"n": n, "reference": round(n * ratio), "correlation": correlation, "repeats": arguments.repeats}
        if case not in [row["case"] for row in rows]:
            draws = [*repeat(features, n, case["reference"], correlation, arguments.repeats)]
            rows += [row | {"case": case} for row in summarize(draws)]
            write_json(place, {"images": len(features), "rows": rows, "machine": machine("unnoise")})
        for row in rows:
            if row["case"] == case:
                print(format_row(row), flush=True)


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the Markdown table."""
    case = row["case"]
    cells = (
        f"{case['n']:,}",
        f"{case['reference']:,}",
        f"{case['correlation']:g}",
        row["truth"],
        f"{row['holds']:.3f}",
    )
    widths = (f"{1000 * row[name]:.2f}" for name in ("width", "width_unpaired"))
    return "| " + " | ".join((*cells, *widths)) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument in ("data", "out"):
        parser.add_argument(argument)
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 500, 2000], help="images of each set")
    parser.add_argument("--ratios", nargs="+", type=float, default=[1, 5], help="reference images for each of them")
    parser.add_argument("--correlations", nargs="+", type=float, default=[0, 0.5, 0.9], help="of images of one seed")
    parser.add_argument("--repeats", type=int, default=500)
    main(parser.parse_args())
