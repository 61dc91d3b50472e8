"""Scores of one set of images against another, from the statistics of both; each score has a standard error."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unnoise.evaluation.statistics import GROUPS, Moments, Statistics

Features = Float[Tensor, "_ d"]  # [n, d], a row for each image
CENTRED = 3_000  # images whose kernel is centred for the floor of KID
SIDE = 500  # rows and columns of a matrix of all pairs that are in memory at a time


class Score(NamedTuple):
    """A value with its standard error; `float(score)` is the value."""

    value: float
    standard_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """Return the interval of 95 %: 1.96 standard errors to each side."""
        return self.value - 1.96 * self.standard_error, self.value + 1.96 * self.standard_error

    def __float__(self) -> float:
        return self.value


# The Frechet distance


def frechet(a: Moments, b: Moments) -> float:
    """Return |m - m'|^2 + tr(C + C' - 2 (C C')^1/2): Heusel et al. 2017 (arXiv:1706.08500), eq. 6.

    The covariances are divided by n - 1.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()  # trace of (C C')^1/2
    return float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * mixed)


def fid(a: Statistics, b: Statistics) -> Score:
    """Return the Frechet distance over all images: Heusel et al. 2017 (arXiv:1706.08500), eq. 6.

    It is too large by about c / n, so compare only scores of equally many images.
    """
    of_b, of_a = Moments.of(b), Moments.of(a)
    variance = jackknife(lambda s: frechet(Moments.of(s), of_b), a) + jackknife(
        lambda s: frechet(of_a, Moments.of(s)), b
    )
    return Score(frechet(of_a, of_b), math.sqrt(variance))


def fid_infinity(a: Statistics, b: Statistics) -> Score:
    """Extrapolate fid to infinitely many images on both sides: Chong & Forsyth 2020 (arXiv:1911.07023), section 3.

    The excess c / n is twice as large for half of the images. So its growth from the whole to the halves is subtracted.
    """

    def extrapolated(a: Statistics, b: Statistics) -> float:
        halves_a, halves_b = halves(a), halves(b)
        if min(half.n for half in (*halves_a, *halves_b)) < 2:  # all images are the same
            return math.nan
        whole_a, whole_b = Moments.of(a), Moments.of(b)
        in_half_a = sum(frechet(Moments.of(half), whole_b) for half in halves_a) / 4
        in_half_b = sum(frechet(whole_a, Moments.of(half)) for half in halves_b) / 4
        return 3 * frechet(whole_a, whole_b) - in_half_a - in_half_b

    variance = jackknife(lambda s: extrapolated(s, b), a) + jackknife(lambda s: extrapolated(a, s), b)
    return Score(extrapolated(a, b), math.sqrt(variance))


def fid_floor(real: Statistics, n: int) -> Score:
    """Return the fid of n images of the data against the rest of the data, and its standard error.

    The parts may be smaller (see `chunks`). The floor is proportional to 1 / n + 1 / rest, and is scaled accordingly.
    """
    parts = chunks(real, n)
    size, rest = len(parts[0]), real.n - len(parts[0])
    scale = (1 / n + 1 / real.n) / (1 / size + 1 / rest)
    values = []
    for part in parts:
        x = part.double()
        others = Moments.of_sums(rest, real.total.sum(0) - x.sum(0), real.outer.sum(0) - x.T @ x)
        values.append(frechet(Moments.of_features(part), others))
    whole, first = Moments.of(real), Moments.of_features(parts[0])
    ends = pairwise(range(0, size + 1, max(1, size // GROUPS)))
    fewer = (torch.cat([parts[0][:a], parts[0][b:]]) for a, b in ends)
    variance = jackknife_variance([frechet(Moments.of_features(most), whole) for most in fewer])
    variance += jackknife(lambda s: frechet(first, Moments.of(s)), real)
    return Score(scale * sum(values) / len(values), scale * math.sqrt(variance))


def chunks(real: Statistics, n: int) -> list[Features]:
    """Split the kept features, whose order is random, into parts of n, or into two smaller parts if n is too large."""
    size = min(n, len(real.kept) // 2)
    return [part for part in torch.split(real.kept, size) if len(part) == size]


def halves(s: Statistics) -> list[Statistics]:
    """Divide the groups into halves in two ways, every second one and by order; return all four halves."""
    g = torch.arange(len(s.count))
    first = (g % 2 == 0, g < len(g) // 2)
    return [s.part(chosen) for chosen in (*first, *(~chosen for chosen in first))]


def jackknife(value: Callable[[Statistics], float], s: Statistics) -> float:
    """Return the variance of a smooth function of the sums, by leaving out one group at a time."""
    groups = s.count.nonzero().flatten().tolist()
    every = torch.arange(len(s.count))
    if len(groups) < 2:
        return math.nan
    return jackknife_variance([value(s.part(every != g)) for g in groups])


def jackknife_variance(values: Sequence[float]) -> float:
    """Return the jackknife variance from the values without one group at a time."""
    left = torch.tensor(values, dtype=torch.float64)
    return float((len(left) - 1) / len(left) * (left - left.mean()).square().sum())


# The kernel distance


class KernelMeans(NamedTuple):
    """The mean of each row and each column of a kernel matrix, and the mean of all squares."""

    rows: Float64[Tensor, " n"]
    columns: Float64[Tensor, " m"]
    square: float


def kernel_means(x: Features, y: Features | None = None) -> KernelMeans:
    """Return the means of k(x, y) = (x y / d + 1)^3 over all pairs; without y, over all pairs of two different x."""
    others = x if y is None else y
    rows, columns, square = (torch.zeros(n, dtype=torch.float64) for n in (len(x), len(others), 1))
    for some, those in tiles(len(x), len(others)):
        part = (x[some].double() @ others[those].double().T).div_(x.shape[1]).add_(1).pow_(3)
        if y is None and some == those:
            part.fill_diagonal_(0)
        rows[some] += part.sum(1)
        columns[those] += part.sum(0)
        square += part.flatten().dot(part.flatten())
    each = len(others) - (y is None)
    return KernelMeans(rows / each, columns / (len(x) - (y is None)), float(square) / (len(x) * each))


def kid(x: Features, y: Features) -> Score:
    """Return the unbiased squared MMD with a cubic kernel: Binkowski et al. 2018 (arXiv:1801.01401), section 4.

    It is 0 on average for equal distributions. Its variance is the variance of a U-statistic: the first order comes
    from the means of the rows, less the second order that they count twice.
    """
    n, m = len(x), len(y)
    xx, yy, xy = kernel_means(x), kernel_means(y), kernel_means(x, y)
    value = xx.rows.mean() + yy.rows.mean() - 2 * xy.rows.mean()
    first = 4 * (xx.rows - xy.rows).var() / n + 4 * (yy.rows - xy.columns).var() / m
    second = 2 * remainder(xx) / n**2 + 2 * remainder(yy) / m**2 + 4 * remainder(xy) / (n * m)
    return Score(float(value), math.sqrt(max(float(first) - second, second)))


def kid_floor(real: Statistics, n: int) -> Score:
    """Return the kid of n images of the data against the data: 0 on average, and its standard error.

    For equal distributions only the second order of the variance is left: 2 E[h^2] (1 / n + 1 / m)^2, where h is the
    doubly centred kernel.
    """
    spread = math.sqrt(2 * remainder(kernel_means(real.kept[:CENTRED])))
    return Score(0.0, spread * (1 / n + 1 / len(real.kept)))


def remainder(k: KernelMeans) -> float:
    """Return the mean square of a kernel after its row and column means are removed."""
    mean = float(k.rows.mean())
    explained = float(k.rows.square().mean() + k.columns.square().mean()) - mean**2
    return max(k.square - explained, 0.0)


def tiles(n: int, m: int) -> Iterator[tuple[slice, slice]]:
    """Yield the parts of a matrix of n rows and m columns, so that memory grows with neither."""
    return product(*([slice(start, start + SIDE) for start in range(0, size, SIDE)] for size in (n, m)))


# Precision, recall, density and coverage


def radii(x: Features, k: int) -> Float64[Tensor, " n"]:
    """Return the distance of each row to its k-th nearest neighbour among the other rows."""
    nearest = torch.full((len(x), k + 1), math.inf, dtype=torch.float64)
    for some, those in tiles(len(x), len(x)):
        found = torch.cat([nearest[some], torch.cdist(x[some].double(), x[those].double())], dim=1)
        nearest[some] = found.topk(k + 1, largest=False).values
    return nearest.amax(1)


def inside(
    x: Features, y: Features, radius: Float64[Tensor, " m"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " m"]]:
    """Return how many balls around y contain each x, and how many x each ball contains."""
    of_x, of_y = (torch.zeros(n, dtype=torch.float64) for n in (len(x), len(y)))
    for some, those in tiles(len(x), len(y)):
        held = torch.cdist(x[some].double(), y[those].double()) <= radius[those]
        of_x[some] += held.sum(1)
        of_y[those] += held.sum(0)
    return of_x, of_y


def precision_recall(x: Features, y: Features, k: int = 3) -> tuple[Score, Score]:
    """Return precision and recall: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eq. 1.

    Each is the share of one set that lies within the k-th neighbours of the other set.
    """
    return share(inside(x, y, radii(y, k))[0]), share(inside(y, x, radii(x, k))[0])


def density_coverage(x: Features, y: Features, k: int = 5) -> tuple[Score, Score]:
    """Return density and coverage: Naeem et al. 2020 (arXiv:2002.09797), eq. 4 and 5.

    Density counts the balls of the data y that contain an image x, divided by k. Coverage is the share of balls that
    contain at least one x.
    """
    held, met = inside(x, y, radii(y, k))
    return mean(held / k), share(met)


def share(counts: Float64[Tensor, " n"]) -> Score:
    """Return the share of counts above 0, and its standard error."""
    return mean((counts > 0).double())


def mean(values: Float64[Tensor, " n"]) -> Score:
    """Return the mean of the values, and its standard error."""
    return Score(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


# Scores of one set alone, and colours


def inception_score(s: Statistics) -> Score:
    """Return exp of the mean KL(p(y|x) || p(y)), not split: Salimans et al. 2016 (arXiv:1606.03498), section 4."""

    def value(s: Statistics) -> float:
        overall = s.believed.sum(0) / s.n
        return math.exp(float(s.certainty.sum() / s.n + torch.special.entr(overall).sum()))

    return Score(value(s), math.sqrt(jackknife(value, s)))


class Colour(NamedTuple):
    """The mean and standard deviation of each channel in [-1, 1], and the share of values at -1 or 1."""

    mean: list[Score]
    std: list[Score]
    saturation: list[Score]


def colour(s: Statistics) -> Colour:
    """Return the colours of a set: they show a tint, washed-out colours and saturation, which are common faults."""

    def value(s: Statistics) -> Float64[Tensor, "3 c"]:
        first, second, ends = s.colour.sum(0) / s.n
        return torch.stack([first, (second - first.square()).clamp(min=0).sqrt(), ends])

    def score(kind: int, channel: int) -> Score:
        return Score(float(value(s)[kind, channel]), math.sqrt(jackknife(lambda t: float(value(t)[kind, channel]), s)))

    channels = s.colour.shape[2]
    made = [score(kind, channel) for kind, channel in product(range(3), range(channels))]
    return Colour(*(made[kind * channels : (kind + 1) * channels] for kind in range(3)))
