"""Arrow files, as `save_to_disk` of Hugging Face datasets writes them: tables with the columns of parquet files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from unnoise.data.sources.features import info_files
from unnoise.data.sources.parquet import PARQUET_DAMAGE, READ_AT_ONCE, Columns, choose_columns, parquet_item
from unnoise.data.sources.source import Item, Source, column_key, explain_damage, file_key
from unnoise.errors import InputError
from unnoise.files import parse_json

STATE, CACHED = "state.json", "cache-"  # of a saved dataset; files that `map` and `filter` leave
ARROW_FILE = b"ARROW1"  # the first bytes of a file; without them it is a stream of batches


def read_arrow(paths: Sequence[Path], name: str, column: str | None = None) -> Source:
    """Turn Arrow files into a source, by the schema of the first file."""
    try:
        import pyarrow.ipc  # noqa: F401, PLC0415 - an optional extra that takes its time to load
    except ImportError:
        raise InputError("reading Arrow files needs pyarrow: pip install 'unnoise[parquet]'") from None
    count, columns = 0, None
    for path in paths:
        with open_arrow(path) as (schema, batches):
            columns = columns or choose_columns(schema, path, column, partial(all_values, paths))
            count += sum(batch.num_rows for batch in batches)
    if columns is None:
        raise InputError(f"no Arrow files in {name!r}")
    key, items = column_key(file_key(*paths, *info_files(paths[0])), column), partial(arrow_items, paths, columns)
    return Source(name, key, items, count, {}, columns.classes, notes=columns.notes)


def listed_files(tables: Sequence[tuple[str, Path]]) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return the files of saved datasets, and the names of others: `state.json` lists the files of its folder."""
    kept, left, listed = list[tuple[str, Path]](), list[str](), dict[Path, set[str]]()
    for name, path in tables:
        folder = path.parent
        if folder not in listed:
            listed[folder] = set()
            with suppress(OSError, ValueError, TypeError, KeyError):
                state = parse_json((folder / STATE).read_bytes())
                listed[folder] = {str(file["filename"]) for file in state["_data_files"]}
        if path.name.startswith(CACHED) or (listed[folder] and path.name not in listed[folder]):
            left.append(name)
        else:
            kept.append((name, path))
    return (kept, left) if kept else ([*tables], [])


def all_values(paths: Sequence[Path], column: str) -> Iterator[Any]:
    """Yield the values of one column of all files."""
    for path in paths:
        with open_arrow(path) as (_, batches):
            for batch in batches:
                values = batch.column(column)
                values.validate(full=True)
                yield from values.to_pylist()


@contextmanager
def open_arrow(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Open one file, mapped into memory; return its schema and its batches."""
    import pyarrow as pa  # noqa: PLC0415

    with explain_damage(path, PARQUET_DAMAGE), pa.memory_map(str(path)) as mapped:
        if mapped.read(len(ARROW_FILE)) == ARROW_FILE:
            with pa.ipc.open_file(mapped) as file:
                yield file.schema, map(file.get_batch, range(file.num_record_batches))
        else:
            mapped.seek(0)
            with pa.ipc.open_stream(mapped) as stream:
                yield stream.schema, iter(stream)


def arrow_items(paths: Sequence[Path], columns: Columns) -> Iterator[Item]:
    """Yield the items of all files."""
    wanted = [columns.image, columns.label] if columns.label else [columns.image]
    for path in paths:
        row, prefix = 0, f"{path.name} " if len(paths) > 1 else ""
        with open_arrow(path) as (_, batches):
            for batch in batches:
                chosen = batch.select(wanted)
                for begin in range(0, chosen.num_rows, READ_AT_ONCE):
                    some = chosen.slice(begin, READ_AT_ONCE)
                    some.validate(full=True)  # Arrow itself trusts the offsets in a file, and would read other memory
                    for record in some.to_pylist():
                        yield parquet_item(record, columns, f"{prefix}row {row}")
                        row += 1
