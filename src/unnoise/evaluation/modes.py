"""Missing and repeated images: the shares of classes or clusters, and images that a set holds more than once."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from unnoise.evaluation.near_copies import small_pixels
from unnoise.images import Uint8Set

CLUSTERS = 12  # of real images without classes
ROUNDS = 20  # of k-means
MOST_CLASSES = 50  # with more, a class has too few images to be measured, and clusters take their place
RIDGE = 1.0  # penalty of the classifier, times the mean square of a feature
NEAR_REPEAT = 0.5  # two images that are this much nearer than the nearest real ones are one image
ROUNDING = 1e-3  # distance of two images that is nothing
MOST_WEIGHT = 10.0  # no real image counts more often than this

Features = Float[Tensor, "_ d"]


class Groups(NamedTuple):
    """The group of each drawn and of each real image, and the names of the groups."""

    drawn: Int64[Tensor, " n"]
    real: Int64[Tensor, " m"]
    names: list[str]

    def shares(self) -> tuple[Float64[Tensor, " g"], Float64[Tensor, " g"]]:
        """Return the share of each group in the drawn and in the real images."""
        return shares_of(self.drawn, len(self.names)), shares_of(self.real, len(self.names))


def shares_of(groups: Int64[Tensor, " n"], count: int) -> Float64[Tensor, " g"]:
    """Return the share of each group."""
    return torch.bincount(groups, minlength=count).double() / len(groups)


def find_groups(drawn: Features, real: Features, labels: Int64[Tensor, " m"] | None, names: Sequence[str]) -> Groups:
    """Return the groups of images: the classes of the real images if there are, else clusters of their features.

    A linear classifier of the features finds the classes of drawn images. It judges the real images in two halves,
    each by the other half, so that its errors are the same on both sides.
    """
    if labels is None or not 2 <= len(names) <= MOST_CLASSES or (labels < 0).any():
        centres = cluster(real.double(), CLUSTERS)
        return Groups(nearest(drawn, centres), nearest(real, centres), [f"cluster {i}" for i in range(len(centres))])
    half = torch.arange(len(real)).remainder(2) == 0
    found = torch.empty(len(real), dtype=torch.int64)
    of_drawn = torch.zeros(len(drawn), len(names), dtype=torch.float64)
    for mine in (half, ~half):
        weights = classifier(real[~mine], labels[~mine], len(names))
        found[mine] = judged(real[mine], weights).argmax(dim=1)
        of_drawn += judged(drawn, weights)
    return Groups(of_drawn.argmax(dim=1), found, list(names))


def classifier(features: Features, labels: Int64[Tensor, " m"], count: int) -> Float64[Tensor, "_ k"]:
    """Return the weights of a linear classifier by ridge regression on the classes."""
    x = with_one(features)
    penalty = RIDGE * x.square().mean() * torch.eye(x.shape[1], dtype=torch.float64)
    weights: Tensor = torch.linalg.solve(x.T @ x + penalty, x.T @ torch.nn.functional.one_hot(labels, count).double())
    return weights


def judged(features: Features, weights: Float64[Tensor, "_ k"]) -> Float64[Tensor, "n k"]:
    """Return the score of each class for each image."""
    scores: Tensor = with_one(features) @ weights
    return scores


def with_one(features: Features) -> Float64[Tensor, "n _"]:
    """Return the features with a column of ones."""
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)


def cluster(x: Float64[Tensor, "m d"], count: int) -> Float64[Tensor, "k d"]:
    """Return the centres of k-means; they start far from each other (Gonzalez 1985), so chance plays no part."""
    chosen = [int((x - x.mean(0)).square().sum(1).argmin())]
    for _ in range(min(count, len(x)) - 1):
        chosen.append(int(torch.cdist(x, x[chosen]).min(dim=1).values.argmax()))
    centres = x[chosen]
    for _ in range(ROUNDS):
        member = torch.nn.functional.one_hot(nearest(x, centres), len(centres)).double()
        count_of = member.sum(0)[:, None]
        centres = torch.where(count_of > 0, member.T @ x / count_of.clamp(min=1), centres)
    return centres


def nearest(x: Features, centres: Float64[Tensor, "k d"]) -> Int64[Tensor, " n"]:
    """Return the number of the nearest centre of each row."""
    return torch.cdist(x.double(), centres).argmin(dim=1)


def reweighted(groups: Groups) -> Float64[Tensor, " m"]:
    """Return how often each real image counts, if its group is to have the share that the drawn images give it."""
    ours, theirs = groups.shares()
    return (ours / theirs.clamp(min=1e-12)).clamp(max=MOST_WEIGHT)[groups.real]


# Repeated images


def repeats(drawn: Uint8Set, real: Uint8Set) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " m"]]:
    """Return for each image of both sets the first image of its set that shows nearly the same pixels.

    The limit follows from the real images: half of the distance that one real image of a hundred has to its nearest.
    """
    ours, theirs = small_pixels(drawn), small_pixels(real)
    apart = distances(theirs)
    nearest = apart.clone().fill_diagonal_(math.inf).min(dim=1).values
    limit = max(NEAR_REPEAT * float(nearest.quantile(0.01)), ROUNDING)
    return first_near(distances(ours), limit), first_near(apart, limit)


def distances(x: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return the distances of all pairs."""
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def first_near(apart: Float[Tensor, "n n"], limit: float) -> Int64[Tensor, " n"]:
    """Return the number of the first image that is nearer than a limit: often the image itself."""
    return (apart < limit).fill_diagonal_(True).int().argmax(dim=1)
