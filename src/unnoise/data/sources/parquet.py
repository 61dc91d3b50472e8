"""Parquet files in the Hugging Face layout: a column of encoded images, and perhaps a column of labels."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from unnoise.data.sources.classes import (
    NO_CLASSES,
    NoClassError,
    column_labels,
    first_few,
    label_columns,
    label_text,
    named_column,
)
from unnoise.data.sources.features import declared_features, info_files
from unnoise.data.sources.remote import Place, Remote
from unnoise.data.sources.source import (
    ITEM_BYTES,
    Broken,
    Group,
    Groups,
    Item,
    Source,
    class_names,
    column_key,
    explain_damage,
    file_key,
)
from unnoise.errors import InputError
from unnoise.progress import Report

MAX_GROWTH, GROWN_BYTES = 20, 2**18  # encoded images do not shrink when they are packed
READ_AT_ONCE = 64  # read at a time; encoded images are small
IMAGE_NAMES = ("image", "img", "images")
PARQUET_DAMAGE = (ValueError, OSError, KeyError, NotImplementedError)  # what pyarrow's errors are underneath


class Columns(NamedTuple):
    """The columns that hold images and labels."""

    image: str
    nested: bool  # a struct with a field `bytes`, else plain bytes
    label: str | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def read_parquet(paths: Sequence[Place], name: str, column: str | None = None) -> Source:
    """Turn parquet files into a source, by the schemas and the numbers of rows of all; `column` names the labels."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - an optional extra that takes its time to load
    except ImportError:
        raise InputError("reading parquet needs pyarrow: pip install 'unnoise[parquet]'") from None
    count, schemas = 0, list[Any]()
    for path in paths:
        with open_parquet(path) as file:
            count += file.metadata.num_rows
            schemas.append(file.schema_arrow)
    if not schemas:
        raise InputError(f"no parquet files in {name!r}")
    columns = choose_columns(schemas[0], paths[0], column, partial(all_values, paths))
    check_schemas(schemas, paths, columns)
    return Source(
        name,
        column_key(file_key(*paths, *info_files(paths[0])), column),
        partial(parquet_items, paths, columns),
        count,
        {},
        columns.classes,
        partial(parquet_groups, paths, columns),
        notes=columns.notes,
    )


def all_values(paths: Sequence[Place], column: str) -> Iterator[Any]:
    """Yield the values of one column of all files."""
    for path in paths:
        with open_parquet(path) as file:
            for batch in file.iter_batches(columns=[column], use_threads=False):
                yield from batch.column(0).to_pylist()


def check_schemas(schemas: Sequence[Any], paths: Sequence[Place], columns: Columns) -> None:
    """Raise InputError if a file has no such columns, or other classes: it belongs to another dataset."""
    for schema, path in zip(schemas, paths, strict=True):
        missing = [name for name in (columns.image, columns.label) if name and name not in schema.names]
        classes = declared_features(schema, path).get(columns.label or "", {}).get("names")
        other = columns.classes and classes and tuple(map(str, classes)) != columns.classes
        if missing or other:
            what = f"no column {missing[0]!r}" if missing else f"other classes ({first_few(classes or ())})"
            raise InputError(f"{str(path)!r} has {what}, unlike {str(paths[0])!r}; give the files of one dataset alone")


@contextmanager
def open_parquet(path: Place) -> Iterator[Any]:
    """Open one file; damage becomes an InputError of one line."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    with (
        explain_damage(path, PARQUET_DAMAGE),
        path.open("rb") if isinstance(path, Remote) else nullcontext(path) as place,
        pq.ParquetFile(place, pre_buffer=False) as file,
    ):
        yield file


def has_image_column(path: Place) -> bool:
    """Return whether a file has a column of images; without pyarrow, which reading needs, assume that it has."""
    try:
        with open_parquet(path) as file:
            return bool(choose_columns(file.schema_arrow, path).image)
    except ImportError:
        return True
    except InputError:
        return False


def choose_columns(
    schema: Any, path: Place, wanted: str | None = None, read: Callable[[str], Iterable[Any]] | None = None
) -> Columns:
    """Pick the image and the label column; ClassLabel names come from the Hugging Face metadata.

    Args:
        schema: The columns of the file.
        path: The file, for messages.
        wanted: The label column, if the user names it.
        read: Return the values of a column. Numbers with a point and lists can be labels only by their values.
    """
    images = [name for name in schema.names if holds_bytes(schema.field(name).type)]
    image = first_fitting(images, IMAGE_NAMES, lambda _: True)
    if image is None:
        urls = any(name.lower() in ("url", "image_url") for name in schema.names)
        fix = "; download the images of its addresses first, for example with img2dataset" if urls else ""
        raise InputError(f"no column of images in {str(path)!r}; its columns are {', '.join(schema.names)}{fix}")
    others = [name for name in schema.names if name not in images]
    label, notes = choose_label(schema, path, others, wanted, read)
    if len(images) > 1:
        left = ", ".join(name for name in images if name != image)
        notes.append(f"the images are the column {image!r}; not used: {left}")
    names = declared_features(schema, path).get(label or "", {}).get("names")
    nested = is_struct(schema.field(image).type)
    return Columns(image, nested, label, tuple(map(str, names)) if names else None, tuple(notes))


def choose_label(
    schema: Any, path: Place, others: Sequence[str], wanted: str | None, read: Callable[[str], Iterable[Any]] | None
) -> tuple[str | None, list[str]]:
    """Return the label column, None if there is none, and lines for the user."""
    features = declared_features(schema, path)
    declared = [name for name in others if features.get(name, {}).get("_type") == "ClassLabel"]
    usual = [*dict.fromkeys([*label_columns(declared), *declared, *label_columns(others)])]
    named = [named_column(others, wanted, repr(str(path)))] if wanted is not None else usual
    reasons = list[str]()
    for name in named:
        reason = why_no_label(schema.field(name).type, name, read)
        if reason is None:
            more = [other for other in named if other != name]
            also = [f"the classes are the column {name!r}; for {', '.join(more)} give --label-column"] if more else []
            return name, also
        reasons.append(reason)
    if wanted is not None:
        raise InputError(f"--label-column {wanted!r}: {reasons[0]}")
    if others and not named:
        reasons = [
            f"the columns beside the images are {first_few(others)}; none is a label: name one with --label-column"
        ]
    return None, [NO_CLASSES + reason for reason in reasons]


def why_no_label(kind: Any, name: str, read: Callable[[str], Iterable[Any]] | None) -> str | None:
    """Return why a column of this type is no label; None if it is one."""
    from pyarrow import types  # noqa: PLC0415

    kind = kind.value_type if types.is_dictionary(kind) else kind
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    if any(fits(kind) for fits in (types.is_integer, types.is_boolean, types.is_null, *texts)):
        return None
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    if read is None or not any(fits(kind) for fits in (types.is_floating, *lists)):
        return f"the column {name!r} is of type {kind}, and classes are whole numbers or names"
    try:
        column_labels(read(name), f"the column {name!r}")
    except NoClassError as reason:
        return str(reason)
    return None


def first_fitting(names: Sequence[str], preferred: Sequence[str], fits: Any) -> str | None:
    """Return the first name that fits, the usual names before the others."""
    ordered = [name for name in preferred if name in names] + list(names)
    return next((name for name in ordered if fits(name)), None)


def is_struct(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_struct(kind))


def holds_bytes(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_struct(kind):
        return any(part.name == "bytes" and holds_bytes(part.type) for part in kind)
    if pa.types.is_dictionary(kind):
        return holds_bytes(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def parquet_items(paths: Sequence[Place], columns: Columns) -> Iterator[Item]:
    for path in paths:
        yield from read_rows(path, columns, None, 0, several=len(paths) > 1)


def read_rows(path: Place, columns: Columns, group: int | None, first: int, *, several: bool) -> Iterator[Item]:
    """Yield the items of one row group, or of all; the number of the first row is `first`."""
    wanted = [columns.image, columns.label] if columns.label else [columns.image]
    with open_parquet(path) as file:
        groups = range(file.num_row_groups) if group is None else [group]
        row = first
        at_once = 1 if any(grows(file.metadata.row_group(i)) for i in groups) else READ_AT_ONCE
        for batch in file.iter_batches(at_once, row_groups=groups, columns=wanted, use_threads=False):
            for record in batch.to_pylist():
                yield parquet_item(record, columns, f"{path.name} row {row}" if several else f"row {row}")
                row += 1


def grows(group: Any) -> bool:
    """Return whether a row group is small and unpacks to much: 64 rows may all be the same value, stored once."""
    columns = [group.column(i) for i in range(group.num_columns)]
    packed = sum(column.total_compressed_size for column in columns)
    return bool(sum(column.total_uncompressed_size for column in columns) > MAX_GROWTH * packed + GROWN_BYTES)


def parquet_groups(paths: Sequence[Place], columns: Columns, progress: Report) -> Groups:
    """Return the row groups of all files; only the columns of labels are read for it."""
    each, labels = list[Group](), Counter[str | None]()
    for i, path in enumerate(paths):
        progress("reading labels", i, len(paths))
        with open_parquet(path) as file:
            first = 0
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                items = partial(read_rows, path, columns, group, first, several=len(paths) > 1)
                named = read_labels(file, columns, group)
                labels.update(named)
                mark = hashlib.sha256(ascii((path.name, about.num_rows, about.total_byte_size, named)).encode())
                size = about.total_byte_size + ITEM_BYTES * about.num_rows
                each.append(Group(about.num_rows, items, mark.hexdigest(), size))
                first += about.num_rows
    progress("reading labels", len(paths), len(paths))
    return Groups(each, columns.classes or class_names(labels))


def read_labels(file: Any, columns: Columns, group: int) -> list[str | None]:
    """Return the labels of a row group, without reading its images."""
    if not columns.label:
        return []
    if columns.label not in file.schema_arrow.names:
        raise ValueError(f"no column {columns.label} in it")
    values = file.read_row_group(group, columns=[columns.label], use_threads=False).column(0).to_pylist()
    return [label_text(value) for value in values]


def parquet_item(record: dict[str, Any], columns: Columns, name: str) -> Item:
    image = record[columns.image]
    content = image.get("bytes") if columns.nested and image else image
    label = record[columns.label] if columns.label else None
    if isinstance(label, int) and columns.classes:  # -1 is Hugging Face's "no label"
        label = columns.classes[label] if 0 <= label < len(columns.classes) else None
    return Item(name, content or missing_image(image), label_text(label))


def missing_image(image: Any) -> Broken:
    """Return why a row has no image."""
    path = image.get("path") if isinstance(image, dict) else None
    return Broken(f"its row holds only the path {str(path)[:200]!r}".encode() if path else b"no image in this row")
