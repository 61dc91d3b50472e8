"""Several arrays in one .npz file: which of them are the images, and which are their labels."""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from unnoise.data.sources.arrays import ARRAY_DAMAGE, Table, label_names, numpy_table, table_source
from unnoise.data.sources.classes import NO_CLASSES, NoClassError, first_few, join_first, label_columns, named_column
from unnoise.data.sources.layout import split_family, split_kind
from unnoise.data.sources.source import Source, column_key, explain_damage, file_key
from unnoise.data.sources.splits import join_sources, join_splits
from unnoise.errors import InputError

SHAPES = "images are [n,h,w], [n,h,w,c] or [n,c,h,w]"
PAIRS = (  # how the labels are named after the images, as in MedMNIST, Keras and guided-diffusion
    (r"images", "labels"),
    (r"image", "label"),
    (r"imgs?", "labels"),
    (r"(?<![a-z])x", "y"),
    (r"data", "labels"),
    (r"data", "targets"),
    (r"arr_0", "arr_1"),
)


def read_npz(path: Path, column: str | None = None) -> Source:
    """Read the array `images`, `x`, one of the training split, or the first of three or four axes, and its labels.

    The labels are the array that is named after the images (`train_images`, `train_labels`), `labels`, `y` and the
    like, or the only other array with one value for each image.
    """
    with explain_damage(path, ARRAY_DAMAGE), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    tables, refused = dict[str, Table](), list[InputError]()
    for name in names:
        try:
            tables[name] = numpy_table(path, partial(open_member, path, f"{name}.npy"))
        except InputError as error:  # an array that nobody needs may hold anything
            refused.append(error)
    fitting = [name for name in tables if len(tables[name].shape) in (3, 4)]
    if not fitting:
        raise (
            refused[0]
            if refused
            else InputError(f"no array of images in {str(path)!r}; its arrays are {shapes_of(tables)}; {SHAPES}")
        )
    chosen = min(
        fitting, key=lambda name: (name not in ("images", "x"), split_kind(name) is not False, bool(split_kind(name)))
    )
    train, notes = read_part(path, chosen, tables, column)
    parts = {name: read_part(path, name, tables, None) for name in held_out_parts(fitting, chosen)}
    used = {chosen, *parts, *(label for _, label in (train, *(part for part, _ in parts.values())))}
    if others := [name for name in fitting if name not in used]:
        notes.append(f"the images are the array {chosen!r}; not used: {first_few(others)}")
    source = replace(train[0], notes=notes)
    if not parts:
        return source
    held_out = join_sources(path.stem, [part for (part, _), _ in parts.values()])
    return join_splits(source, held_out, [*parts])


def shapes_of(tables: Mapping[str, Table]) -> str:
    """Return the names of arrays with their shapes."""
    return join_first([f"{name} {table.shape}" for name, table in tables.items()]) or "none"


def held_out_parts(names: Sequence[str], train: str) -> list[str]:
    """Return the arrays of held-out splits that belong to an array of a training split: x_test to x_train."""
    if split_kind(train) is not False:
        return []
    return [name for name in names if split_kind(name) and split_family(name) == split_family(train)]


def read_part(
    path: Path, images: str, tables: Mapping[str, Table], column: str | None
) -> tuple[tuple[Source, str | None], list[str]]:
    """Return the source of one array of images, the name of the array of its labels, and lines for the user."""
    label, labels, notes = choose_array(path, images, tables, column)
    key = column_key(file_key(path, path) if label else file_key(path), column)
    return (table_source(tables[images], labels, path.stem, key), label), notes


@contextmanager
def open_member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        yield file


def choose_array(
    path: Path, images: str, tables: Mapping[str, Table], column: str | None
) -> tuple[str | None, Sequence[str | None] | None, list[str]]:
    """Return the name of the array of labels, the labels, and lines for the user."""
    count, others = tables[images].shape[0], [name for name in tables if name != images]
    one_each = [name for name in others if tables[name].shape[:1] == (count,) and len(tables[name].shape) <= 2]
    paired = [re.sub(pattern, after, images.lower(), count=1) for pattern, after in PAIRS]
    named = [name for name in others if name.lower() in paired] + label_columns(others)
    if column is not None:
        label = named_column(others, column, repr(str(path)))
    elif named:
        label = named[0]
    elif len(one_each) == 1:
        label = one_each[0]
    else:
        seen = f"{path.name} has the arrays {first_few(list(tables))}; none is a label: name one with --label-column"
        return None, None, [NO_CLASSES + seen] if one_each else []
    try:
        return label, label_names(tables[label], count), []
    except NoClassError as reason:
        said = str(reason).replace("the array of labels", f"the array {label!r} of {path.name}")
        if column is not None:
            raise InputError(f"--label-column {column!r}: {said}") from None
        return None, None, [NO_CLASSES + said]
