"""Precision, recall, density and coverage: shares of images among the nearest neighbours of another set.

The balls around the images of a set follow from the whole set, so its images do not count one by one. Both sets are
divided into groups, and each group is left out once.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from unnoise.evaluation.scores import Score, group_variance, growing, share_score
from unnoise.evaluation.statistics import GROUPS

Features = Float[Tensor, "_ d"]  # [n, d], a row for each image
SIDE = 500  # rows and columns of a matrix of all pairs that are in memory at a time
MORE = 8  # times as many neighbours are found as are needed: those in one group are left out


class Met(NamedTuple):
    """How many balls contain an image, and how many images a ball contains.

    Attributes:
        balls: The balls around y that contain each x: of all y in row 0, and without group g of y in row 1 + g.
        images: The images x in each ball: with the radii of all y in row 0, and without group g in row 1 + g.
        images_by_group: The images x of group g in each ball.
    """

    balls: Float64[Tensor, "r n"]
    images: Float64[Tensor, "r m"]
    images_by_group: Float64[Tensor, "g m"]


def precision_recall(x: Features, y: Features, k: int = 3) -> tuple[Score, Score]:
    """Return precision and recall: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eq. 1.

    Each is the share of one set that lies within the k-th neighbours of the other set.
    """
    return inside(meet(x, y, k)), inside(meet(y, x, k))


def inside(met: Met) -> Score:
    """Return the share of images that any ball contains."""
    held = (met.balls > 0).double()
    share, n = float(held[0].mean()), held.shape[1]
    return share_score(share, n, share * (1 - share) / n + group_variance(held[0] - held[1:]))


def density_coverage(x: Features, y: Features, k: int = 5) -> tuple[Score, Score]:
    """Return density and coverage: Naeem et al. 2020 (arXiv:2002.09797), eq. 4 and 5.

    Density counts the balls of the data y that contain an image x, divided by k. Coverage is the share of balls that
    contain at least one x.
    """
    met = meet(x, y, k)
    held, full = met.balls / k, (met.images > 0).double()
    variance = float(held[0].var()) / len(x) + group_variance(held[0] - held[1:])
    density = growing(float(held[0].mean()), 0.0, variance)
    share = float(full[0].mean())
    without = (met.images[0] - met.images_by_group > 0).double()
    variance = share * (1 - share) / len(y) + group_variance(full[0] - full[1:]) + group_variance(full[0] - without)
    return density, share_score(share, len(y), variance)


def meet(x: Features, y: Features, k: int) -> Met:
    """Find which balls around y contain which x; a ball reaches to the k-th nearest neighbour among the other y."""
    radius, of_x, of_y = radii(y, k), groups_of(x), groups_of(y)
    balls, images = (torch.zeros(1 + GROUPS, n, dtype=torch.float64) for n in (len(x), len(y)))
    by_group = torch.zeros(GROUPS, len(y), dtype=torch.float64)
    for some, those in tiles(len(x), len(y)):
        apart = torch.cdist(x[some].double(), y[those].double())
        for row in range(1 + GROUPS):
            held = apart <= radius[row, those]
            images[row, those] += held.sum(0)
            balls[row, some] += (held & (of_y[those] != row - 1)).sum(1)
            if row == 0:
                by_group[:, those] += torch.zeros(GROUPS, held.shape[1], dtype=torch.float64).index_add_(
                    0, of_x[some], held.double()
                )
    return Met(balls, images, by_group)


def radii(y: Features, k: int) -> Float64[Tensor, "r m"]:
    """Return the distance of each y to its k-th nearest neighbour: of all y, then without each group in turn."""
    distances, nearest = neighbours(y, min(MORE * k, len(y) - 1))
    of_y = groups_of(y)[nearest]

    def radius(left_out: Bool[Tensor, "m _"]) -> Float64[Tensor, " m"]:
        others = distances.masked_fill(left_out, math.inf).sort(1).values[:, k - 1]
        return torch.where(others.isinf(), distances[:, -1], others)

    return torch.stack([distances[:, k - 1], *(radius(of_y == g) for g in range(GROUPS))])


def neighbours(y: Features, count: int) -> tuple[Float64[Tensor, "m count"], Int64[Tensor, "m count"]]:
    """Return the distances of each row to its nearest other rows, ascending, and the numbers of these rows."""
    best, numbers = (
        torch.full((len(y), count), math.inf, dtype=torch.float64),
        torch.zeros(len(y), count, dtype=torch.int64),
    )
    for some, those in tiles(len(y), len(y)):
        apart = torch.cdist(y[some].double(), y[those].double())
        if some == those:
            apart.fill_diagonal_(math.inf)
        columns = torch.arange(those.start, those.start + apart.shape[1]).expand(len(apart), -1)
        best[some], at = torch.cat([best[some], apart], dim=1).topk(count, largest=False)
        numbers[some] = torch.cat([numbers[some], columns], dim=1).gather(1, at)
    return best, numbers


def groups_of(x: Features) -> Int64[Tensor, " n"]:
    """Return the group of each row; the order of the rows is random."""
    return torch.arange(len(x)) % GROUPS


def tiles(n: int, m: int) -> Iterator[tuple[slice, slice]]:
    """Yield the parts of a matrix of n rows and m columns, so that memory grows with neither."""
    return product(*([slice(start, start + SIDE) for start in range(0, size, SIDE)] for size in (n, m)))
