"""Statistics of a set of images, of fixed size: sums over all images, and the features of some of them."""

from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from unnoise.types import Pixels

MAX_KEPT = 10_000  # images whose features are kept
GROUPS = 20  # the sums are kept by group; intervals come from leaving out one group at a time
OF_IMAGES = ("kept", "keys", "order")  # rows for the kept images; everything else is a sum
MAX_BYTES = 2 * 10**8  # of all sums: wide features have fewer groups, but at least 8


def content_keys(pixels: Pixels) -> Int64[Tensor, " b"]:
    """Return a number for each image that follows from its pixels alone.

    The keys decide which features are kept and which group an image belongs to, so order and batches change nothing.
    """
    rows = pixels.cpu().numpy()
    return torch.tensor(
        [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "little", signed=True) for row in rows]
    )


@dataclass
class Statistics:
    """Hold sums in groups g, float64: features [n, d], class probabilities [n, k], pixels [n, c, h, w]."""

    count: Float64[Tensor, " g"]
    total: Float64[Tensor, "g d"]  # sum of the features
    outer: Float64[Tensor, "g d d"]  # sum of their outer products
    believed: Float64[Tensor, "g k"]  # sum of the class probabilities
    certainty: Float64[Tensor, " g"]  # sum of sum(p log p)
    colour: Float64[Tensor, "g 3 c"]  # sums of pixels in [-1, 1], of their squares, and of the share at -1 or 1
    kept: Float[Tensor, "m d"]  # features of the images with the smallest keys
    keys: Int64[Tensor, " m"]
    order: Int64[Tensor, " _"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # places in the set

    @classmethod
    def empty(cls, features: int, classes: int, channels: int) -> "Statistics":
        """Return the statistics of no images."""
        groups = max(8, min(GROUPS, MAX_BYTES // (8 * features**2)))

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64)

        sums = zeros(), zeros(features), zeros(features, features), zeros(classes), zeros(), zeros(3, channels)
        return cls(*sums, torch.empty(0, features), torch.empty(0, dtype=torch.int64))

    @property
    def n(self) -> int:
        """Return the number of images."""
        return int(self.count.sum())

    @property
    def in_order(self) -> Float[Tensor, "n d"] | None:
        """Return the features of all images in the order of the set; None if some are not kept, or read without it."""
        return self.kept[self.order.argsort()] if self.n == len(self.kept) == len(self.order) else None

    @property
    def without_features(self) -> "Statistics":
        """Return the same sums with features of no dimensions, which a part copies at no cost."""
        return replace(self, total=self.total[:, :0], outer=self.outer[:, :0, :0], kept=self.kept[:, :0])

    def add(
        self,
        features: Float[Tensor, "b d"],
        probabilities: Float[Tensor, "b k"],
        pixels: Pixels,
        first: int | None = None,
    ) -> None:
        """Add images; `pixels` are uint8. Order and batch size change nothing, but `order` holds the places.

        `first` is the place of the first of them in the set; by default they follow the images that were added before.
        """
        places = torch.arange(len(pixels)) + (self.n if first is None else first)
        new, scaled = content_keys(pixels), pixels.cpu().double().flatten(2) / 127.5 - 1
        colour = torch.stack([scaled.mean(2), scaled.square().mean(2), (scaled.abs() == 1).double().mean(2)], dim=1)
        features, p = features.cpu().double(), probabilities.cpu().double()
        group = new.remainder(len(self.count))
        for g in set(group.tolist()):
            chosen = group == g
            part, believed = features[chosen], p[chosen]
            self.count[g] += len(part)
            self.total[g] += part.sum(0)
            self.outer[g] += part.T @ part
            self.believed[g] += believed.sum(0)
            self.certainty[g] += torch.special.entr(believed).sum().neg()
            self.colour[g] += colour[chosen].sum(0)
        least = torch.cat([self.keys, new]).argsort()[:MAX_KEPT]
        self.kept, self.keys = torch.cat([self.kept, features.float()])[least], torch.cat([self.keys, new])[least]
        self.order = torch.cat([self.order, places])[least]

    def part(self, groups: Bool[Tensor, " g"]) -> "Statistics":
        """Return the sums of some groups; the kept features stay."""
        sums = {f.name: getattr(self, f.name)[groups] for f in fields(self) if f.name not in OF_IMAGES}
        return Statistics(**sums, kept=self.kept, keys=self.keys, order=self.order)


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of n feature vectors."""

    n: int
    mean: Float64[Tensor, " d"]
    covariance: Float64[Tensor, "d d"]

    @classmethod
    def of(cls, s: Statistics) -> "Moments":
        """Return the moments of all images in the statistics."""
        return cls.of_sums(s.n, s.total.sum(0), s.outer.sum(0))

    @classmethod
    def of_sums(cls, n: int, total: Float64[Tensor, " d"], outer: Float64[Tensor, "d d"]) -> "Moments":
        """Return the moments of n vectors from their sum and the sum of their outer products."""
        mean = total / n
        return cls(n, mean, (outer - n * torch.outer(mean, mean)) / max(n - 1, 1))

    @classmethod
    def of_features(cls, features: Float[Tensor, "n d"]) -> "Moments":
        """Return the moments of feature vectors."""
        x = features.double()
        return cls.of_sums(len(x), x.sum(0), x.T @ x)
