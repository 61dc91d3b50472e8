"""Folders of .npy files: each file holds one image, or many.

An array [n, h, w, c] or [n, c, h, w] holds many images, and [h, w] one. An array of three axes is one image if the
first or the last axis is short enough to be channels, otherwise many gray ones [n, h, w]; all files are read alike.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unnoise.data.decode import array_mode
from unnoise.data.numbers import type_of_array
from unnoise.data.sources.arrays import MAX_CHANNELS, Table, channels_last, check_pixels, numpy_table
from unnoise.data.sources.classes import check_no_column, first_few, join_first
from unnoise.data.sources.layout import MAX_DEPTH, FolderCount, Placed
from unnoise.data.sources.npz import choose_array
from unnoise.data.sources.source import Array, Broken, Item, Source, column_key, file_key, storable
from unnoise.data.sources.splits import split_files
from unnoise.errors import InputError

MAX_ASPECT = 16  # of one image; an array that is longer holds rows of flattened images


class ArrayFile(NamedTuple):
    """One file of a folder."""

    name: str  # the path below the folder
    path: Path
    table: Table | None  # None if the file cannot be read
    why: str = ""  # it cannot be read

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the array, () if it cannot be read."""
        return self.table.shape if self.table else ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the components of the path below the folder."""
        return tuple(storable(part) for part in Path(self.name).parts)


def read_arrays(named: Sequence[tuple[str, Path]], name: str, column: str | None = None) -> Source:
    """Turn the .npy files of a folder into a source, by their headers; arrays of one axis may be labels."""
    files = [open_array(*each) for each in named]
    rows = {file.shape[0] for file in files if len(file.shape) == 4}
    images = [file for file in files if may_be_images(file.shape, rows)]
    if not images:
        seen = next((file.why for file in files if file.why), f"their shapes are {first_few([f.shape for f in files])}")
        raise InputError(f"no images in the .npy files of {name!r}: {seen}")
    stacked = are_stacked(images)
    check_alike(images, stacked)
    others = {file.name for file in files if file.table} - {file.name for file in images}
    labels, notes = find_labels([file for file in files if file.name in others], images, stacked, column)
    used = [file for file in files if file.name not in others]
    places, counted = places_of(used, stacked)
    items = partial(array_items, used, stacked, places, labels)
    count = sum(count_images(file, stacked) for file in used if file.name in places)
    uniform = len(used) == len(images) and len({shape_of_one(file, stacked) for file in images}) == 1
    key = column_key(file_key(*(path for _, path in named)), column)
    return Source(name, key, items, count, uniform=uniform, notes=[*describe(images, stacked), *notes, *counted])


def may_be_images(shape: tuple[int, ...], rows: Collection[int]) -> bool:
    """Return whether an array of this shape holds images; `rows` are the numbers of images of other files."""
    if len(shape) == 2:
        return shape[1] > 1 and shape[0] not in rows  # otherwise it has a label or a row of features for each
    return len(shape) in (3, 4)


def open_array(name: str, path: Path) -> ArrayFile:
    """Read the header of one file."""
    try:
        return ArrayFile(name, path, numpy_table(path, lambda: path.open("rb")))
    except InputError as why:
        return ArrayFile(name, path, None, str(why))


def is_stack(file: ArrayFile, stacked: bool) -> bool:
    """Return whether a file holds many images; `stacked` is the answer for arrays of three axes."""
    return len(file.shape) == 4 or (len(file.shape) == 3 and stacked)


def count_images(file: ArrayFile, stacked: bool) -> int:
    """Return the number of images of a file; one that cannot be read counts as one."""
    return file.shape[0] if is_stack(file, stacked) else 1


def shape_of_one(file: ArrayFile, stacked: bool) -> tuple[int, ...]:
    """Return the shape of one image of a file."""
    return file.shape[1:] if is_stack(file, stacked) else file.shape


def are_stacked(images: Sequence[ArrayFile]) -> bool:
    """Return whether arrays of three axes hold many gray images; raise InputError if they differ in that."""
    three = [file for file in images if len(file.shape) == 3]
    gray = [file for file in three if min(file.shape[0], file.shape[2]) > MAX_CHANNELS]
    if not gray:
        return False
    other = next((file for file in three if file.shape[1:] != gray[0].shape[1:]), None)
    if other is not None:
        seen = " and ".join(f"{file.name} of shape {file.shape}" for file in (gray[0], other))
        raise InputError(f"{seen}: is each one image [h,w,c], or many [n,h,w]? Save many images as [n,h,w,c]")
    return True


def check_alike(images: Sequence[ArrayFile], stacked: bool) -> None:
    """Raise InputError if the images cannot be used, or are of several types of numbers."""
    first = channels = None
    for file in images:
        assert file.table is not None
        shape = shape_of_one(file, stacked)
        if 0 in shape:
            raise InputError(f"{file.table.text} has shape {file.shape}: it holds no images")
        if len(shape) == 2 and max(shape) > MAX_ASPECT * min(shape):
            raise InputError(
                f"{file.table.text} has shape {file.shape}; reshape flattened images to [n,h,w] or [n,h,w,c]"
            )
        check_pixels(file.table.text, file.table.dtype, shape)
        dtype, own = file.table.dtype.newbyteorder("="), 1 if len(shape) == 2 else min(shape[0], shape[2])
        first, channels = first or file, channels or own
        assert first.table is not None
        if dtype != first.table.dtype.newbyteorder("="):
            seen = f"{file.name} holds {dtype}, and {first.name} {first.table.dtype.newbyteorder('=')}"
            raise InputError(f"{seen}; save all images as one type of numbers")
        if own != channels and not all(array_mode(c, type_of_array(dtype), {}) for c in (own, channels)):
            raise InputError(f"{file.name} has {own} channels, and {first.name} has {channels}; save all with as many")


def find_labels(
    others: Sequence[ArrayFile], images: Sequence[ArrayFile], stacked: bool, column: str | None
) -> tuple[Mapping[str, Sequence[str | None]], list[str]]:
    """Return the labels of arrays of many images, from other arrays of the same folder, and lines for the user."""
    if not others:
        check_no_column(column, "there is no array of labels")
    found, notes, used = dict[str, Sequence[str | None]](), list[str](), set[Path]()
    near = defaultdict[Path, dict[str, Table]](dict)
    for file in others:
        if file.table:
            near[Path(file.name).parent][Path(file.name).stem] = file.table
    for file in images:
        folder, stem = Path(file.name).parent, Path(file.name).stem
        if folder in near and is_stack(file, stacked) and file.table:
            label, texts, said = choose_array(file.path.parent, stem, {**near[folder], stem: file.table}, column)
            notes += said
            if label and texts:
                found[file.name] = texts
                used.add(folder / f"{label}.npy")
    if left := [file.name for file in others if Path(file.name) not in used]:
        notes.append(f"not used, for they are neither images nor their labels: {join_first(left)}")
    return found, notes


def places_of(files: Sequence[ArrayFile], stacked: bool) -> tuple[Mapping[str, Placed], list[str]]:
    """Return class and split of each file, and lines about them.

    Folders are splits and classes. Without splits, the names of arrays of many images may say them: `x_test.npy`.
    """
    counted = FolderCount()
    for file in files:
        counted.add(file.parts)
        counted.images[file.parts[:-1][:MAX_DEPTH]] += count_images(file, stacked) - 1
    layout, notes, out = counted.layout(), list[str](), dict[str, bool]()
    if layout.split is None:
        many = [(Path(file.name).name, file.name) for file in files if is_stack(file, stacked)]
        _, held_out, left = split_files(many)
        out = dict.fromkeys(held_out, True)
        if held_out:
            notes.append(f"the images of held-out splits are not trained on: {join_first(held_out)}")
        if left:
            notes.append(f"left out {len(left):,} files that belong to no split: {join_first(left)}")
            files = [file for file in files if Path(file.name).name not in left]
    found = ((file.name, layout.place(file.parts[:-1])) for file in files)
    places = {name: place._replace(held_out=out.get(name, place.held_out)) for name, place in found if place}
    return places, [*counted.notes(layout), *notes]


def array_items(
    files: Sequence[ArrayFile],
    stacked: bool,
    places: Mapping[str, Placed],
    labels: Mapping[str, Sequence[str | None]],
) -> Iterator[Item]:
    """Yield the images to train on, and then the images of held-out splits."""
    for held_out in (False, True):
        for file in files:
            place = places.get(file.name)
            if place is None or place.held_out is not held_out:
                continue
            name = "/".join(file.parts)
            if is_stack(file, stacked) and file.table:
                given = labels.get(file.name)
                for i, row in enumerate(file.table.rows()):
                    label = given[i] if given else place.label
                    yield Item(f"{name} row {i}", channels_last(row), label, held_out)
            else:
                yield Item(name, one_image(file), place.label, held_out)


def one_image(file: ArrayFile) -> Array | Broken:
    """Return the only image of a file, or why it cannot be read."""
    try:
        return channels_last(np.stack([*file.table.rows()])) if file.table else Broken(file.why.encode())
    except InputError as why:
        return Broken(str(why).encode())


def describe(images: Sequence[ArrayFile], stacked: bool) -> list[str]:
    """Return lines that say how the arrays were read."""
    notes = []
    for many, what in ((False, "one image"), (True, "an array of many images")):
        files = [file for file in images if is_stack(file, stacked) is many]
        if files:
            notes.append(f"each .npy file is {what}, such as {files[0].name} of shape {files[0].shape}")
    if len(notes) == 2:
        return [note.replace("each .npy file is", "some .npy files are") for note in notes]
    return notes
