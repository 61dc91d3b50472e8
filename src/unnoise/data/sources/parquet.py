"""Parquet files in the Hugging Face layout: a column of encoded images, and perhaps a column of labels."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from unnoise.data.sources.remote import Place, Remote
from unnoise.data.sources.source import (
    ITEM_BYTES,
    Broken,
    Group,
    Groups,
    Item,
    Source,
    class_names,
    explain_damage,
    file_key,
)
from unnoise.errors import InputError
from unnoise.files import parse_json
from unnoise.progress import Report

MAX_GROWTH, GROWN_BYTES = 20, 2**18  # encoded images do not shrink when they are packed
READ_AT_ONCE = 64  # read at a time; encoded images are small
IMAGE_NAMES = ("image", "img", "images")
LABEL_NAMES = ("label", "labels", "class", "fine_label", "target", "y")
PARQUET_DAMAGE = (ValueError, OSError, KeyError, NotImplementedError)  # what pyarrow's errors are underneath


class Columns(NamedTuple):
    """The columns that hold images and labels."""

    image: str
    nested: bool  # a struct with a field `bytes`, else plain bytes
    label: str | None
    classes: tuple[str, ...] | None


def read_parquet(paths: Sequence[Place], name: str) -> Source:
    """Turn parquet files into a source, by the schema of the first file and the numbers of rows of all."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - an optional extra that takes its time to load
    except ImportError:
        raise InputError("reading parquet needs pyarrow: pip install 'unnoise[parquet]'") from None
    count, columns = 0, None
    for path in paths:
        with open_parquet(path) as file:
            count += file.metadata.num_rows
            columns = columns or choose_columns(file.schema_arrow, path)
    if columns is None:
        raise InputError(f"no parquet files in {name!r}")
    return Source(
        name,
        file_key(*paths),
        partial(parquet_items, paths, columns),
        count,
        {},
        columns.classes,
        partial(parquet_groups, paths, columns),
    )


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


def choose_columns(schema: Any, path: Place) -> Columns:
    """Pick the image and the label column; ClassLabel names come from the Hugging Face metadata."""
    features = features_of(schema)
    image = first_fitting(schema.names, IMAGE_NAMES, lambda name: holds_bytes(schema.field(name).type))
    if image is None:
        raise InputError(f"no column of images in {str(path)!r}; its columns are {', '.join(schema.names)}")
    named = [key for key, feature in features.items() if feature.get("_type") == "ClassLabel" and key in schema.names]
    label = first_fitting(named, LABEL_NAMES, lambda _: True)
    label = label or next((name for name in LABEL_NAMES if name in schema.names and is_label(schema, name)), None)
    names = features.get(label or "", {}).get("names")
    return Columns(image, is_struct(schema.field(image).type), label, tuple(map(str, names)) if names else None)


def features_of(schema: Any) -> dict[str, dict[str, Any]]:
    """Return the `features` of the metadata, nothing if they are missing or have another shape."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {key: value for key, value in features.items() if isinstance(value, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


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
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_label(schema: Any, name: str) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    kind = schema.field(name).type
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def parquet_items(paths: Sequence[Place], columns: Columns) -> Iterator[Item]:
    for path in paths:
        yield from read_rows(path, columns, None, 0, several=len(paths) > 1)


def read_rows(path: Place, columns: Columns, group: int | None, first: int, *, several: bool) -> Iterator[Item]:
    """Yield the items of one row group, or of all; the number of the first row is `first`."""
    wanted = [columns.image, columns.label] if columns.label else [columns.image]
    with open_parquet(path) as file:
        groups = range(file.num_row_groups) if group is None else [group]
        row = first
        at_once = 1 if grows(file) else READ_AT_ONCE
        for batch in file.iter_batches(at_once, row_groups=groups, columns=wanted, use_threads=False):
            for record in batch.to_pylist():
                yield parquet_item(record, columns, f"{path.name} row {row}" if several else f"row {row}")
                row += 1


def grows(file: Any) -> bool:
    """Return whether a file is small and unpacks to much: 64 rows may all be the same large value, stored once."""
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
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
    return [None if value is None else str(value) for value in values]


def parquet_item(record: dict[str, Any], columns: Columns, name: str) -> Item:
    image = record[columns.image]
    content = image.get("bytes") if columns.nested and image else image
    label = record[columns.label] if columns.label else None
    if isinstance(label, int) and columns.classes:  # -1 is Hugging Face's "no label"
        label = columns.classes[label] if 0 <= label < len(columns.classes) else None
    return Item(name, content or Broken(b"no image in this row"), None if label is None else str(label))
