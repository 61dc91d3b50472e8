"""Datasets as training and evaluation see them: numbered images of one size and mode, wherever they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, SupportsIndex, TypeAlias, overload, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unnoise.data.numbers import Spans
from unnoise.data.sources.source import Array
from unnoise.errors import InputError
from unnoise.images import to_float

Indices: TypeAlias = Array | Sequence[int]
ABOUT_CLASSES = "found classes"  # how a note about classes begins
MOST_COUNTED = 10_000  # streamed images whose labels are counted
MIN_CHOSEN_GROUPS = 32  # a random choice of images comes from this many groups, if there are as many
HELD_OUT_SHARE = 0.02  # of the images are held out by default, within these limits:
MIN_HELD_OUT, MAX_HELD_OUT = 64, 2_048
MAX_HELD_OUT_PART = 10  # never more than one image in ten, however small the data is


@runtime_checkable
class Store(Protocol):
    """A place that images are read from, by their number in the whole data."""

    @property
    def groups(self) -> Array | None:
        """The group that each image belongs to [n], a number that never falls; None if reading has no groups.

        The images of one group lie together, so that reading them one after another is cheap.
        """

    @property
    def room(self) -> int:
        """The number of images, in open groups, that may be in memory."""

    def pixels(self, rows: Array, among: Array | None = None) -> Array:
        """Return the pixels [b, c, h, w], uint8 or uint16; an unreadable image is replaced by one `among` these rows.

        None allows every image as a replacement.
        """

    def labels(self, rows: Array) -> Array:
        """Return indices into the classes [b], int64; -1 if an image has no label."""

    def news(self) -> list[str]:
        """Return the warnings about images that were read since the last call."""


@dataclass(frozen=True)
class Dataset:
    """Images of one size and mode: all images of a store, or a part of them.

    It is a map-style torch dataset, so that a `DataLoader` can read it: `data[i]` is the image [c, h, w], float32 in
    [-1, 1], and its label.
    """

    store: Store = field(repr=False, compare=False)
    name: str
    mode: str  # L, LA, RGB, RGBA, I;16, or "" for arrays with channels that no image mode has
    shape: tuple[int, int, int]  # c, h, w
    count: int  # images in the store
    classes: tuple[str, ...]
    fingerprint: str  # sha256 of what the model sees
    notes: tuple[str, ...]  # messages for the user about finding and decoding the images
    spans: Spans = field(default_factory=dict)  # of the numbers that the pixels come from
    rows: Array | None = field(default=None, compare=False)  # the images of a part; None means all
    held_out: Array | None = field(default=None, compare=False)  # images of the store in splits that are held out
    no_classes: str = ""  # why there are no classes

    def __len__(self) -> int:
        """Return the number of images."""
        return self.count if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[Float[Tensor, "c h w"], int]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> "tuple[Float[Tensor, 'c h w'], int] | Dataset":
        """Return one image and its label, as a torch dataset does; for a slice, return that part of the dataset.

        Args:
            index: A number from 0 to len - 1, or a negative number that counts from the end.

        Returns:
            The image [c, h, w], float32 in [-1, 1], and an index into `classes`, -1 if the image has no label.

        Raises:
            IndexError: If there is no image of this number.
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
        """Return a dataset of these images alone, numbered anew; classes and fingerprint stay the same."""
        return replace(self, rows=self.numbers(rows))

    def numbers(self, indices: Indices) -> Array:
        """Return the numbers of these images in the store."""
        indices = np.asarray(indices, dtype=np.int64)
        return indices if self.rows is None else self.rows[indices]

    def read(self, indices: Indices) -> Array:
        """Return the pixels [b, c, h, w] of these images, uint8 or uint16."""
        return self.store.pixels(self.numbers(indices), self.rows)

    def labels(self, indices: Indices) -> Array | None:
        """Return indices into the classes [b], int64, -1 if an image has no label; None if there are no classes."""
        return self.store.labels(self.numbers(indices)) if self.classes else None

    @property
    def groups(self) -> Array | None:
        """The group that each image belongs to [n]; None if reading has no groups."""
        groups = self.store.groups
        return groups if groups is None or self.rows is None else groups[self.rows]

    def chosen(self, n: int, seed: int) -> Array:
        """Return the numbers [n] of random images, the same for the same seed.

        If images are read in groups, the choice comes from few groups, since each group takes time to open.
        """
        rng, groups = np.random.default_rng(seed), self.groups
        if groups is None:
            return rng.permutation(len(self))[:n]
        runs = runs_of(groups)
        per_group, found, total = -(-n // MIN_CHOSEN_GROUPS), list[Array](), 0
        for i in rng.permutation(len(runs)):
            found.append(rng.permutation(runs[i])[:per_group])
            total += len(found[-1])
            if total >= n:
                break
        if total < n:  # there are fewer groups than planned: choose any of their images
            found = [np.arange(len(self))]
        return rng.permutation(np.concatenate(found))[:n]


def runs_of(groups: Array) -> list[Array]:
    """Return the positions of each group's images, one array for each group in order."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.split(np.arange(len(groups)), starts[1:])


def class_counts(dataset: Dataset, most: int = MOST_COUNTED) -> list[int]:
    """Return the number of images of each class [k], and last the number of images without a label.

    The label of a streamed image is known when the image is read. So at most `most` of them are counted, chosen as
    `Dataset.chosen` does by seed 0.
    """
    rows = np.arange(len(dataset)) if dataset.groups is None else dataset.chosen(most, 0)
    labels, k = dataset.labels(rows), len(dataset.classes)
    if labels is None:
        return [len(dataset)]
    counts: list[int] = np.bincount(np.where(labels < 0, k, labels), minlength=k + 1).tolist()
    return counts


def split_held_out(dataset: Dataset, wanted: int | None = None) -> tuple[Dataset, Dataset]:
    """Return (images to train on, held-out images); the split depends on the data alone.

    If the data has splits of its own, such as train/ and test/, no image of a held-out split is ever trained on, and
    the held-out images are chosen from them.
    """
    own = own_split(dataset)
    if own is not None:
        return dataset.part(np.flatnonzero(~own)), measured_part(dataset.part(np.flatnonzero(own)), wanted)
    count = len(dataset)
    if dataset.held_out is not None and np.isin(dataset.numbers(np.arange(count)), dataset.held_out).any():
        raise InputError(
            f"all {count:,} images of {dataset.name} that are used belong to held-out splits; use more images, "
            "or give the folder of one split"
        )
    held = default_held_out(count) if wanted is None else wanted
    if not 0 <= held < count:
        raise InputError(f"--held-out takes 0 to {count - 1} of the {count:,} images, got {held}")
    out = np.sort(dataset.chosen(held, 0))
    return dataset.part(np.delete(np.arange(count), out)), dataset.part(out)


def own_split(dataset: Dataset) -> Array | None:
    """Return for each image whether its split is held out [n]; None if all images are of one kind."""
    if dataset.held_out is None:
        return None
    own = np.isin(dataset.numbers(np.arange(len(dataset))), dataset.held_out)
    return own if own.any() and not own.all() else None


def measured_part(held_out: Dataset, wanted: int | None) -> Dataset:
    """Return the images of held-out splits that are measured on: all of them up to a maximum, or the wanted number."""
    count = len(held_out)
    held = min(count, MAX_HELD_OUT) if wanted is None else wanted
    if not 0 <= held <= count:
        raise InputError(
            f"--held-out takes 0 to {count:,}, the images in the held-out splits of {held_out.name}, got {held}"
        )
    return held_out.part(np.sort(held_out.chosen(held, 0)))


def default_held_out(count: int) -> int:
    """Return how many images are held out: 2 %, at least 64, at most 2,048, and never more than a tenth."""
    return min(max(MIN_HELD_OUT, round(HELD_OUT_SHARE * count)), MAX_HELD_OUT, count // MAX_HELD_OUT_PART)
