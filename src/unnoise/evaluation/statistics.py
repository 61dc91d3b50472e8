"""What is kept of a set of pictures: sums over all of them, and the features of some; it does not grow with the set."""

from dataclasses import dataclass, fields
from hashlib import blake2b

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from unnoise.types import Pixels

KEEP = 10_000  # pictures whose features are kept
GROUPS = 20  # the sums are kept by group, for intervals by leaving one out,
ROOM = 2 * 10**8  # in about so many bytes: of wide features in fewer groups, but at least 8


def keys(pixels: Pixels) -> Int64[Tensor, " b"]:
    """A number for each picture, by its content: who is kept, and in which group, depends on nothing else."""
    rows = pixels.cpu().numpy()
    return torch.tensor(
        [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "little", signed=True) for row in rows]
    )


@dataclass
class Statistics:
    """Of features [n, d], probabilities of classes [n, k] and pixels [n, c, ...], in groups g; float64."""

    count: Float64[Tensor, " g"]
    total: Float64[Tensor, "g d"]  # of the features
    outer: Float64[Tensor, "g d d"]  # of their outer products
    believed: Float64[Tensor, "g k"]  # of the probabilities
    certainty: Float64[Tensor, " g"]  # of sum(p log p)
    colour: Float64[Tensor, "g 3 c"]  # of pixels in [-1, 1], their squares, and how many lie at an end of the range
    kept: Float[Tensor, "m d"]  # features of those with the smallest keys
    keys: Int64[Tensor, " m"]

    @classmethod
    def empty(cls, features: int, classes: int, channels: int) -> "Statistics":
        groups = max(8, min(GROUPS, ROOM // (8 * features**2)))

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64)

        sums = zeros(), zeros(features), zeros(features, features), zeros(classes), zeros(), zeros(3, channels)
        return cls(*sums, torch.empty(0, features), torch.empty(0, dtype=torch.int64))

    @property
    def n(self) -> int:
        return int(self.count.sum())

    def add(self, features: Float[Tensor, "b d"], probabilities: Float[Tensor, "b k"], pixels: Pixels) -> None:
        """Take in some pictures, uint8; in any order and number."""
        named, scaled = keys(pixels), pixels.cpu().double().flatten(2) / 127.5 - 1
        colour = torch.stack([scaled.mean(2), scaled.square().mean(2), (scaled.abs() == 1).double().mean(2)], dim=1)
        features, p = features.cpu().double(), probabilities.cpu().double()
        group = named.remainder(len(self.count))
        for g in set(group.tolist()):
            chosen = group == g
            part, believed = features[chosen], p[chosen]
            self.count[g] += len(part)
            self.total[g] += part.sum(0)
            self.outer[g] += part.T @ part
            self.believed[g] += believed.sum(0)
            self.certainty[g] += torch.special.entr(believed).sum().neg()
            self.colour[g] += colour[chosen].sum(0)
        order = torch.cat([self.keys, named]).argsort()[:KEEP]
        self.kept, self.keys = torch.cat([self.kept, features.float()])[order], torch.cat([self.keys, named])[order]

    def part(self, groups: Bool[Tensor, " g"]) -> "Statistics":
        """The sums of some groups."""
        sums = {f.name: getattr(self, f.name)[groups] for f in fields(self) if f.name not in ("kept", "keys")}
        return Statistics(**sums, kept=self.kept, keys=self.keys)


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of n feature vectors."""

    n: int
    mean: Float64[Tensor, " d"]
    covariance: Float64[Tensor, "d d"]

    @classmethod
    def of(cls, s: Statistics) -> "Moments":
        return cls.of_sums(s.n, s.total.sum(0), s.outer.sum(0))

    @classmethod
    def of_sums(cls, n: int, total: Float64[Tensor, " d"], outer: Float64[Tensor, "d d"]) -> "Moments":
        mean = total / n
        return cls(n, mean, (outer - n * torch.outer(mean, mean)) / max(n - 1, 1))

    @classmethod
    def of_features(cls, features: Float[Tensor, "n d"]) -> "Moments":
        x = features.double()
        return cls.of_sums(len(x), x.sum(0), x.T @ x)
