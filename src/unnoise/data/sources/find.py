"""`find` chooses the reader for any data that a user gives: a path, an address, a name, or images in memory."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from os.path import commonpath
from pathlib import Path
from typing import Any

from unnoise.data.sources.archive import read_tar, read_zip
from unnoise.data.sources.arrays import idx_in, read_idx, read_npy, read_npz
from unnoise.data.sources.folder import files_with_suffix, has_images, read_folder, training_split
from unnoise.data.sources.memory import is_in_memory, memory_source
from unnoise.data.sources.parquet import read_parquet
from unnoise.data.sources.remote import files_at, is_remote
from unnoise.data.sources.source import Source, is_image
from unnoise.data.sources.webdataset import read_shards
from unnoise.errors import InputError
from unnoise.files import refuse_dead_link
from unnoise.registry import dataset
from unnoise.run_folder import refuse_links_of_run

READERS: tuple[tuple[str, Callable[[Path], Source]], ...] = (
    (r"\.zip$", read_zip),
    (r"\.tar$", lambda path: replace(read_tar(path), groups=read_shards([path], path.stem).groups)),
    (r"\.(tgz|tar\.(gz|bz2|xz))$", read_tar),
    (r"\.npy$", read_npy),
    (r"\.npz$", read_npz),
    (r"[-.]ubyte(\.gz)?$|\.idx(\.gz)?$", read_idx),
    (r"\.(parquet|pq)$", lambda path: read_parquet([path], parquet_name(path))),
)
KINDS_OF_DATA = "a folder of images or tar shards, .zip, .tar, .tar.gz, .npy, .npz, IDX (-ubyte, -ubyte.gz) or .parquet"


def find(data: Any) -> Source:
    """Open a path, a built-in dataset by its spec such as `faces:count=5000`, or images in memory."""
    if is_in_memory(data):
        return memory_source(data)
    data = os.fsdecode(data)
    if not data.strip():
        raise InputError(f"no data given; give {KINDS_OF_DATA}, or a built-in dataset: {', '.join(dataset.names())}")
    if is_remote(data):
        return find_remote(data)
    try:
        path = Path(data).expanduser()
    except RuntimeError:  # ~NAME of a user who does not exist here
        path = Path(data)
    if path.is_dir():
        return find_in_folder(path)
    if path.exists():
        return find_in_file(path)
    if data.partition(":")[0].strip() in dataset.names():
        source: Source = dataset.get(data)()
        return source
    raise missing_data_error(data, path)


def parquet_name(table: Path) -> str:
    """Return the name of a dataset in one file; `train-00000-of-00001` says less than the name of its folder."""
    return table.resolve().parent.name if table.stem.startswith(("train", "test", "valid")) else table.stem


def find_in_folder(folder: Path) -> Source:
    """Read a folder of images, or of the files of one dataset in another format."""
    refuse_links_of_run(folder)
    idx = idx_in(folder)
    if idx is not None:
        return replace(read_idx(idx), name=folder.resolve().name)
    if not has_images(folder):
        if tables := files_with_suffix(folder, ".parquet"):
            return read_parquet(tables, folder.resolve().name)
        if shards := files_with_suffix(folder, ".tar"):
            return read_shards(shards, folder.resolve().name)
    return read_folder(folder)


def find_remote(url: str) -> Source:
    """Read parquet files or tar shards at an address."""
    files, name = files_at(url), url.rstrip("/").rpartition("/")[2]
    for suffix, reader in ((".parquet", read_parquet), (".tar", read_shards)):
        if found := [file for file in files if file.name.endswith(suffix)]:
            top = len(commonpath([file.path for file in found]))
            return reader(training_split([(file.path[top:], file) for file in found]), name)
    raise InputError(f"there are no .parquet and no .tar files at {url}")


def find_in_file(path: Path) -> Source:
    for pattern, reader in READERS:
        if re.search(pattern, path.name.lower()):
            return reader(path)
    if is_image(path.name):
        raise InputError(f"{str(path)!r} is one image; give the folder that holds it, or {KINDS_OF_DATA}")
    raise InputError(f"cannot tell what {str(path)!r} is; give {KINDS_OF_DATA}")


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
