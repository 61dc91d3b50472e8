"""The difference of two KIDs against one reference, and whether the images needed to see it are there.

Two runs that draw from the same seeds, and are compared with the same real images, have much of their error in common.
It cancels in the difference. The difference of two U-statistics is a U-statistic too. Its variance has three parts: of
the differences between images of one seed, of the reference images, and of the second order (Hoeffding 1948, Annals of
Mathematical Statistics 19, 293; Bounliphone et al. 2016, arXiv:1511.04581).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.metrics import KernelMeans, kernel_means
from unnoise.evaluation.neighbours import Features
from unnoise.evaluation.scores import Score, student
from unnoise.evaluation.statistics import Statistics
from unnoise.tensors import read_tensors, save_tensors

SUFFIX = ".safetensors"  # beside the JSON of an evaluation
NO_KEYS = torch.empty(0, dtype=torch.int64)
PROBES = 8  # random signs for each image: the second order is then known to about 20 percent


class Contributions(NamedTuple):
    """Hold what each image and each reference image contributes to a KID, to the first order and to the second.

    KID is half of the sum of both means, and a part that follows from the reference alone.

    Attributes:
        images: Of each image, in the order of the seeds.
        reference: Of each reference image, in the order of the content keys.
        probes: The second order times random signs: the sum over the images of their mean square is its variance.
        keys: The content keys of the reference images.
    """

    images: Float64[Tensor, " n"]
    reference: Float64[Tensor, " m"]
    probes: Float64[Tensor, "n r"]
    keys: Int64[Tensor, " m"]


Pairs: TypeAlias = dict[str, Contributions]  # by the network of the feature extractor


def contributions(x: Features, y: Features, keys: Int64[Tensor, " m"] = NO_KEYS) -> Contributions:
    """Return the contributions of images x, in the order of their seeds, and of reference images y, with their keys.

    The second order of the variance is 2 E[g^2] / n^2 + 4 E[h^2] / (n m), where g and h are the doubly centred kernels
    among x and between x and y. The sums of squares come from products with random signs: Hutchinson 1990
    (Communications in Statistics 19, 433). They are the same signs for all runs, so differences of runs have them too.
    """
    n, m = len(x), len(y)
    of_x, of_y = signs("images", n), signs("reference", m)
    xx, xy = kernel_means(x, None, of_x), kernel_means(x, y, of_y)
    among = centred(xx, of_x) + of_x * (2 * xx.rows - xx.rows.mean())[:, None]  # the diagonal of the kernel is 0
    probes = math.sqrt(2) / n * among / n + 2 / m * centred(xy, of_y) / n
    return Contributions(2 * (xx.rows - xy.rows), -2 * xy.columns, probes, keys)


def centred(k: KernelMeans, probes: Float64[Tensor, "m r"]) -> Float64[Tensor, "n r"]:
    """Return the product of a kernel and probes after its row and column means are removed."""
    assert k.probed is not None
    mean, total = k.rows.mean(), probes.sum(0)
    return k.probed - torch.outer(k.rows - mean, total) - k.columns @ probes


def signs(name: str, n: int) -> Float64[Tensor, "n r"]:
    """Return n rows of random signs that are the same for every run, machine and version of a library."""
    bits = np.unpackbits(np.frombuffer(hashlib.shake_128(name.encode()).digest(n * PROBES // 8), np.uint8))
    return torch.from_numpy(2.0 * bits.reshape(n, PROBES) - 1)


class Difference(NamedTuple):
    """The difference of two KIDs, and the variances of the first order, from the images and from the reference."""

    score: Score
    of_images: float
    of_reference: float


def difference(a: Contributions, b: Contributions, pairs: int = 1, *, same_seeds: bool = True) -> Difference:
    """Return the KID of a less the KID of b, against the same reference.

    The variances of the contributions count the second order twice, so it is subtracted once. By chance nothing may be
    left, so the variance is at least a quarter of the second order.

    Args:
        a, b: The contributions to both KIDs.
        pairs: The intervals of this many differences hold together in 95 % (Bonferroni).
        same_seeds: Image i of a and image i of b have one seed. Otherwise the images are independent.
    """
    shared = a.reference - b.reference
    if same_seeds:
        of_images = variance_of_mean(a.images - b.images)
        second = square_of(a.probes - b.probes)
    else:
        of_images = variance_of_mean(a.images) + variance_of_mean(b.images)
        second = square_of(a.probes) + square_of(b.probes)
    of_reference = variance_of_mean(shared)
    value = float(a.images.mean() - b.images.mean() + shared.mean()) / 2
    error = math.sqrt(max(of_images + of_reference - second, second / 4))
    half = student(comparisons=pairs) * error
    return Difference(Score(value, error, (value - half, value + half)), of_images, of_reference)


def variance_of_mean(values: Float64[Tensor, " n"]) -> float:
    """Return the variance of the mean of values."""
    return float(values.var()) / len(values)


def square_of(probes: Float64[Tensor, "n r"]) -> float:
    """Return the variance of the second order from its products with random signs."""
    return float(probes.square().sum(0).mean())


# The images that are needed


class Needed(NamedTuple):
    """How many images tell two runs apart if their difference is as measured."""

    images: float  # infinite if there is no difference
    reference: int | None  # number of reference images that are needed too; None if there are enough


def images_needed(found: Difference, n: int, m: int, pairs: int = 1) -> Needed:
    """Return how many images are needed until the interval of a difference just leaves 0.

    More images make their own part of the variance smaller, and the part of the reference stays. If it is too large
    alone, more images of both kinds are needed, in the same proportion.

    Args:
        found: The difference of n images each, against m.
        n, m: The numbers of images.
        pairs: As for `difference`.
    """
    allowed = (found.score.value / student(comparisons=pairs)) ** 2
    if found.of_reference < allowed:
        return Needed(n * found.of_images / (allowed - found.of_reference), None)
    times = (found.of_images + found.of_reference) / allowed if allowed else math.inf
    return Needed(n * times, round(m * times) if times < math.inf else None)


# Files


def pairs_of(drawn: Sequence[Statistics], real: Sequence[Statistics], judges: Sequence[Extractor]) -> Pairs:
    """Return the contributions of drawn images by each feature extractor; none if some features are not kept."""
    return {
        judge.about["network"]: contributions(x, b.kept, b.keys)
        for a, b, judge in zip(drawn, real, judges, strict=True)
        if (x := a.in_order) is not None
    }


def keep_contributions(evaluation: Path, of: Mapping[str, Any], found: Pairs) -> None:
    """Write contributions beside the file of an evaluation.

    Args:
        evaluation: The file of the evaluation.
        of: What the evaluation says of the scored images; it has to be the same when the contributions are read.
        found: The contributions by the name of the feature extractor.
    """
    tensors = {
        f"{name}/{part}": values.float() if values.is_floating_point() else values
        for name, one in found.items()
        for part, values in one._asdict().items()
    }
    save_tensors(evaluation.with_suffix(SUFFIX), tensors, of)


def read_contributions(place: Path | None, of: Mapping[str, Any]) -> Pairs:
    """Return the contributions in a file; nothing if it is missing, damaged, or of other images than `of` says."""
    found: dict[str, dict[str, Tensor]] = {}
    with suppress(InputError, OSError, ValueError):
        text, tensors = read_tensors(place) if place else ("null", {})
        for key, values in tensors.items() if json.loads(text) == of else ():
            name, _, part = key.rpartition("/")
            found.setdefault(name, {})[part] = values.double() if values.is_floating_point() else values
    return {name: Contributions(**parts) for name, parts in found.items() if is_whole(parts)}


def is_whole(parts: Mapping[str, Tensor]) -> bool:
    """Return True if tensors have the names and shapes of contributions."""
    if parts.keys() != set(Contributions._fields):
        return False
    n, m = len(parts["images"]), len(parts["reference"])
    shapes = {"images": (n,), "reference": (m,), "probes": (n, PROBES), "keys": (m,)}
    return all(parts[name].shape == shape for name, shape in shapes.items())
