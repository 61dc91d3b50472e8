"""What training and measuring see of the data: numbered images, wherever they lie."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, SupportsIndex, TypeAlias, overload, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unnoise.data.sources.source import Array
from unnoise.errors import InputError
from unnoise.images import to_float

Indices: TypeAlias = Array | Sequence[int]
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

    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[Float[Tensor, "c h w"], int]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> "tuple[Float[Tensor, 'c h w'], int] | Dataset":
        """Return one image and its label, as a torch dataset does; of a slice, return that part of the dataset.

        Args:
            index: 0 to len - 1, or negative to count from the end.

        Returns:
            The image [c, h, w], float32 in [-1, 1], and an index into `classes`, -1 if the image has no label.

        Raises:
            IndexError: If there is no such image.
        """
        if isinstance(index, slice):
            return self.part(np.arange(len(self))[index])
        try:
            row = np.array([range(len(self))[index]])
        except IndexError:
            raise IndexError(f"image {index} of a dataset of {len(self)}") from None
        x0 = to_float(torch.from_numpy(self.read(row)))[0]
        labels = self.labels(row)
        return x0, -1 if labels is None else int(labels[0])

    def part(self, rows: Indices) -> "Dataset":
        """Return the dataset of these images alone, numbered anew."""
        return replace(self, rows=self.numbers(rows))

    def numbers(self, indices: Indices) -> Array:
        """Return the numbers of these images in the store."""
        indices = np.asarray(indices, dtype=np.int64)
        return indices if self.rows is None else self.rows[indices]

    def read(self, indices: Indices) -> Array:
        """Return the pixels [b, c, h, w] of these images, uint8 or uint16."""
        return self.store.pixels(self.numbers(indices), self.rows)

    def labels(self, indices: Indices) -> Array | None:
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
