"""Labels from files beside images: tables that name images and their classes, and KEY.cls or KEY.json beside KEY.png.

A table is read if one of its columns names images of the set and another one is a label, by the rules of `classes`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from unnoise.data.sources.classes import (
    SHOWN,
    NoClassError,
    check_no_column,
    column_labels,
    first_few,
    join_first,
    label_columns,
    one_hot_columns,
    short,
    why_no_class,
)
from unnoise.data.sources.image_names import ImageNames, sample_key
from unnoise.data.sources.label_choice import Candidate, FoundLabels, RefusedError, choose_labels, count_images
from unnoise.data.sources.label_tables import (
    LOOKED_AT,
    MAX_TABLE_BYTES,
    TABLE_DAMAGE,
    Table,
    UnreadableTableError,
    describe,
    may_be_table,
    read_table,
)
from unnoise.data.sources.layout import split_kind
from unnoise.data.sources.source import is_image, suffix_of
from unnoise.errors import unknown
from unnoise.files import parse_json

MAX_TABLES = 1_000
MAX_SIDECAR_BYTES = 2**16  # of KEY.json
MAX_CLASS_BYTES = 256  # of KEY.cls
NAME_COLUMNS = ("file_name", "file_names", "filename", "file", "image", "path", "image_id", "id", "name")


class LabelFiles:
    """The label files of one folder or archive; they are offered while it is listed, and read at the end."""

    def __init__(self, column: str | None = None) -> None:
        self.column = column
        self.tables: list[tuple[str, bytes]] = []
        self.beside: dict[str, Any] = {}  # path of a KEY.cls or KEY.json, without its suffix -> label
        self.fields: Counter[str] = Counter()  # of the KEY.json that have no label
        self.kinds: Counter[str] = Counter()
        self.room = MAX_TABLE_BYTES

    def offer(self, name: str, size: int, read: Callable[[], bytes]) -> bool:
        """Take the file if it may hold labels; return whether it was taken."""
        suffix = suffix_of(name)
        if suffix == ".cls":
            if size <= MAX_CLASS_BYTES:
                self.add_beside(name, read().decode("utf-8", "replace").strip())
            return True
        if not may_be_table(name) or size > self.room:
            return False
        content = read()
        if suffix == ".json" and size <= MAX_SIDECAR_BYTES and self.take_json(name, content):
            return True
        if len(self.tables) >= MAX_TABLES:
            return False
        self.room -= size
        self.tables.append((name, content))
        return True

    def take_json(self, name: str, content: bytes) -> bool:
        """Take a JSON file that holds the facts about one image: a label, or other fields that are plain values."""
        try:
            found = parse_json(content)
        except ValueError:
            return False
        if isinstance(found, list):
            return False
        if not isinstance(found, dict):
            self.add_beside(name, found)
            return True
        names = [self.column] if self.column else label_columns(found)
        label = next((found[field] for field in names if isinstance(found.get(field), str | int | float)), None)
        if label is None and (
            any(isinstance(value, list | dict) for value in found.values()) or any(map(is_image, found))
        ):
            return False
        if label is None:
            self.fields.update(islice(found, SHOWN * 4))
        else:
            self.add_beside(name, label)
        return True

    def add_beside(self, name: str, label: Any) -> None:
        """Keep the label of the image beside a file."""
        self.kinds[suffix_of(name)] += 1
        self.beside[name.rpartition(".")[0]] = label

    def read(self, images: Iterable[tuple[str, str | None]]) -> FoundLabels:
        """Return the labels of the images; each is given by its path and the class that its folder names."""
        if not (self.tables or self.beside or self.fields):
            check_no_column(self.column, "no file holds labels")
            return FoundLabels(None, [])
        folders = dict(images)
        found, refused = list[Candidate](), list[str]()
        if self.beside or self.fields:
            with noting(refused, "the files beside images"):
                found.append(self.labels_beside(folders))
        names = ImageNames(folders)
        for same in group_tables(self.tables, names, refused).values():
            with noting(refused, same[0][0]):
                found.append(read_tables(same, names, self.column))
        return choose_labels(found, refused, folders, self.column)

    def labels_beside(self, folders: Mapping[str, str | None]) -> Candidate:
        """Return the labels of the files KEY.cls or KEY.json beside images."""
        what = "the labels of the " + " and ".join(f"{kind} files" for kind in sorted(self.kinds) or [".json"])
        if not self.beside:
            names = ", ".join(self.fields)
            raise RefusedError(
                f"the .json files have the fields {names}; none is a label: name one with --label-column"
            )
        try:
            texts = column_labels(self.beside.values(), what)
        except NoClassError as reason:
            raise RefusedError(str(reason)) from None
        beside = dict(zip(self.beside, texts, strict=True))
        keys = defaultdict[str, set[str | None]](set)
        for stem, label in beside.items():
            keys[sample_key(stem)].add(label)
        labels = {}
        for image in folders:
            label = beside.get(image.rpartition(".")[0])
            several = keys.get(sample_key(image), set())
            label = next(iter(several)) if label is None and len(several) == 1 else label
            if label is not None:
                labels[image] = label
        if not labels:
            raise RefusedError(f"{what} lie beside no image")
        return Candidate(what, labels, [], self.kinds, beside=True)


@contextmanager
def noting(refused: list[str], name: str) -> Iterator[None]:
    """Note why a label file does not count, instead of ending everything."""
    try:
        yield
    except RefusedError as reason:
        refused.append(str(reason))
    except UnreadableTableError as reason:
        refused.append(f"{name} {reason}")
    except TABLE_DAMAGE as error:
        refused.append(f"{name} cannot be read ({describe(error)})")


def group_tables(
    tables: Sequence[tuple[str, bytes]], names: ImageNames, refused: list[str]
) -> Mapping[Any, list[tuple[str, Table, str]]]:
    """Return tables, each with the column that names images; tables of the same columns are grouped."""
    groups = defaultdict[tuple[str, ...], list[tuple[str, Table, str]]](list)
    for name, content in sorted(tables, key=lambda table: (table[0].count("/"), table[0])):
        with noting(refused, name):
            table = read_table(name, content, partial(names.holds, name))
            file = file_column(name, table, names)
            groups[(*table.columns,)].append((name, table, file))
    return groups


def may_hold_labels(name: str) -> bool:
    """Return whether a file may hold labels, by its name."""
    return suffix_of(name) == ".cls" or may_be_table(name)


# Tables


def cells(value: Any) -> Sequence[Any]:
    """Return the names of images in one cell: one, or a list of several."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = parse_json(value)
        except ValueError:
            return [value]
    return value if isinstance(value, list) else [value]


def file_column(name: str, table: Table, names: ImageNames) -> str:
    """Return the column that names images; raise RefusedError if there is none."""
    rows = [*islice(table.rows(), LOOKED_AT)]
    columns = sorted(table.columns, key=lambda column: column.lower() not in NAME_COLUMNS)
    for column in columns:
        at = table.columns.index(column)
        values = [value for row in rows if len(row) > at for value in cells(row[at]) if value not in ("", None)]
        found = sum(names.find(name, value) is not None for value in values)
        if values and 2 * found >= min(len(values), 20):
            return column
    seen = first_few(table.columns) or "no columns"
    raise RefusedError(f"{name} names none of the images; it has the columns {seen}")


def read_tables(same: Sequence[tuple[str, Table, str]], names: ImageNames, wanted: str | None) -> Candidate:
    """Return the labels of tables that have the same columns; raise RefusedError if they do not count."""
    about = join_first([name for name, *_ in same])
    table, file = same[0][1], same[0][2]
    others = [column for column in table.columns if column != file]
    if not table.header and len(table.columns) == 2:
        if not wanted and all(map(is_split_table, same)):
            raise RefusedError(f"{about} divides the images into splits, and splits are read from folders only")
        columns = others
    else:
        columns = [wanted] if wanted in others else [] if wanted else label_columns(others)
    reasons = []
    for column in columns:
        try:
            return one_column(about, same, names, column)
        except RefusedError as reason:
            reasons.append(str(reason))
    if not columns and not wanted and len(others) > 1:
        try:
            return one_hot(about, same, names, others)
        except NoClassError:
            pass
    if wanted and not columns:
        raise RefusedError(str(unknown(f"label column of {about}", wanted, others)))
    seen = f"{about} has the columns {', '.join(table.columns[:20])}{', ...' if len(table.columns) > 20 else ''}"
    raise RefusedError("; ".join(reasons) or f"{seen}; none is a label: name one with --label-column")


def is_split_table(named: tuple[str, Table, str]) -> bool:
    """Return whether a table without names of columns says 0, 1 or 2 for train, val and test, as for CelebA."""
    name, table, file = named
    at = 1 - table.columns.index(file)
    values = {row[at] for row in islice(table.rows(), LOOKED_AT) if len(row) == 2}
    return bool(re.search(r"partition|split", name.rpartition("/")[2].lower())) and values <= {"0", "1", "2"}


def one_column(about: str, same: Sequence[tuple[str, Table, str]], names: ImageNames, column: str) -> Candidate:
    """Return the labels of one column."""
    values = (
        (name, row[table.columns.index(file)], row[table.columns.index(column)])
        for name, table, file in same
        for row in table.rows()
        if len(row) > max(table.columns.index(file), table.columns.index(column))
    )
    return match_rows(about, f"the column {column!r} of {about}", values, names, same)


def one_hot(about: str, same: Sequence[tuple[str, Table, str]], names: ImageNames, columns: Sequence[str]) -> Candidate:
    """Return the labels of columns of which one is 1 in each row, as Roboflow and ISIC write them."""
    values = []
    for name, table, file in same:
        at = [table.columns.index(column) for column in columns]
        rows = [row for row in table.rows() if len(row) == len(table.columns)]
        labels = one_hot_columns([[row[i] for i in at] for row in rows], columns)
        values += [(name, row[table.columns.index(file)], label) for row, label in zip(rows, labels, strict=True)]
    what = f"the {len(columns)} columns of {about} of which one is 1"
    return match_rows(about, what, values, names, same)


def match_rows(
    about: str,
    what: str,
    rows: Iterable[tuple[str, Any, Any]],
    names: ImageNames,
    same: Sequence[tuple[str, Table, str]],
) -> Candidate:
    """Return the labels of rows of (table, image, label)."""
    found, raw, gone = list[str](), list[Any](), list[str]()
    for table, cell, value in rows:
        for text in cells(cell):
            image = names.find(table, text)
            if image is None:
                gone.append(str(text))
            else:
                found.append(image)
                raw.append(value)
    labels, several = dict[str, str](), dict[str, str]()
    try:
        texts = column_labels(raw, what)
    except NoClassError as reason:
        raise RefusedError(str(reason)) from None
    for image, label in zip(found, texts, strict=True):
        if label is not None and labels.setdefault(image, label) != label:
            several.setdefault(image, f"{image}: {short(labels[image])} and {short(label)}")
    if several:
        raise RefusedError(
            f"{about} gives {count_images(len(several))} several labels ({first_few([*several.values()])}), "
            f"and an image has one class"
        )
    if why := why_no_class({*labels.values()}, len(labels)):
        raise RefusedError(f"the labels in {what} {why}")
    notes = split_tables([name for name, *_ in same])
    if gone:
        notes.append(f"{about} has {len(gone):,} names of no image, or of several: {first_few(gone)}")
    return Candidate(what, labels, notes, Counter(suffix_of(name) for name, *_ in same))


def split_tables(names: Sequence[str]) -> list[str]:
    """Return a line for tables that are named like splits, which do not divide the images."""
    held_out = [name for name in names if split_kind(name.rpartition("/")[2].partition(".")[0])]
    return [f"splits are read from folders, not from the names of tables: {first_few(held_out)}"] if held_out else []
