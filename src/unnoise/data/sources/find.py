"""From what the user typed to a source of images."""

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
from unnoise.data.sources.folder import files_in, images_below, read_folder, training
from unnoise.data.sources.memory import is_in_memory, memory_source
from unnoise.data.sources.parquet import read_parquet
from unnoise.data.sources.remote import files_at, is_remote
from unnoise.data.sources.source import Item, Source, is_image
from unnoise.data.sources.webdataset import read_shards
from unnoise.errors import InputError
from unnoise.registry import dataset

__all__ = ["Item", "Source", "find"]

READERS: tuple[tuple[str, Callable[[Path], Source]], ...] = (
    (r"\.zip$", read_zip),
    (r"\.tar$", lambda path: replace(read_tar(path), groups=read_shards([path], path.stem).groups)),
    (r"\.(tgz|tar\.(gz|bz2|xz))$", read_tar),
    (r"\.npy$", read_npy),
    (r"\.npz$", read_npz),
    (r"[-.]ubyte(\.gz)?$|\.idx(\.gz)?$", read_idx),
    (r"\.(parquet|pq)$", lambda path: read_parquet([path], named(path))),
)
KINDS = "a folder of images or tar shards, .zip, .tar, .tar.gz, .npy, .npz, IDX (-ubyte, -ubyte.gz) or .parquet"


def find(data: Any) -> Source:
    """Open a path, a built-in set by its spec such as `faces:count=5000`, or images in memory."""
    if is_in_memory(data):
        return memory_source(data)
    data = os.fsdecode(data)
    if not data.strip():
        raise InputError(f"no data given; give {KINDS}, or a built-in set: {', '.join(dataset.names())}")
    if is_remote(data):
        return find_remote(data)
    try:
        path = Path(data).expanduser()
    except RuntimeError:  # ~somebody who is not known here
        path = Path(data)
    if path.is_dir():
        return find_in_folder(path)
    if path.exists():
        return find_in_file(path)
    if data.partition(":")[0].strip() in dataset.names():
        source: Source = dataset.get(data)()
        return source
    raise missing(data, path)


def named(table: Path) -> str:
    """The name of a data set in one file; `train-00000-of-00001` says less than the folder it lies in."""
    return table.resolve().parent.name if table.stem.startswith(("train", "test", "valid")) else table.stem


def find_in_folder(folder: Path) -> Source:
    """A folder is images, or the files of one data set in another format."""
    idx = idx_in(folder)
    if idx is not None:
        return replace(read_idx(idx), name=folder.resolve().name)
    if not images_below(folder):
        if tables := files_in(folder, ".parquet"):
            return read_parquet(tables, folder.resolve().name)
        if shards := files_in(folder, ".tar"):
            return read_shards(shards, folder.resolve().name)
    return read_folder(folder)


def find_remote(url: str) -> Source:
    """Parquet files or tar shards at an address."""
    files, name = files_at(url), url.rstrip("/").rpartition("/")[2]
    for suffix, reader in ((".parquet", read_parquet), (".tar", read_shards)):
        if found := [file for file in files if file.name.endswith(suffix)]:
            top = len(commonpath([file.path for file in found]))
            return reader(training([(file.path[top:], file) for file in found]), name)
    raise InputError(f"no .parquet and no .tar files at {url}")


def find_in_file(path: Path) -> Source:
    for pattern, reader in READERS:
        if re.search(pattern, path.name.lower()):
            return reader(path)
    if is_image(path.name):
        raise InputError(f"{str(path)!r} is one image; give the folder that holds it, or {KINDS}")
    raise InputError(f"cannot tell what {str(path)!r} is; give {KINDS}")


def missing(data: str, path: Path) -> InputError:
    """Name what the user may have meant, a built-in set or a file beside it."""
    builtin = dataset.names()
    siblings = [str(near.relative_to(path.parent)) for near in path.parent.iterdir()] if path.parent.is_dir() else []
    beside = get_close_matches(path.name, siblings, n=1, cutoff=0.6)
    named = get_close_matches(data.partition(":")[0], builtin, n=1, cutoff=0.6)
    near = named or [str(path.parent / name) for name in beside]
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"no data at {data!r}; {hint}Give {KINDS}, or a built-in set: {', '.join(builtin)}")
