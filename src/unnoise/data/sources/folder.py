"""Folders of images: recursive, in sorted order; sub-folders are splits and classes, as `layout` reads them."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import islice
from pathlib import Path

from unnoise.data.sources.classes import check_no_column, join_first
from unnoise.data.sources.container import ARCHIVE_SUFFIXES
from unnoise.data.sources.label_choice import uncount
from unnoise.data.sources.labels import LabelFiles, may_hold_labels
from unnoise.data.sources.layout import FolderCount, Layout
from unnoise.data.sources.source import (
    ITEM_BYTES,
    Group,
    Groups,
    Item,
    Source,
    class_names,
    column_key,
    is_image,
    storable,
    suffix_of,
)
from unnoise.data.sources.splits import Notes
from unnoise.data.sources.system_files import PassedOver, is_passed_over
from unnoise.errors import InputError

GROUP_IMAGES = 64  # images of a group


class Findings:
    """Folders that were passed over in a walk, and folders that cannot be listed."""

    def __init__(self) -> None:
        self.passed_over, self.unlisted, self.archives = PassedOver(), list[str](), list[str]()

    def add_other(self, path: Path) -> None:
        """Keep the name of an archive, which may hold more images."""
        if path.name.lower().endswith(ARCHIVE_SUFFIXES):
            self.archives.append(storable(path.name))

    def notes(self) -> list[str]:
        """Return lines on what was passed over, on archives, and on folders that cannot be listed."""
        notes = self.passed_over.notes()
        if self.archives:
            notes.append(f"not read: {join_first(self.archives)}; unpack what holds images, or give it alone")
        if self.unlisted:
            notes.append(f"passed over {len(self.unlisted)} folders that cannot be listed: {join_first(self.unlisted)}")
        return notes


def read_folder(root: Path, column: str | None = None) -> Source:
    """Turn a folder of images into a source by names, sizes and times; no image is opened.

    Files beside the images may hold their labels; `column` names the column of labels.
    """
    digest = hashlib.sha256(os.fsencode(root.resolve()))
    ignored, counted, found, tables = Counter[str](), FolderCount(), Findings(), False
    for path in walk_files(root, found):
        if not is_image(path.name):
            ignored[suffix_of(path.name)] += 1
            found.add_other(path)
            if may_hold_labels(path.name):
                tables = True
                digest.update(os.fsencode(path.relative_to(root)) + stat_bytes(path))
            continue
        counted.add(path_parts(root, path))
        digest.update(os.fsencode(path.relative_to(root)) + stat_bytes(path))
    layout, notes = counted.layout(), list[str]()
    labels = cache(partial(folder_labels, root, layout, column, ignored, notes)) if tables else no_labels
    if not tables:
        check_no_column(column, f"no file in {str(root)!r} holds labels")
    return Source(
        root.resolve().name or "data",
        column_key(digest.hexdigest(), column),
        lambda: folder_items(root, layout, ordered_paths(root, layout), labels()),
        counted.total(layout),
        ignored,
        groups=lambda _: folder_groups(root, layout, labels()),
        notes=Notes([*counted.notes(layout), *found.notes()], notes),
    )


def no_labels() -> None:
    """Return None: no file holds labels, so that the folders are the classes."""


def folder_labels(
    root: Path, layout: Layout, column: str | None, ignored: Counter[str], notes: list[str]
) -> Mapping[str, str | None] | None:
    """Return the labels that files in a folder give to its images, None if none does; fill `notes`."""
    files = LabelFiles(column)
    for path in walk_files(root):
        if may_hold_labels(path.name) and (size := size_of(path)) is not None:
            files.offer("/".join(path_parts(root, path)), size, path.read_bytes)
    items = folder_items(root, layout, ordered_paths(root, layout))
    found = files.read((item.name, item.label) for item in items)
    notes[:] = found.notes
    uncount(ignored, found.used)
    return found.of


def path_parts(root: Path, path: Path) -> tuple[str, ...]:
    """Return the components of a path below the root, as text that can be shown."""
    return tuple(storable(part) for part in path.relative_to(root).parts)


def image_paths(root: Path) -> Iterator[Path]:
    """Yield the paths of all images below a folder, in order."""
    return (path for path in walk_files(root) if is_image(path.name))


def ordered_paths(root: Path, layout: Layout) -> Iterator[Path]:
    """Yield the paths of the images that are used: the images to train on, and then the images of held-out splits."""
    for held_out in sorted({False, *layout.held_out.values()}):
        yield from split_paths(root, layout, held_out=held_out)


def split_paths(root: Path, layout: Layout, *, held_out: bool) -> Iterator[Path]:
    """Yield the paths of the images that are held out, or of the others, in order."""
    for path in image_paths(root):
        place = layout.place(path_parts(root, path)[:-1])
        if place is not None and place.held_out is held_out:
            yield path


def folder_items(
    root: Path, layout: Layout, paths: Iterable[Path], labels: Mapping[str, str | None] | None = None
) -> Iterator[Item]:
    """Yield the images; their classes are these labels, or their folders."""
    for path in paths:
        parts = path_parts(root, path)
        if place := layout.place(parts[:-1]):
            name = "/".join(parts)
            yield Item(name, path, place.label if labels is None else labels.get(name), place.held_out)


def folder_groups(root: Path, layout: Layout, given: Mapping[str, str | None] | None = None) -> Groups:
    """Return groups of neighbours by name; only their paths are kept in memory."""
    each, labels = list[Group](), Counter[str | None]()
    for held_out in sorted({False, *layout.held_out.values()}):
        paths = split_paths(root, layout, held_out=held_out)
        while some := [*islice(paths, GROUP_IMAGES)]:
            here = {item.name: item.label for item in folder_items(root, layout, some, given)}
            if not held_out:
                labels.update(here.values())
            digest = hashlib.sha256()
            for path in some:
                digest.update(os.fsencode(path.relative_to(root)) + f"\0{size_of(path)}\0".encode())
            items = partial(folder_items, root, layout, some, None if given is None else here)
            size = ITEM_BYTES * len(some)
            each.append(Group(len(some), items, digest.hexdigest(), size, held_out))
    return Groups(each, class_names(labels))


def walk_files(root: Path, found: Findings | None = None) -> Iterator[Path]:
    """Yield all files below a folder, sorted; a folder with several links to it is read once.

    Folders that cannot be listed because their path is too long, and files of the system, are noted in `found`.
    """
    found, top = found or Findings(), os.path.realpath(root)
    visited, levels = {folder_id(top)}, [list_folder(root, found)]
    while levels:
        path, entry = next(levels[-1], ("", None))
        if not path:
            levels.pop()
        elif entry is None:
            yield Path(path)
        elif is_passed_over(entry.name):
            note_passed_over(entry, found)
        elif is_folder(entry):
            identity = folder_id(path)
            if identity not in visited and not (entry.is_symlink() and is_read_anyway(path, top)):
                visited.add(identity)
                levels.append(list_folder(Path(path), found))
        elif is_file(entry):
            yield Path(path)


def list_folder(folder: Path, found: Findings) -> "Iterator[tuple[str, os.DirEntry[str] | None]]":
    """Return the paths in a folder, sorted by name, each with its entry; ordinary files have none, to save memory."""
    names, others = list[str](), dict[str, os.DirEntry[str]]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)
                if is_passed_over(entry.name) or not entry.is_file(follow_symlinks=False):
                    others[entry.name] = entry
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError(f"cannot list {str(folder)!r}: {error.strerror}") from None
        found.unlisted.append(f"{str(folder)[:60]}... ({error.strerror})")
    above = os.path.join(folder, "")  # noqa: PTH118 - text is joined faster than paths
    return ((above + name, others.get(name)) for name in sorted(names))


def note_passed_over(entry: "os.DirEntry[str]", found: Findings) -> None:
    """Count the images in a file or folder that is passed over."""
    if entry.is_dir(follow_symlinks=False):
        found.passed_over.add_folder(entry.name, entry.path)
    else:
        found.passed_over.add_path((entry.name,))


def folder_id(path: str) -> tuple[int, int] | str:
    """Return a number that all links to a folder share; the path itself if it cannot be looked at."""
    try:
        about = os.stat(path)  # noqa: PTH116 - the path of an entry of a folder is text
    except OSError:
        return path
    return about.st_dev, about.st_ino


def is_read_anyway(link: str, top: str) -> bool:
    """Return whether a link leads to a folder below the top that is read by its own name."""
    try:
        inside = Path(os.path.realpath(link)).relative_to(top)
    except ValueError:  # it leads outside
        return False
    return not any(map(is_passed_over, inside.parts))


def is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def is_file(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a file, or a dangling link, which is reported when it is opened; a pipe never is."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return entry.is_symlink()


def stat_bytes(path: Path) -> bytes:
    """Return size and time of a file, for the key of a source."""
    try:
        stat = path.stat()
    except OSError:
        return b"\0gone\0"
    return f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()


def size_of(path: Path) -> int | None:
    """Return the size of a file, None if it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def has_images(folder: Path) -> bool:
    """Return whether there is any image below a folder."""
    return any(True for _ in image_paths(folder))


def files_with_suffix(folder: Path, *suffixes: str) -> list[tuple[str, Path]]:
    """Return the files below a folder with one of these suffixes, each with its path below the folder."""
    found = [path for path in walk_files(folder) if path.name.lower().endswith(suffixes)]
    return [(str(path.relative_to(folder)), path) for path in found]
