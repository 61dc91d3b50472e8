"""What training and measuring see of the data: numbered images, wherever they lie."""

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np

from unnoise.data.sources.source import Array
from unnoise.errors import InputError

SPREAD = 32  # groups from which images are chosen, at least


@runtime_checkable
class Store(Protocol):
    """Images by their number in the whole of the data."""

    @property
    def groups(self) -> Array | None:
        """Which images lie together, so that reading them one after another is cheap: a number [n] that never falls.

        None where any image is as near as any other.
        """

    @property
    def room(self) -> int:
        """How many images of groups that are read may be in memory."""

    def pixels(self, rows: Array, among: Array | None = None) -> Array:
        """[b, c, h, w], uint8 or uint16; where one has to stand in for another it is `among` these (None: all)."""

    def labels(self, rows: Array) -> Array:
        """Indices into the classes [b], int64; -1 where there is none."""

    def news(self) -> list[str]:
        """What is to be told of images that were read since it was last asked."""


@dataclass(frozen=True)
class Dataset:
    """Images of one size and mode, all of a store or a part of it."""

    store: Store = field(repr=False, compare=False)
    name: str
    mode: str  # L, LA, RGB, RGBA, I;16, or "" for arrays that are no picture
    shape: tuple[int, int, int]  # c, h, w
    count: int  # in the store
    classes: tuple[str, ...]
    fingerprint: str  # sha256 of what the model sees
    notes: tuple[str, ...]  # what happened, for the user
    rows: Array | None = field(default=None, compare=False)  # a part of them; None is all

    def __len__(self) -> int:
        return self.count if self.rows is None else len(self.rows)

    def part(self, rows: Array) -> "Dataset":
        """Some of the images, which are numbered anew."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def numbers(self, indices: Array) -> Array:
        """Of these images in the whole of the data."""
        return indices if self.rows is None else self.rows[indices]

    def read(self, indices: Array) -> Array:
        """Pixels [b, c, h, w]."""
        return self.store.pixels(self.numbers(indices), self.rows)

    def labels(self, indices: Array) -> Array | None:
        """Indices into the classes [b], int64; -1 where an image has none."""
        return self.store.labels(self.numbers(indices)) if self.classes else None

    @property
    def groups(self) -> Array | None:
        """Which of the images lie together, where that matters: a number [n]."""
        groups = self.store.groups
        return groups if groups is None or self.rows is None else groups[self.rows]

    def chosen(self, n: int, seed: int) -> Array:
        """So many images at random, always the same ones; where reading groups costs time, of few of them."""
        rng, groups = np.random.default_rng(seed), self.groups
        if groups is None:
            return rng.permutation(len(self))[:n]
        runs = runs_of(groups)
        each, found, have = -(-n // SPREAD), list[Array](), 0
        for i in rng.permutation(len(runs)):
            found.append(rng.permutation(runs[i])[:each])
            have += len(found[-1])
            if have >= n:
                break
        if have < n:  # fewer groups than that: of these any
            found = [np.arange(len(self))]
        return rng.permutation(np.concatenate(found))[:n]


def runs_of(groups: Array) -> list[Array]:
    """The places of each group, one after another."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.split(np.arange(len(groups)), starts[1:])


SHARE, LEAST, MOST = 0.02, 64, 2_048
TENTH = 10  # of small data no more than a tenth is kept out


def split_held_out(dataset: Dataset, wanted: int | None = None) -> tuple[Dataset, Dataset]:
    """To train on, and held out: of the same data always the same images, whatever the seed of a run."""
    count = len(dataset)
    held = default_held_out(count) if wanted is None else wanted
    if not 0 <= held < count:
        raise InputError(f"--held-out takes 0 to {count - 1} of the {count:,} images, got {held}")
    out = np.sort(dataset.chosen(held, 0))
    return dataset.part(np.delete(np.arange(count), out)), dataset.part(out)


def default_held_out(count: int) -> int:
    """2 % of the images, at least 64, at most 2,048, and never more than a tenth."""
    return min(max(LEAST, round(SHARE * count)), MOST, count // TENTH)
