"""Tables beside images, as rows of values: CSV and its relatives, JSON, JSON lines, parquet, lists of `file label`."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from unnoise.data.sources.source import suffix_of
from unnoise.files import parse_json

MAX_TABLE_BYTES = 2**28
MAX_ROWS = 4_000_000
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
TEXT_TABLES = r"label|list|annotation|class|train|val|test|split"  # a .txt of another name is no table
TABLE_DAMAGE = (ValueError, RecursionError, csv.Error, OSError, KeyError, TypeError, NotImplementedError)
LOOKED_AT = 200  # rows that show what the columns are


class UnreadableTableError(ValueError):
    """Raised if a file is no table; the message says why."""


class Table(NamedTuple):
    """Rows of values below named columns."""

    columns: list[str]
    rows: Callable[[], Iterator[Sequence[Any]]]  # a fresh pass over the rows each call
    header: bool = True  # the file names its columns


def may_be_table(name: str) -> bool:
    """Return whether a file may be a table of labels, by its name."""
    base = name.rpartition("/")[2].lower()
    if "submission" in base:  # a form of Kaggle, with the same label in every row
        return False
    return suffix_of(base) in TABLE_SUFFIXES or (base.endswith(".txt") and bool(re.search(TEXT_TABLES, base)))


def read_table(name: str, content: bytes, is_image: Callable[[str], bool]) -> Table:
    """Read a table; `is_image` tells the name of an image of the set from the name of a column."""
    suffix = suffix_of(name)
    check_rows(content, suffix)
    try:
        if suffix == ".parquet":
            return parquet_table(content)
        text = decode_text(content)
        if suffix == ".json":
            return json_table(parse_json(text))
        if suffix in (".jsonl", ".ndjson"):
            return records_table(lambda: (parse_json(line) for line in io.StringIO(text) if line.strip()))
        return delimited_table(text, is_image, spaces=suffix == ".txt")
    except UnreadableTableError:
        raise
    except TABLE_DAMAGE as error:
        raise UnreadableTableError(f"cannot be read ({describe(error)})") from None


def describe(error: Exception) -> str:
    """Return the first line of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def check_rows(content: bytes, suffix: str) -> None:
    """Raise UnreadableTableError if a table would take too much memory."""
    if len(content) > MAX_TABLE_BYTES:
        raise UnreadableTableError(f"is larger than {MAX_TABLE_BYTES >> 20} MiB")
    lists = content.count(b"[") + content.count(b"{") if suffix == ".json" else 0
    if suffix != ".parquet" and max(content.count(b"\n"), lists) > MAX_ROWS:
        raise UnreadableTableError(f"has more than {MAX_ROWS:,} rows")


def decode_text(content: bytes) -> str:
    """Return the text of a file: UTF-8, UTF-16 with its mark, or else the code page of Windows."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def delimited_table(text: str, is_image: Callable[[str], bool], *, spaces: bool) -> Table:
    """Read CSV with any usual delimiter, or lines of `file label`; the first line may name the columns."""
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    counts = {mark: first.count(mark) for mark in ",;\t|"}
    mark = max(counts, key=lambda mark: counts[mark])
    if spaces and not counts[mark]:
        rows: Callable[[], Iterator[list[str]]] = lambda: (split_last(line) for line in io.StringIO(text))  # noqa: E731
    else:
        rows = lambda: csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True)  # noqa: E731

    def filled() -> Iterator[list[str]]:
        return ([cell.strip() for cell in row] for row in rows() if any(map(str.strip, row)))

    head = next(filled(), [])
    if not any(map(is_image, head)):
        return Table(unique_names(head), lambda: islice(filled(), 1, None))
    return Table([f"column {i + 1}" for i in range(len(head))], filled, header=False)


def split_last(line: str) -> list[str]:
    """Return the words before the last blank, and the word after it."""
    words = line.strip().rsplit(None, 1)
    return words if len(words) == 2 else [*words, ""]


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names of columns; a column without a name, or with one that is taken, gets its number."""
    return [name if name and name not in names[:i] else f"column {i + 1}" for i, name in enumerate(names)]


def records_table(records: Callable[[], Iterator[Any]]) -> Table:
    """Return the table of records; the first rows name the columns."""
    some = [*islice(records(), LOOKED_AT)]
    if not some or not all(isinstance(record, dict) for record in some):
        raise UnreadableTableError("is no list of records")
    columns = [*dict.fromkeys(str(key) for record in some for key in record)]
    return Table(
        columns, lambda: ([record.get(key) for key in columns] for record in records() if type(record) is dict)
    )


def pairs_table(pairs: Sequence[Sequence[Any]]) -> Table:
    return Table(["file_name", "label"], lambda: iter(pairs))


def json_table(found: Any) -> Table:
    """Return the table of a JSON file: EDM's dataset.json, COCO, records, columns, pairs, or {file: label}."""
    if isinstance(found, list):
        pairs = found and all(isinstance(pair, list) and len(pair) == 2 for pair in found)
        return pairs_table(found) if pairs else records_table(lambda: iter(found))
    if not isinstance(found, dict) or not found:
        raise UnreadableTableError("is no list of records")
    if "labels" in found and found["labels"] is None:
        raise UnreadableTableError("says that there are no labels (null)")
    if {"images", "annotations", "categories"} <= found.keys():
        return coco_table(found)
    if columns := columns_of(found):
        return Table([*found], lambda: zip(*columns, strict=True))
    for part in found.values():
        if isinstance(part, list) and part and isinstance(part[0], list | dict):
            return json_table(part)
    found = found["labels"] if isinstance(found.get("labels"), dict) else found
    if any(isinstance(value, dict) for value in found.values()):
        raise UnreadableTableError("is no list of records")
    return pairs_table([*found.items()])


def columns_of(found: dict[str, Any]) -> list[list[Any]]:
    """Return the columns of {"file_name": [...], "label": [...]}, or of what pandas writes, with row numbers."""
    columns = [[*column.values()] if isinstance(column, dict) else column for column in found.values()]
    alike = all(isinstance(column, list) for column in columns) and len({*map(len, columns)}) == 1
    return columns if len(columns) > 1 and alike else []


def coco_table(found: dict[str, Any]) -> Table:
    """Return the name of the category of each annotation of a COCO file."""
    files = {image["id"]: image["file_name"] for image in found["images"]}
    names = {category["id"]: category["name"] for category in found["categories"]}
    return pairs_table([(files[one["image_id"]], names[one["category_id"]]) for one in found["annotations"]])


def parquet_table(content: bytes) -> Table:
    """Return the table of a parquet file without images."""
    try:
        import pyarrow.parquet as pq  # noqa: PLC0415 - an optional extra that takes its time to load
    except ImportError:
        raise UnreadableTableError("needs pyarrow: pip install 'unnoise[parquet]'") from None
    file = pq.ParquetFile(io.BytesIO(content))
    if file.metadata.num_rows > MAX_ROWS:
        raise UnreadableTableError(f"has more than {MAX_ROWS:,} rows")

    def rows() -> Iterator[Sequence[Any]]:
        for batch in file.iter_batches(1024, use_threads=False):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    return Table([*file.schema_arrow.names], rows)
