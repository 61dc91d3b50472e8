"""The meaning of folders in a set of images: which folder is a split, which is a class; one rule for every layout.

train, val, test and the like are splits if a training split and a held-out split lie side by side, or if there are no
other folders. The class is the folder below the split, or above it as in `cat/train`. A class that is named "test"
among other classes stays a class.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from unnoise.data.sources.classes import join_first
from unnoise.data.sources.masks import MASK_FOLDERS, MaskCount

Folders: TypeAlias = tuple[str, ...]  # the folders that an image lies in, from the root on
MAX_DEPTH = 8  # folders below this depth do not matter
FEW = 10  # loose images are strays if they are at most one image in ten
TRAIN_WORD = r"train(?:ing|val)?"
HELD_OUT_WORD = r"val|valid|validation|dev|test|testing|eval|evaluation|holdout"
FILLERS = {"set", "sets", "image", "images", "img", "imgs", "data", "split", "public", "private"}


class Placed(NamedTuple):
    """The class of an image, and whether it belongs to a held-out split."""

    label: str | None
    held_out: bool


class Layout(NamedTuple):
    """How the folders of a set are read."""

    label: int = 0  # index of the folder that is the class, once the split is taken out
    split: int | None = None  # index of the folder that is the split
    held_out: Mapping[str, bool] = {}  # the folders that are splits, and whether they are held out

    def place(self, folders: Folders) -> Placed | None:
        """Return class and split of an image in these folders; None if it belongs to no split."""
        held_out = False
        if self.split is not None:
            if len(folders) <= self.split or folders[self.split] not in self.held_out:
                return None
            held_out = self.held_out[folders[self.split]]
            folders = without_split(folders, self.split)
        return Placed(folders[self.label] if len(folders) > self.label else None, held_out)


class FolderCount:
    """The number of images in each folder; it decides the layout, and what the user is shown about it."""

    def __init__(self) -> None:
        self.images: Counter[Folders] = Counter()
        self.masks = MaskCount()

    def add(self, parts: Sequence[str]) -> None:
        """Count the image at this path."""
        folders = tuple(parts[:-1][:MAX_DEPTH])
        self.images[folders] += 1
        self.masks.add(parts, folders)

    def layout(self) -> Layout:
        """Return the layout of these folders."""
        common = common_depth(self.images)
        for level in range(common + 2):
            if splits := splits_at(self.images, level, inside_classes=level > common):
                rest: Counter[Folders] = Counter()
                for folders, n in self.images.items():
                    if len(folders) > level and folders[level] in splits:
                        rest[without_split(folders, level)] += n
                return Layout(label_depth(rest), level, splits)
        return Layout(label_depth(self.images))

    def total(self, layout: Layout) -> int:
        """Return the number of images that are used."""
        return sum(n for folders, n in self.images.items() if layout.place(folders))

    def notes(self, layout: Layout) -> list[str]:
        """Return lines that say what the folders were taken for."""
        used = {folders: n for folders, n in self.images.items() if layout.place(folders)}
        return [*split_notes(self.images, layout), *self.masks.notes(used)]


def without_split(folders: Folders, level: int) -> Folders:
    """Return the folders without the split, also if it is there twice, as in `seg_train/seg_train/sea`."""
    below = level + 1
    while len(folders) > below and folders[below] == folders[level]:
        below += 1
    return folders[:level] + folders[below:]


def common_depth(images: Mapping[Folders, int]) -> int:
    """Return how many folders, one inside the other, hold all images except a few strays."""
    depth, total = 0, sum(images.values())
    while True:
        deeper = {folders[depth] for folders in images if len(folders) > depth}
        loose = sum(n for folders, n in images.items() if len(folders) == depth)
        if len(deeper) != 1 or loose * FEW > total:
            return depth
        depth += 1


def label_depth(images: Mapping[Folders, int]) -> int:
    """Return the index of the folder that is the class; folders that hold everything are none."""
    common = common_depth(images)
    return common if any(len(folders) > common for folders in images) else 0


def splits_at(images: Mapping[Folders, int], level: int, *, inside_classes: bool) -> dict[str, bool]:
    """Return the names that are splits at this depth, and whether each is held out; nothing if there are no splits.

    Inside class folders, as in `cat/train`, all folders must be splits.
    """
    names = sorted({folders[level] for folders in images if len(folders) > level})
    if inside_classes:  # masks of the images of a class may lie there, as in `bottle/ground_truth`
        names = [name for name in names if not MASK_FOLDERS.fullmatch(name)]
    kinds = {name: kind for name in names if (kind := split_kind(name)) is not None}
    families = {split_family(name) for name in kinds}
    if not kinds or (len(families) > 1 and not are_whole(kinds)):
        return {}
    both = {True, False} <= {*kinds.values()}
    loose = sum(n for folders, n in images.items() if len(folders) <= level)
    alone = len(kinds) == len(names) and loose * FEW <= sum(images.values())
    if both and (alone or not inside_classes):
        return kinds
    if alone and not inside_classes and families == {()}:  # no other split to learn from, or to measure on
        return dict.fromkeys(kinds, False)
    return {}


def are_whole(kinds: Mapping[str, bool]) -> bool:
    """Return whether there is a training and a held-out split of each family: trainA, trainB, testA and testB."""
    found = {(split_family(name), kind) for name, kind in kinds.items()}
    return len(found) == 2 * len({family for family, _ in found})


def words_of(name: str) -> list[str]:
    """Return the words of a name in small letters: `TrainSet_1` gives train, set."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    joined = re.sub(r"held?[\W_]*out|hold[\W_]*out", "holdout", spaced.lower())
    return [re.sub(r"(?<=[a-z])sets?$", "", word) or word for word in re.split(r"[\W\d_]+", joined) if word]


def split_kind(name: str) -> bool | None:
    """Return False if a folder is named like a training split, True if like a held-out split, None otherwise."""
    found = [word for word in words_of(name) if re.fullmatch(f"{TRAIN_WORD}|{HELD_OUT_WORD}", word)]
    return None if not found else not any(re.fullmatch(TRAIN_WORD, word) for word in found)


def split_family(name: str) -> tuple[str, ...]:
    """Return the words of a split's name that are not about the split: `seg_train` and `seg_test` share `seg`."""
    words = (word for word in words_of(name) if word not in FILLERS)
    return tuple(word for word in words if not re.fullmatch(f"{TRAIN_WORD}|{HELD_OUT_WORD}", word))


def split_notes(images: Mapping[Folders, int], layout: Layout) -> list[str]:
    """Return lines that name the splits and count their images."""
    level = layout.split
    if level is None:
        return []
    counts, outside = Counter[bool](), Counter[str]()
    for folders, n in images.items():
        if place := layout.place(folders):
            counts[place.held_out] += n
        else:
            outside["/".join(folders[: level + 1]) + "/" if folders else "beside the splits"] += n
    names = {held: [f"{name}/" for name, kind in layout.held_out.items() if kind is held] for held in (False, True)}
    notes = [describe_splits(names[False], counts[False], names[True], counts[True])]
    if outside:
        notes.append(f"left out {outside.total():,} images that belong to no split: {name_counts(outside)}")
    return notes


def describe_splits(trained: Sequence[str], train_count: int, held_out: Sequence[str], held_count: int) -> str:
    """Return the line that says which splits are trained on and which are held out."""
    text = f"{', '.join(trained)}: {count_images(train_count)} trained on"
    if held_out:
        return f"{text}; {', '.join(held_out)}: {count_images(held_count)} held out"
    return f"{text}; there is no other split"


def count_images(n: int) -> str:
    """Return a number of images with the verb that follows it."""
    return "1 image is" if n == 1 else f"{n:,} images are"


def name_counts(counts: Counter[str]) -> str:
    """Return the first few names with their numbers."""
    return join_first([f"{name} {n:,}" for name, n in counts.most_common()])
