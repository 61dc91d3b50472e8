"""The rows of `unnoise compare` about the differences of KID between runs, and the images that tell them apart."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch

from unnoise.evaluation.paired import Contributions, Difference, Pairs, difference, images_needed
from unnoise.evaluation.statistics import MAX_KEPT

Row = tuple[str, ...]  # a name, then a cell for each run
ABOVE, NEEDED = "kid above the best x 1000", "images needed"


class Measured(NamedTuple):
    """The name of a run, how its images were drawn, whether KID was measured, and what each image contributes to it."""

    name: str
    settings: dict[str, Any]
    has_kid: bool
    pairs: Pairs


def difference_rows(runs: Sequence[Measured]) -> tuple[list[Row], list[str]]:
    """Return rows with the difference of each run to the best one, and a warning if there can be none."""
    if not all(run.has_kid for run in runs):
        return [], []
    if why := unpaired(runs):
        return [], [f"the difference of KID between the runs has no interval: {why}"]
    networks = [name for name in runs[0].pairs if all(name in run.pairs for run in runs)]
    found = [row for name in networks for row in rows_of(name, [run.pairs[name] for run in runs], name != networks[0])]
    return [*found, (explanation(len(runs)), *("" for _ in runs))], []


def unpaired(runs: Sequence[Measured]) -> str:
    """Return why the images of runs are no pairs, and what to do; nothing if they are."""
    if any(run.settings["n"] > MAX_KEPT for run in runs):
        return f"it is known for {MAX_KEPT:,} images at most; use unnoise eval -n {MAX_KEPT}"
    if missing := [run.name for run in runs if not run.pairs]:
        return (
            f"the stored scores of {' and '.join(missing)} do not say what each image contributes; measure again with "
            "unnoise eval"
        )
    if len({run.settings.get("seed") for run in runs}) > 1:
        return "the images were drawn from different seeds; measure again with unnoise eval and one --seed"
    if not set.intersection(*(set(run.pairs) for run in runs)):
        return "the feature extractors differ; measure again with unnoise eval and the same --features"
    first = next(iter(runs[0].pairs.values()))
    if not all(torch.equal(one.keys, first.keys) for run in runs for one in run.pairs.values()):
        return "the reference images differ; measure again with unnoise eval"
    return ""


def rows_of(network: str, found: Sequence[Contributions], is_second: bool) -> list[Row]:
    """Return the rows of one feature extractor; the network is named if it is not the first one."""
    kids = [float(one.images.mean() + one.reference.mean()) for one in found]
    best, pairs = kids.index(min(kids)), len([*combinations(found, 2)])
    changes = [difference(one, found[best], pairs) for one in found]
    words = [describe(change) for change in changes]
    clear = [change.score.interval[0] > 0 for i, change in enumerate(changes) if i != best]
    words[best] = "best" if all(clear) else "lowest"
    n, m = len(found[best].images), len(found[best].reference)
    needed = ["" if i == best else describe_needed(change, n, m, pairs) for i, change in enumerate(changes)]
    which = f" by {network}" if is_second else ""
    return [(ABOVE + which, *words), (NEEDED + which, *needed)]


def describe(change: Difference) -> str:
    """Return a difference with its interval, and in words."""
    low, high = change.score.interval
    if low == high == 0:
        return "0: the same images"
    verdict = "worse" if low > 0 else "not told apart"
    return f"{1000 * change.score.value:.3f} ({1000 * low:.3f} to {1000 * high:.3f}), {verdict}"


def describe_needed(change: Difference, n: int, m: int, pairs: int) -> str:
    """Return how many images tell two runs apart, in two digits; "-" if none do."""
    needed, reference = images_needed(change, n, m, pairs)
    if math.isinf(needed):
        return "-"
    return two_digits(needed) + (f", and {two_digits(reference)} to compare with" if reference else "")


def two_digits(number: float) -> str:
    """Return a number above 0 with two digits, rounded up; a set has 2 images at least."""
    unit = 10 ** max(math.floor(math.log10(max(number, 2))) - 1, 0)
    return f"{max(unit * math.ceil(number / unit), 2):,}"


def explanation(runs: int) -> str:
    """Return what the rows mean."""
    together = f", which hold together for all {runs * (runs - 1) // 2} pairs of runs" if runs > 2 else ""
    return (
        f"  above the best: by images of the same seeds, against the same reference; intervals of 95 %{together}. "
        "images needed: of each run, for an interval that just leaves 0, if the difference stays as it is"
    )
