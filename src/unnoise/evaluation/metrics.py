"""Scores of one set of images against another, from the statistics of both; each score has a standard error."""

import math
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.evaluation.neighbours import Features, tiles
from unnoise.evaluation.scores import Score, growing, student, symmetric
from unnoise.evaluation.statistics import Moments, Statistics

ENOUGH = 3  # images for each feature, without which the spread of the Frechet distance is not known
ENOUGH_HALVED = 4  # where the distance of half of the images is needed
CENTRED = 3_000  # images whose kernel is centred for the floor of KID


# The Frechet distance


def frechet(a: Moments, b: Moments) -> float:
    """Return |m - m'|^2 + tr(C + C' - 2 (C C')^1/2): Heusel et al. 2017 (arXiv:1706.08500), eq. 6.

    The covariances are divided by n - 1.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()  # trace of (C C')^1/2
    return float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * mixed)


def fid(a: Statistics, b: Statistics, equal: Score | None = None) -> Score:
    """Return the Frechet distance over all images: Heusel et al. 2017 (arXiv:1706.08500), eq. 6.

    It is too large by about c / n, so compare only scores of equally many images. The interval is of its mean over all
    draws of n images. It is nan below ENOUGH images for each feature, where nothing is known of the spread. The
    jackknife counts the second order of the variance twice (Efron & Stein 1981), and it is the whole variance for equal
    sets.

    Args:
        a, b: The two sets.
        equal: What `fid_floor` returns for them, if it is known already.
    """
    of_a, of_b = Moments.of(a), Moments.of(b)
    value = frechet(of_a, of_b)
    if min(a.n, b.n) < ENOUGH * a.kept.shape[1]:
        return Score(value, math.nan, (math.nan, math.nan))
    variance = jackknife(lambda s: frechet(Moments.of(s), of_b), a)
    variance += jackknife(lambda s: frechet(of_a, Moments.of(s)), b)
    noise = (equal or fid_floor(a, b)).standard_error ** 2
    return symmetric(value, max(variance - noise, noise), len(a.count) + len(b.count) - 1)


def fid_floor(a: Statistics, b: Statistics) -> Score:
    """Return the fid of two sets of one distribution, of as many images as a and b; the interval holds one draw in it.

    The images of both sets are shuffled and divided anew, as in a permutation test; it holds for any number of images.
    """
    pooled = torch.cat([a.kept, b.kept]).double()
    n, whole = min(len(a.kept), len(b.kept)), (len(pooled), pooled.sum(0), pooled.T @ pooled)
    chance = torch.Generator().manual_seed(0)
    draws = torch.tensor([divided(pooled, n, whole, chance) for _ in a.count], dtype=torch.float64)
    draws *= (1 / a.n + 1 / b.n) / (1 / n + 1 / (len(pooled) - n))  # of more images than are kept
    again = math.sqrt(1 + 1 / len(draws))  # the mean of the draws is not known exactly either
    spread = again * student(len(draws)) * float(draws.std())
    middle = float(draws.mean())
    return Score(middle, float(draws.std()), (middle - spread, middle + spread))


def divided(pooled: Features, n: int, whole: tuple[int, Tensor, Tensor], chance: torch.Generator) -> float:
    """Return the Frechet distance of n rows, drawn by chance, and the other rows; `whole` are the sums of all rows."""
    part = pooled[torch.randperm(len(pooled), generator=chance)[:n]]
    count, total, outer = whole
    others = Moments.of_sums(count - n, total - part.sum(0), outer - part.T @ part)
    return frechet(Moments.of_features(part), others)


def fid_infinity(a: Statistics, b: Statistics) -> Score:
    """Extrapolate fid to infinitely many images on both sides: Chong & Forsyth 2020 (arXiv:1911.07023), section 3.

    The excess c / n is twice as large for half of the images. So its growth from the whole to the halves is subtracted.
    """
    if min(a.n, b.n) < ENOUGH_HALVED * a.kept.shape[1]:
        return Score(math.nan, math.nan, (math.nan, math.nan))

    def extrapolated(a: Statistics, b: Statistics) -> float:
        halves_a, halves_b = halves(a), halves(b)
        if min(half.n for half in (*halves_a, *halves_b)) < 2:  # all images are the same
            return math.nan
        whole_a, whole_b = Moments.of(a), Moments.of(b)
        in_half_a = sum(frechet(Moments.of(half), whole_b) for half in halves_a) / 4
        in_half_b = sum(frechet(whole_a, Moments.of(half)) for half in halves_b) / 4
        return 3 * frechet(whole_a, whole_b) - in_half_a - in_half_b

    variance = jackknife(lambda s: extrapolated(s, b), a) + jackknife(lambda s: extrapolated(a, s), b)
    return symmetric(extrapolated(a, b), variance, len(a.count))


def halves(s: Statistics) -> list[Statistics]:
    """Divide the groups into halves in two ways, every second one and by order; return all four halves."""
    g = torch.arange(len(s.count))
    first = (g % 2 == 0, g < len(g) // 2)
    return [s.part(chosen) for chosen in (*first, *(~chosen for chosen in first))]


def jackknife(value: Callable[[Statistics], float], s: Statistics) -> float:
    """Return the variance of a smooth function of the sums, by leaving out one group at a time.

    The groups may have different sizes: Busing et al. 1999 (Statistics and Computing 9, 3-8), eq. 8. It is nan for
    fewer than two groups.
    """
    groups = s.count.nonzero().flatten()
    every = torch.arange(len(s.count))
    if len(groups) < 2:
        return math.nan
    times = s.n / s.count[groups]  # the whole is that much larger than a group
    left = torch.tensor([value(s.part(every != g)) for g in groups.tolist()], dtype=torch.float64)
    pseudo = times * value(s) - (times - 1) * left
    middle = len(groups) * value(s) - ((1 - 1 / times) * left).sum()
    return float(((pseudo - middle).square() / (times - 1)).mean())


# The kernel distance


class KernelMeans(NamedTuple):
    """The mean of each row and each column of a kernel matrix, the mean of all squares, and its product with probes."""

    rows: Float64[Tensor, " n"]
    columns: Float64[Tensor, " m"]
    square: float
    probed: Float64[Tensor, "n r"] | None = None


def cubic(x: Features, y: Features) -> Float64[Tensor, "n m"]:
    """Return k(x, y) = (x y / d + 1)^3 for each pair of rows: Binkowski et al. 2018 (arXiv:1801.01401), section 4."""
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)


def kernel_means(x: Features, y: Features | None = None, probes: Float64[Tensor, "m r"] | None = None) -> KernelMeans:
    """Return the means of k(x, y) = (x y / d + 1)^3 over all pairs; without y, over all pairs of two different x."""
    others = x if y is None else y
    rows, columns, square = (torch.zeros(n, dtype=torch.float64) for n in (len(x), len(others), 1))
    probed = None if probes is None else torch.zeros(len(x), probes.shape[1], dtype=torch.float64)
    for some, those in tiles(len(x), len(others)):
        part = cubic(x[some].double(), others[those].double())
        if y is None and some == those:
            part.fill_diagonal_(0)
        rows[some] += part.sum(1)
        columns[those] += part.sum(0)
        square += part.flatten().dot(part.flatten())
        if probed is not None and probes is not None:
            probed[some] += part @ probes[those]
    each = len(others) - (y is None)
    return KernelMeans(rows / each, columns / (len(x) - (y is None)), float(square) / (len(x) * each), probed)


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
    return growing(float(value), second, float(first) - 2 * second)


def kid_floor(a: Statistics, b: Statistics) -> Score:
    """Return the kid of two sets of one distribution: 0 on average; the interval holds one draw in it.

    For equal distributions only the second order of the variance is left: 2 E[h^2] (1 / n + 1 / m)^2, where h is the
    doubly centred kernel.
    """
    square = 2 * remainder(kernel_means(b.kept[:CENTRED]))
    return symmetric(0.0, square * (1 / len(a.kept) + 1 / len(b.kept)) ** 2)


def remainder(k: KernelMeans) -> float:
    """Return the mean square of a kernel after its row and column means are removed."""
    mean = float(k.rows.mean())
    explained = float(k.rows.square().mean() + k.columns.square().mean()) - mean**2
    return max(k.square - explained, 0.0)


# Scores of one set alone, and colours


def inception_score(s: Statistics) -> Score:
    """Return exp of the mean KL(p(y|x) || p(y)), not split: Salimans et al. 2016 (arXiv:1606.03498), section 4."""

    def value(s: Statistics) -> float:
        overall = s.believed.sum(0) / s.n
        return math.exp(float(s.certainty.sum() / s.n + torch.special.entr(overall).sum()))

    s = s.without_features
    return symmetric(value(s), jackknife(value, s), len(s.count))


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
        variance = jackknife(lambda t: float(value(t)[kind, channel]), s)
        return symmetric(float(value(s)[kind, channel]), variance, len(s.count))

    s, channels = s.without_features, s.colour.shape[2]
    made = [score(kind, channel) for kind, channel in product(range(3), range(channels))]
    return Colour(*(made[kind * channels : (kind + 1) * channels] for kind in range(3)))
