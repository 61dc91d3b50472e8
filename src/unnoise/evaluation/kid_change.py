"""Measure what a fault costs: how much KID falls if the images are mended, paired on the same images."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from unnoise.evaluation.metrics import cubic
from unnoise.evaluation.scores import Score, symmetric
from unnoise.evaluation.statistics import GROUPS

Features = Float[Tensor, "_ d"]


class Weighted(NamedTuple):
    """Features of images, and how often each image counts."""

    features: Features
    weights: Float64[Tensor, " n"]

    @classmethod
    def even(cls, features: Features) -> "Weighted":
        """Return features of images that all count once."""
        return cls(features, torch.ones(len(features), dtype=torch.float64))


def kid_change(before: tuple[Weighted, Weighted], after: tuple[Weighted, Weighted]) -> Score:
    """Return KID before less KID after, with an interval by leaving out one of 20 groups of each set.

    Args:
        before, after: The drawn and the real images. Row i is the same image before and after, so its chance cancels.
    """
    jackknives = [kid_jackknife(*pair) for pair in (before, after)]
    value = jackknives[0][0] - jackknives[1][0]
    changes = [before - after for before, after in zip(*(sides for _, *sides in jackknives), strict=True)]
    return symmetric(value, sum(map(jackknife_variance, changes)))


def kid_score(drawn: Weighted, real: Weighted) -> Score:
    """Return KID of images that count differently often, with an interval by leaving out one of 20 groups."""
    value, *sides = kid_jackknife(drawn, real)
    return symmetric(value, sum(map(jackknife_variance, sides)))


def jackknife_variance(left: Float64[Tensor, " g"]) -> float:
    """Return the variance of a number, from its values without each group (Efron & Stein 1981)."""
    return float((len(left) - 1) * left.var(correction=0))


def kid_jackknife(drawn: Weighted, real: Weighted) -> tuple[float, Float64[Tensor, " g"], Float64[Tensor, " g"]]:
    """Return KID of all images, without each group of drawn images, and without each group of real images."""
    own, theirs = own_sums(drawn), own_sums(real)
    x, y = grouped(drawn), grouped(real)
    mixed = x.T @ cubic(drawn.features.double(), real.features.double()) @ y
    within = [mean_without(*own), mean_without(*theirs)]
    a, b = x.sum(0), y.sum(0)
    cross = mixed.sum() / (a.sum() * b.sum())
    cross_a = (mixed.sum() - mixed.sum(1)) / ((a.sum() - a) * b.sum())
    cross_b = (mixed.sum() - mixed.sum(0)) / (a.sum() * (b.sum() - b))
    (all_a, left_a), (all_b, left_b) = within
    return float(all_a + all_b - 2 * cross), left_a + all_b - 2 * cross_a, all_a + left_b - 2 * cross_b


def grouped(some: Weighted) -> Float64[Tensor, "n g"]:
    """Return the weight of each image in the column of its group."""
    groups = min(GROUPS, len(some.weights))
    member = torch.arange(len(some.weights)).remainder(groups)
    return torch.nn.functional.one_hot(member, groups).double() * some.weights[:, None]


def own_sums(
    some: Weighted, left_out: Bool[Tensor, "n n"] | None = None
) -> tuple[Float64[Tensor, "g g"], Float64[Tensor, "g g"]]:
    """Return the sums of the kernel between two groups of one set, and of the weights of these pairs.

    No image meets itself, and pairs that are left out do not count.
    """
    member = grouped(some)
    allowed = torch.ones(len(member), len(member), dtype=torch.float64)
    if left_out is not None:
        allowed[left_out] = 0
    allowed.fill_diagonal_(0)
    kernel = cubic(some.features.double(), some.features.double()) * allowed
    return member.T @ kernel @ member, member.T @ allowed @ member


def mean_without(sums: Float64[Tensor, "g g"], pairs: Float64[Tensor, "g g"]) -> tuple[Tensor, Float64[Tensor, " g"]]:
    """Return the mean of all pairs, and the mean without each group."""

    def without(matrix: Tensor) -> Tensor:
        return matrix.sum() - matrix.sum(0) - matrix.sum(1) + matrix.diagonal()

    return sums.sum() / pairs.sum(), without(sums) / without(pairs)


def repeat_cost(drawn: Features, first: Int64[Tensor, " n"]) -> Score:
    """Return how much KID rises since images of a set repeat each other.

    Args:
        drawn: The features of the images.
        first: For each drawn image, the first image of the set that it repeats. Pairs of images that repeat the same
            one have the kernel of an image with itself; without them the mean of the kernel is what different images
            have.
    """
    some, same = Weighted.even(drawn), first[:, None] == first[None]
    (value, left), (value_after, left_after) = mean_without(*own_sums(some)), mean_without(*own_sums(some, same))
    return symmetric(float(value - value_after), jackknife_variance(left - left_after))
