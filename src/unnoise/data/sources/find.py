"""`find` chooses the reader for any data that a user gives: a path, an address, a name, or images in memory."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from itertools import islice
from os.path import commonpath
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from unnoise.data.sources.archive import read_tar, read_zip
from unnoise.data.sources.array_folder import read_arrays
from unnoise.data.sources.arrays import idx_images, read_idx, read_npy
from unnoise.data.sources.arrow import listed_files, read_arrow
from unnoise.data.sources.classes import check_no_column, join_first
from unnoise.data.sources.container import TAR_SUFFIXES, container_kind, image_format, refuse_by_name, words_for
from unnoise.data.sources.container_folder import find_containers
from unnoise.data.sources.folder import files_with_suffix, has_images, image_paths, read_folder, size_of, walk_files
from unnoise.data.sources.layout import split_kind
from unnoise.data.sources.memory import is_in_memory, memory_source
from unnoise.data.sources.npz import read_npz
from unnoise.data.sources.parquet import has_image_column, read_parquet
from unnoise.data.sources.remote import files_at, is_remote
from unnoise.data.sources.source import Source, is_image
from unnoise.data.sources.splits import Notes, read_splits, split_files, split_of_file
from unnoise.data.sources.webdataset import read_shards
from unnoise.errors import InputError
from unnoise.files import refuse_dead_link
from unnoise.options import short_repr
from unnoise.registry import dataset
from unnoise.run_folder import refuse_links_of_run


def read_plain_tar(path: Path, column: str | None) -> Source:
    """Read a tar file, which can be streamed as a shard can."""
    whole, shard = read_tar(path, column), read_shards([path], path.stem, column)
    return replace(whole, groups=shard.groups, notes=Notes(whole.notes, shard.notes))


READERS: dict[str, Callable[[Path, str | None], Source]] = {  # the text names the column of labels
    "zip": read_zip,
    "tar": read_plain_tar,
    "compressed tar": partial(read_tar, compressed=True),
    "npy": read_npy,
    "npz": read_npz,
    "idx": read_idx,
    "parquet": lambda path, column: read_parquet([path], parquet_name(path), column),
    "arrow": lambda path, column: read_arrow([path], parquet_name(path), column),
}
SUFFIXES = (  # if the first bytes do not tell: an empty or damaged file
    (r"\.zip$", "zip"),
    (r"\.tar$", "tar"),
    (r"\.(tgz|tbz2|txz|tar\.(gz|bz2|xz))$", "compressed tar"),
    (r"\.npy$", "npy"),
    (r"\.npz$", "npz"),
    (r"[-.]ubyte(\.gz)?$|\.idx(\.gz)?$", "idx"),
    (r"\.(parquet|pq)$", "parquet"),
    (r"\.arrow$", "arrow"),
)
MAX_STRAYS, STRAY_SHARE = 10, 10  # images beside tables or archives, and how much larger those are
KINDS_OF_DATA = "a folder of images or tar shards, .zip, .tar, .tar.gz, .npy, .npz, IDX (-ubyte, -ubyte.gz) or .parquet"


def find(data: Any, column: str | None = None) -> Source:
    """Open a path, a built-in dataset by its spec such as `faces:count=5000`, or images in memory.

    The column is the name of the column, field or array of labels, if the user gives it.
    """
    if is_in_memory(data):
        return memory_source(data, column)
    data = os.fsdecode(data)
    if not data.strip():
        raise InputError(f"no data given; give {KINDS_OF_DATA}, or a built-in dataset: {', '.join(dataset.names())}")
    if data.startswith("file://"):
        data = path_of_address(data)
    if is_remote(data):
        return find_remote(data, column)
    try:
        path = Path(data).expanduser()
    except (RuntimeError, ValueError):  # ~NAME of a user who does not exist here, or a null character
        path = Path(data)
    if path.is_dir():
        return replace(find_in_folder(path, column), origin=str(path.absolute()))
    if path.exists():
        return replace(find_in_file(path, column), origin=str(path.absolute()))
    if data.partition(":")[0].strip() in dataset.names():
        check_no_column(column, "a built-in dataset has no columns")
        source: Source = dataset.get(data)()
        return source
    raise missing_data_error(data, path)


def path_of_address(address: str) -> str:
    """Return the path of a `file://` address; raise InputError if it names another machine, or a path from here."""
    try:
        parts = urlsplit(address)
        if parts.netloc in ("", "localhost") and parts.path:
            return url2pathname(parts.path)
    except ValueError:  # brackets that are no address of a machine
        pass
    raise InputError(
        f"{short_repr(address)} is no address of a file here: write file:///FOLDER from the root, or the path alone"
    )


def parquet_name(table: Path) -> str:
    """Return the name of a dataset in one file; `train-00000-of-00001` says less than the name of its folder."""
    return table.resolve().parent.name if table.stem.startswith(("train", "test", "valid")) else table.stem


def find_in_folder(folder: Path, column: str | None = None) -> Source:
    """Read a folder of images, or of the files of one dataset in another format."""
    refuse_links_of_run(folder)
    name = folder.resolve().name
    if idx := idx_images(path for path in folder.iterdir() if path.is_file()):
        check_no_column(column, "IDX files have no columns")
        return find_idx(idx, folder, name)
    found = find_beside_strays(folder, name, column) if has_images(folder) else find_tables(folder, name, column)
    return found or read_folder(folder, column)


def find_beside_strays(folder: Path, name: str, column: str | None) -> Source | None:
    """Read the tables or archives next to a few small images, such as the banner of a page; None if there are none."""
    images = [*islice(image_paths(folder), MAX_STRAYS + 1)]
    data = [path for _, path in files_with_suffix(folder, ".parquet", ".arrow", ".zip", *TAR_SUFFIXES)]
    if not data or len(images) > MAX_STRAYS:
        return None
    sizes = [sum(size_of(path) or 0 for path in paths) for paths in (images, data)]
    with suppress(InputError):  # they are the labels of the images, or something else
        if sizes[1] > STRAY_SHARE * sizes[0] and (found := find_tables(folder, name, column)):
            left = join_first([str(path.relative_to(folder)) for path in images])
            note = f"left out {len(images):,} images next to files of more data: {left}"
            return replace(found, notes=Notes([note], found.notes))
    return None


def find_idx(files: Sequence[Path], folder: Path, name: str) -> Source:
    """Read IDX images with the images of their test split; raise InputError if there are several sets."""
    named = [(str(path.relative_to(folder)), path) for path in files]
    train, held_out, _ = split_files(named)
    if len(train) > 1 or len(held_out) > 1:
        raise InputError(f"{len(files)} sets of IDX images in {str(folder)!r}; give one file: {some_names(named)}")
    return replace(read_splits(named, lambda some: read_idx(some[0])), name=name)


def some_names(named: Sequence[tuple[str, Any]]) -> str:
    """Return the first few names."""
    return join_first([name for name, _ in named])


def find_tables(folder: Path, name: str, column: str | None) -> Source | None:
    """Read the tables, shards or arrays below a folder; None if there are none.

    Parquet files without images are the metadata of the shards next to them, as img2dataset writes them.
    """
    if arrow := files_with_suffix(folder, ".arrow"):
        return find_arrow(arrow, folder, name, column)
    tables, shards = files_with_suffix(folder, ".parquet"), files_with_suffix(folder, *TAR_SUFFIXES)
    if tables and not (shards and not has_image_column(tables[0][1])):
        check_configurations(tables, folder)
        return read_splits(tables, partial(read_parquet, name=name, column=column))
    if shards:
        return read_splits(shards, partial(read_shards, name=name, column=column))
    if idx := idx_images(walk_files(folder)):
        check_no_column(column, "IDX files have no columns")
        return find_idx(idx, folder, name)
    arrays = files_with_suffix(folder, ".npy")
    if len(arrays) > 1:
        return read_arrays(arrays, name, column)
    return find_containers(folder, name, partial(find_in_file, column=column))


def find_arrow(files: Sequence[tuple[str, Path]], folder: Path, name: str, column: str | None) -> Source:
    """Read the Arrow files of one saved dataset, or of its splits."""
    tables, left = listed_files(files)
    check_configurations([table for table in tables if split_of_file(table[0]) is not None] or tables, folder)
    source = read_splits(tables, partial(read_arrow, name=name, column=column))
    notes = [f"left out files that are no part of the saved dataset: {join_first(left)}"] if left else []
    return replace(source, notes=Notes(source.notes, notes))


def check_configurations(tables: Sequence[tuple[str, Any]], folder: Path) -> None:
    """Raise InputError if folders next to each other hold files of the same names: each is a dataset by itself."""
    holders = defaultdict[str, list[str]](list)
    for name, _ in tables:
        above, _, file = name.replace("\\", "/").rpartition("/")
        holders[file].append(above)
    several = max(holders.values(), key=len)
    outside = {split_free(above) for above in several}
    if len(outside) > 1 and not all("=" in above for above in several):
        names = join_first(sorted(outside))
        raise InputError(f"{len(outside)} datasets in {str(folder)!r}: {names}; give the folder of one of them")


def split_free(path: str) -> str:
    """Return a path without the folders that are splits."""
    return "/".join(part for part in path.split("/") if split_kind(part) is None)


def find_remote(url: str, column: str | None = None) -> Source:
    """Read parquet files or tar shards at an address."""
    files, name = files_at(url), url.rstrip("/").rpartition("/")[2]
    for suffixes, reader in (((".parquet",), read_parquet), (TAR_SUFFIXES, read_shards)):
        if found := [file for file in files if file.name.lower().endswith(suffixes)]:
            top = len(commonpath([file.path for file in found]))
            return read_splits([(file.path[top:], file) for file in found], partial(reader, name=name, column=column))
    raise InputError(f"there are no .parquet and no .tar files at {url}")


def find_in_file(path: Path, column: str | None = None) -> Source:
    """Read one file by what its first bytes say, or else by its suffix."""
    kind = container_kind(path)
    if kind is None and (is_image(path.name) or image_format(path)):
        raise InputError(f"{str(path)!r} is one image; give the folder that holds it, or {KINDS_OF_DATA}")
    named = next((kind for pattern, kind in SUFFIXES if re.search(pattern, path.name.lower())), None)
    if kind is None and named is None:
        refuse_by_name(path)
        raise InputError(f"{str(path)!r} is {words_for(path)}; unnoise reads {KINDS_OF_DATA}")
    return READERS[kind or named or ""](path, column)


def missing_data_error(data: str, path: Path) -> InputError:
    """Name a built-in dataset, or a file of the same folder, that the user may have meant."""
    refuse_dead_link(path)
    builtin = dataset.names()
    siblings = [str(near.relative_to(path.parent)) for near in path.parent.iterdir()] if path.parent.is_dir() else []
    beside = get_close_matches(path.name, siblings, n=1, cutoff=0.6)
    close = get_close_matches(data.partition(":")[0], builtin, n=1, cutoff=0.6)
    near = close or [str(path.parent / name) for name in beside]
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"no data at {data!r}; {hint}Give {KINDS_OF_DATA}, or a built-in dataset: {', '.join(builtin)}")
