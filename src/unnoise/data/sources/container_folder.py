"""Folders without images, whose data lies in archives or in other files that hold many images."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from unnoise.data.sources.classes import join_first
from unnoise.data.sources.container import container_kind, image_format, refuse_by_name
from unnoise.data.sources.folder import walk_files
from unnoise.data.sources.labels import may_hold_labels
from unnoise.data.sources.source import Source, is_image, suffix_of
from unnoise.data.sources.splits import Notes, join_sources, read_splits, split_files
from unnoise.errors import InputError

MAX_LOOKED_AT = 2_000  # files of a folder whose first bytes are read
TEXTS = {".md", ".txt", ".rst", ".htm", ".html", ".pdf", ".xml", ".py", ".yml", ".yaml"}
ABOUT = TEXTS | {".json", ".jsonl", ".csv", ".tsv"}  # of these, tables may hold labels


def find_containers(folder: Path, name: str, read: Callable[[Path], Source]) -> Source | None:
    """Open the only file below a folder that holds many images, or the files of its splits; None if there is none.

    Raises:
        InputError: If there are several such files that are no splits, or only files that are not read.
    """
    if any((folder / mark).exists() for mark in (".zgroup", ".zarray", "zarr.json")):
        raise InputError(f"{str(folder)!r} is a Zarr array; save its images as .npz, or as files in a folder")
    found, tables, refused = look_below(folder)
    if not found:
        if refused:
            raise refused[0]
        return None
    if len(found) == 1:
        source, notes = read(found[0][1]), [f"opened {found[0][0]}, the only file of data in the folder"]
        if tables:
            notes.append(f"not read: {join_first(tables)}; to use their labels, unpack {found[0][0]} next to them")
        return replace(source, notes=Notes(notes, source.notes))
    train, held_out, _ = split_files(found)
    if not held_out:
        seen = join_first([inside for inside, _ in found])
        raise InputError(
            f"{len(train)} archives or other files of data in {str(folder)!r}: {seen}; give one of them, or unpack "
            "archives into one folder"
        )
    return read_splits(found, lambda paths: join_sources(name, [read(path) for path in paths]))


def look_below(folder: Path) -> tuple[list[tuple[str, Path]], list[str], list[InputError]]:
    """Return files below a folder that hold many images, tables that may hold labels, and why others are not read."""
    found, tables, refused = list[tuple[str, Path]](), list[str](), list[InputError]()
    for path in islice(walk_files(folder), MAX_LOOKED_AT):
        if is_image(path.name):
            continue
        if suffix_of(path.name) in ABOUT:
            tables += [path.name] if may_hold_labels(path.name) else []
            continue
        try:
            if container_kind(path):
                found.append((str(path.relative_to(folder)), path))
            else:
                refuse_by_name(path)
                refuse_nameless_image(path)
        except InputError as error:
            refused.append(error)
    return found, tables, refused


def refuse_nameless_image(path: Path) -> None:
    """Raise InputError if a file is an image whose name does not say it."""
    if kind := image_format(path):
        raise InputError(f"{str(path)!r} is an image ({kind}) whose name has no suffix of one; rename all such files")
