"""A score with its interval, and the intervals of 95 % for each kind of score.

Their coverage is measured by `benchmarks/quality/coverage.py`.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

from jaxtyping import Float64
from torch import Tensor

from unnoise.evaluation.statistics import GROUPS

Z = 1.959964  # the 97.5 % quantile of the normal distribution


class Score(NamedTuple):
    """A value with its standard error and its interval of 95 %; `float(score)` is the value."""

    value: float
    standard_error: float
    interval: tuple[float, float]

    def __float__(self) -> float:
        return self.value


def plain_score(score: Score) -> dict[str, Any]:
    """Return a score as plain values."""
    return {"value": score.value, "standard_error": score.standard_error, "interval": list(score.interval)}


def read_score(found: Mapping[str, Any]) -> Score:
    """Return the score that `plain_score` wrote."""
    low, high = found["interval"]
    return Score(found["value"], found["standard_error"], (low, high))


def is_below(difference: Score) -> bool:
    """Return True if a difference is clearly below 0: its interval of 95 % is."""
    return difference.interval[1] < 0


def student(groups: int = GROUPS, comparisons: int = 1) -> float:
    """Return the 97.5 % quantile of Student's t for a variance from this many groups.

    It is the expansion of Fisher and Cornish 1960 to the third order, exact to 0.002 from 8 groups on. Intervals of
    several comparisons hold together in 95 % if the quantile is larger by the rule of Bonferroni.
    """
    z, n = Z if comparisons == 1 else NormalDist().inv_cdf(1 - 0.025 / comparisons), groups - 1
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def symmetric(value: float, variance: float, groups: int = GROUPS) -> Score:
    """Return a score whose interval extends equally far to both sides."""
    error = math.sqrt(variance)
    return Score(value, error, (value - student(groups) * error, value + student(groups) * error))


def share_score(share: float, n: int, variance: float) -> Score:
    """Return a share of n images, with the interval of Wilson 1927, which stays within 0 and 1.

    The variance is larger than the variance of n independent images. So a smaller number takes the place of n: as many
    independent images have this variance.
    """
    independent = share * (1 - share)
    effective = n * independent / max(n * variance, independent) if independent else n
    return Score(share, math.sqrt(variance), wilson(share, effective, student()))


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """Return the interval of 95 % of a share of n independent images: Wilson 1927."""
    extra = z**2 / n
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(share * (1 - share) / n + extra / n / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def growing(value: float, noise: float, excess: float) -> Score:
    """Return a score whose variance grows with the score, such as KID, with the interval that agrees with the value.

    The variance is `noise` for a score of 0, and `excess` more at this value. So it is noise + excess * score / value
    for other scores. The interval holds the scores from which the value is at most Student's quantile of errors away,
    as Wilson's interval does for shares.

    Args:
        value: The estimate; a KID may be negative.
        noise: The variance of the estimate if the score is 0.
        excess: The variance beyond that.
    """
    slope = max(excess, 0.0) / max(value, math.sqrt(noise), 1e-300)
    shift = student() ** 2 * slope / 2
    half = student() * math.sqrt(noise + slope * max(value, 0.0) + student() ** 2 * slope**2 / 4)
    return Score(value, math.sqrt(noise + max(excess, 0.0)), (value + shift - half, value + shift + half))


def group_variance(changes: Float64[Tensor, "g n"]) -> float:
    """Return the jackknife variance of a mean over n images that the groups of another set cause.

    Row g holds the change of each image's value if group g of the other set is left out. That a mean over n images
    scatters anyway is subtracted.
    """
    groups, n = changes.shape
    own = changes - changes.mean(0)
    scatter = own.mean(1).square() - own.var(1) / n
    return max(0.0, float((groups - 1) / groups * scatter.sum()))
