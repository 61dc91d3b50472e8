"""The rules for classes: which columns are labels, which values name a class, and why others do not count."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from numbers import Integral, Real
from typing import Any

import numpy as np

from unnoise.errors import InputError, unknown
from unnoise.files import parse_json

LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "class_label",
    "class_name",
    "classname",
    "classes",
    "cls",
    "label_name",
    "label_text",
    "class_id",
    "class_idx",
    "label_id",
    "category",
    "category_name",
    "category_id",
    "fine_label",
    "target",
    "targets",
    "y",
)
NO_CLASSES = "no classes: "  # a note that starts so says why the labels of the data do not count
MAX_CLASS_NAME = 256  # characters; a longer text is a description
FEW_LABELS, MANY_LABELS = 20, 1_000  # beyond these numbers, classes have several images
MISSING = ("", "nan", "null", "<na>", "n/a")
DECIMAL = r"[-+]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][-+]?\d{1,3})?"
SHOWN = 5  # examples in a message


class NoClassError(ValueError):
    """Raised if a value names no class; the message says what the value is."""


def plain_name(column: Any) -> str:
    """Return the name of a column in lower case, with underscores."""
    return re.sub(r"[\s-]+", "_", str(column).strip().lower())


def label_columns(names: Iterable[str]) -> list[str]:
    """Return the columns that usually hold labels, the most usual first."""
    known = {plain_name(name): name for name in reversed([*names])}
    return [known[usual] for usual in LABEL_NAMES if usual in known]


def named_column(names: Sequence[str], wanted: str, where: str) -> str:
    """Return the column that the user names; raise InputError if there is none."""
    exact = (
        wanted if wanted in names else next((name for name in names if plain_name(name) == plain_name(wanted)), None)
    )
    if exact is None:
        raise unknown(f"label column in {where}", wanted, names)
    return exact


def label_text(value: Any) -> str | None:
    """Return the class that a value names, None if the value is missing; raise NoClassError if it is no class."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return list_label(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        if math.isnan(number):
            return None
        if not number.is_integer() or abs(number) > 2**53:
            raise NoClassError(f"a number with decimals ({number:g}), and classes are whole numbers or names")
        return str(int(number))
    raise NoClassError(f"of type {type(value).__name__}, and classes are whole numbers or names")


def list_label(values: Sequence[Any]) -> str | None:
    """Return the class of a list: its only value, or the place of the 1 in a row of zeros."""
    if len(values) <= 1:
        return label_text(values[0]) if values else None
    ones = [i for i, value in enumerate(values) if value == 1]
    if len(ones) == 1 and sum(value == 0 for value in values) == len(values) - 1:
        return str(ones[0])
    raise NoClassError(f"a list of {len(values)} labels ({first_few(values)}), and an image has one class")


def column_labels(values: Iterable[Any], what: str) -> list[str | None]:
    """Return the labels of a column; raise NoClassError, which names the column, if they are no classes."""
    try:
        texts = [label_text(text_value(value)) for value in values]
        present = {text for text in texts if text is not None}
        if present and all(re.fullmatch(DECIMAL, text) for text in present) and not all(map(is_whole, present)):
            whole = {text: label_text(float(text)) for text in sorted(present)}
            return [text and whole[text] for text in texts]
    except NoClassError as reason:
        raise NoClassError(f"{what} is {reason}") from None
    for mark in "|;,":
        joined = next((text for text in sorted(present) if mark in text and {*split_at(text, mark)} <= present), None)
        if joined:
            raise NoClassError(f"{what} holds several labels in one row ({short(joined)}), and an image has one class")
    return texts


def split_at(text: str, mark: str) -> list[str]:
    return [part.strip() for part in text.split(mark)]


def text_value(value: Any) -> Any:
    """Return the value that a text stands for: nothing, a list in JSON, or the text without blanks around it."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if value.lower() in MISSING:
        return None
    if value.startswith("[") and value.endswith("]"):
        try:
            return parse_json(value)
        except ValueError:
            raise NoClassError(f"a list ({short(value)}), and an image has one class") from None
    return value


def one_hot_columns(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> list[str]:
    """Return the name of the column that is 1 in each row; raise NoClassError if that is not one column."""
    labels = []
    for row in rows:
        try:
            place = list_label([float(value) for value in row])
        except (TypeError, ValueError):
            raise NoClassError("no row of zeros and a one") from None
        labels.append(columns[int(place or 0)])
    return labels


def are_ids(different: int, images: int) -> bool:
    """Return whether labels are ids or captions, by the number of different ones: a class has several images."""
    return different > FEW_LABELS and different > (0.9 if different <= MANY_LABELS else 0.5) * images > 0


def why_no_class(labels: Collection[str], images: int) -> str | None:
    """Return why the labels of these images are no classes, in the words after "the labels"; None if they are."""
    if not labels:
        return "are missing"
    if len(labels) == 1:
        return f"have only one value, {short(next(iter(labels)))}"
    if are_ids(len(labels), images):
        return f"have {len(labels):,} different values for {images:,} images, as ids or captions have"
    if long := next((label for label in labels if len(label) > MAX_CLASS_NAME), None):
        return f"are texts, such as {short(long)}"
    return None


def is_whole(label: str) -> bool:
    """Return whether a label is a whole number, of a length that can be one."""
    return bool(re.fullmatch(r"-?\d{1,256}", label, re.ASCII))


def first_few(values: Collection[Any]) -> str:
    """Return the first few values as text."""
    return join_first([short(value) for value in islice(values, SHOWN + 1)])


def join_first(texts: Sequence[str]) -> str:
    """Return the first few texts in a line, and dots if there are more."""
    return ", ".join(texts[:SHOWN]) + (", ..." if len(texts) > SHOWN else "")


def short(value: Any) -> str:
    """Return a value as text that fits into a line."""
    text = value if isinstance(value, str) else ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_no_column(column: str | None, kind: str) -> None:
    """Raise InputError if a label column is named for data that has no columns."""
    if column is not None:
        raise InputError(f"--label-column {column!r}: {kind}; leave it out")
