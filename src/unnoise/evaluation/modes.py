"""Missing and repeated images: the shares of classes or clusters, and images that a set holds more than once."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from unnoise.evaluation.near_copies import small_pixels
from unnoise.images import Uint8Set

CLUSTERS = 12  # of real images without classes
ROUNDS = 20  # of k-means
MOST_CLASSES = 50  # with more, a class has too few images to be measured, and clusters take their place
SHRINK = 0.3  # part of the way from the covariance of the classifier to a multiple of the unit matrix
UPDATES = 200  # of the shares of groups
NO_ERROR = 1e-9  # a standard error below this is none
NEAR_REPEAT = 0.5  # two images that are this much nearer than the nearest real ones are one image
ROUNDING = 1e-3  # distance of two images that is nothing
MOST_WEIGHT = 10.0  # no real image counts more often than this

Features = Float[Tensor, "_ d"]
Pair = tuple[Float[Tensor, "n p"], Float[Tensor, "m p"]]  # of drawn and of real images


class Groups(NamedTuple):
    """How far each image belongs to each group: classes, or clusters.

    Attributes:
        drawn, real: The probability of each group for each image: [n, g] and [m, g].
        known: The group of each real image, [m].
        names: The names of the groups.
    """

    drawn: Float64[Tensor, "n g"]
    real: Float64[Tensor, "m g"]
    known: Int64[Tensor, " m"]
    names: list[str]

    def errors(self, weights: Float64[Tensor, " m"]) -> Float64[Tensor, " g"]:
        """Return by how many standard errors each group has another share of the drawn than of the real images."""
        share = weights / weights.sum()
        mean = share @ self.real
        variance = share.square() @ (self.real - mean).square()
        variance += self.drawn.var(dim=0) / len(self.drawn)
        return (self.drawn.mean(dim=0) - mean) / variance.sqrt().clamp(min=NO_ERROR)

    def shares(self, weights: Float64[Tensor, " m"]) -> tuple[Float64[Tensor, " g"], Float64[Tensor, " g"]]:
        """Return the share of each group in the drawn and in the real images.

        The groups of the drawn images are only judged. The real images, whose groups are known, show which errors a
        judgement has. So the shares are found that explain the judgements: the maximum of the likelihood by EM, as
        Saerens et al. 2002 (doi:10.1162/089976602753284446) estimate shares, here from mean probabilities.
        """
        member = torch.nn.functional.one_hot(self.known, len(self.names)).double()
        theirs = weights @ member / weights.sum()
        confused = member.T @ self.real / member.sum(0).clamp(min=1)[:, None]  # judged group by true group
        told, ours = self.drawn.mean(dim=0), theirs.clamp(min=1e-6)
        for _ in range(UPDATES):
            ours = ours * (confused @ (told / (ours @ confused).clamp(min=1e-12)))
        return ours / ours.sum(), theirs


def find_groups(
    drawn: Features, real: Features, labels: Int64[Tensor, " m"] | None, names: Sequence[str], small: Pair
) -> list[Groups]:
    """Return groups of images: the classes of the real images if there are, else clusters.

    The classes of drawn images are judged from features. The real images are judged in two halves, each by the other
    half, so that the errors are the same on both sides. Clusters are of features, and of thumbnails of both sets.
    """
    if labels is None or not 2 <= len(names) <= MOST_CLASSES or (labels < 0).any():
        return [clustered(drawn, real, "cluster"), clustered(*small, "thumbnail cluster")]
    half = torch.arange(len(real)).remainder(2) == 0
    of_real = torch.empty(len(real), len(names), dtype=torch.float64)
    of_drawn = torch.zeros(len(drawn), len(names), dtype=torch.float64)
    for mine in (half, ~half):
        judge = classifier(real[~mine].double(), labels[~mine], len(names))
        of_real[mine] = judge(real[mine].double())
        of_drawn += judge(drawn.double()) / 2
    return [Groups(of_drawn, of_real, labels, list(names))]


def clustered(drawn: Features, real: Features, name: str) -> Groups:
    """Return the clusters of the real images, and the nearest cluster of each drawn image."""
    centres = cluster(real.double(), CLUSTERS)
    known, count = nearest(real, centres), len(centres)
    ours, theirs = (torch.nn.functional.one_hot(found, count).double() for found in (nearest(drawn, centres), known))
    return Groups(ours, theirs, known, [f"{name} {i}" for i in range(count)])


def classifier(x: Float64[Tensor, "m d"], labels: Int64[Tensor, " m"], count: int) -> Callable[[Tensor], Tensor]:
    """Return a function from features to the probability of each class, [n, k]: linear discriminant analysis.

    The covariance within the classes is moved a part of the way to a multiple of the unit matrix, since there may be
    fewer images than features.
    """
    member = torch.nn.functional.one_hot(labels, count).double()
    size = member.sum(0)
    means = member.T @ x / size.clamp(min=1)[:, None]
    apart = x - means[labels]
    covariance = apart.T @ apart / len(x)
    scale = covariance.diagonal().mean().clamp(min=NO_ERROR)
    covariance = (1 - SHRINK) * covariance + SHRINK * scale * torch.eye(len(covariance), dtype=torch.float64)
    weights = torch.linalg.solve(covariance, means.T)
    offset = (size.clamp(min=0.5) / len(x)).log() - (means.T * weights).sum(0) / 2
    return lambda y: torch.softmax(y @ weights + offset, dim=1)


def cluster(x: Float64[Tensor, "m d"], count: int) -> Float64[Tensor, "k d"]:
    """Return the centres of k-means; they start as Arthur & Vassilvitskii 2007 choose them, always with one seed."""
    chance = torch.Generator().manual_seed(0)
    chosen = [int(torch.randint(len(x), (1,), generator=chance))]
    for _ in range(min(count, len(x)) - 1):
        far = torch.cdist(x, x[chosen]).min(dim=1).values.square()
        if not far.sum() > 0:
            break
        chosen.append(int(torch.multinomial(far, 1, generator=chance)))
    centres = x[chosen]
    for _ in range(ROUNDS):
        member = torch.nn.functional.one_hot(nearest(x, centres), len(centres)).double()
        count_of = member.sum(0)[:, None]
        centres = torch.where(count_of > 0, member.T @ x / count_of.clamp(min=1), centres)
    return centres


def nearest(x: Features, centres: Float64[Tensor, "k d"]) -> Int64[Tensor, " n"]:
    """Return the number of the nearest centre of each row."""
    return torch.cdist(x.double(), centres).argmin(dim=1)


def reweighted(groups: Groups, weights: Float64[Tensor, " m"]) -> Float64[Tensor, " m"]:
    """Return how often each real image counts, if its group is to have the share that the drawn images give it."""
    ours, theirs = groups.shares(weights)
    return weights * (ours / theirs.clamp(min=1e-12)).clamp(max=MOST_WEIGHT)[groups.known]


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
    return torch.cdist(x.double(), x.double(), compute_mode="use_mm_for_euclid_dist")  # exact enough in 64 bits


def first_near(apart: Float[Tensor, "n n"], limit: float) -> Int64[Tensor, " n"]:
    """Return the number of the first image that is nearer than a limit: often the image itself."""
    return (apart < limit).fill_diagonal_(True).int().argmax(dim=1)
