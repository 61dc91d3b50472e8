"""Archives, zip or tar: read in place. Nothing is extracted, so no name can reach outside."""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.data.sources.classes import join_first
from unnoise.data.sources.container import ARCHIVE_SUFFIXES, unpacked
from unnoise.data.sources.label_choice import uncount
from unnoise.data.sources.labels import LabelFiles
from unnoise.data.sources.layout import FolderCount, Layout, Placed
from unnoise.data.sources.remote import Place
from unnoise.data.sources.samples import Samples
from unnoise.data.sources.source import (
    MAX_BYTES,
    Broken,
    Item,
    Source,
    column_key,
    explain_damage,
    file_key,
    is_image,
    suffix_of,
)
from unnoise.data.sources.system_files import PassedOver, passed_over_name
from unnoise.data.sources.zip_names import member_names

TOO_LARGE = Broken(f"larger than {MAX_BYTES >> 20} MiB".encode())
ARCHIVE_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    IndexError,  # how zipfile says that a member has no name
    ValueError,
    RuntimeError,  # how zipfile says that a password is missing
    TypeError,  # how tarfile says that the header of a .gz is cut off
)
UNPACK = "unpack it and give the folder"
AFTER_END = 2**16  # bytes after the end of a tar file, which are zeros
MAX_HEADER = 2**20  # bytes of an extended header of a tar file
LARGE, MAX_GROWTH = 2**26, 500  # bytes; a larger member that grows more than this when unpacked is no image


class SmallHeaders(tarfile.TarInfo):
    """A member of a tar file whose extended headers, which are read whole, are no larger than names need."""

    def _proc_pax(self, archive: tarfile.TarFile) -> Any:
        self.refuse_large_header()
        return super()._proc_pax(archive)  # type: ignore[misc]

    def _proc_gnulong(self, archive: tarfile.TarFile) -> Any:
        self.refuse_large_header()
        return super()._proc_gnulong(archive)  # type: ignore[misc]

    def refuse_large_header(self) -> None:
        """Raise ReadError if this header is larger than MAX_HEADER."""
        if self.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")


class Member(NamedTuple):
    """One regular file of an archive."""

    parts: tuple[str, ...]
    size: int
    at: zipfile.ZipInfo | int  # how to read it: a zip entry, or the offset of its bytes in a plain tar


@dataclass
class Listing:
    """The files of an archive that are no images, its classes, and lines about its folders."""

    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    links: list[str] = field(default_factory=list)  # names of images that are links
    joined: list[str] = field(default_factory=list)  # tar files that hold more after their end
    inside: list[str] = field(default_factory=list)  # archives in the archive
    said: list[str] = field(default_factory=list)  # lines about samples that hold several images
    column: str | None = None  # of the labels, if the user names it
    files: LabelFiles = field(init=False)
    encoding: str = ""  # of the names, if it was guessed
    labels: Mapping[str, str | None] | None = None  # of each image, from files; None: the folders are the classes

    def __post_init__(self) -> None:
        self.files = LabelFiles(self.column)

    def clear(self) -> None:
        """Forget everything, for a new pass; the objects that a source shows stay the same."""
        for each in (self.ignored, self.notes, self.links, self.joined, self.inside, self.said, self.passed_over):
            each.clear()
        self.files, self.labels = LabelFiles(self.column), None

    def add_other(self, name: str, size: int, read: Callable[[], bytes]) -> None:
        """Count a file that is no image; it may hold labels."""
        taken = self.files.offer(name, size, read)
        if not (taken and suffix_of(name) == ".cls"):
            self.ignored[suffix_of(name)] += 1
        if name.lower().endswith(ARCHIVE_SUFFIXES):
            self.inside.append(name)

    def samples(self, members: Iterable[Member]) -> list[Member]:
        """Return the images that are used, if several may belong to one sample, and note which are left out."""
        members, found = [*members], Samples()
        out = found.left_out([["/".join(member.parts) for member in members]])[0]
        self.said[:] = found.notes()
        return [member for member in members if "/".join(member.parts) not in out] if out else members

    def layout(self, members: Iterable[Member]) -> Layout:
        """Return the layout of the folders of these images, and note what they were taken for."""
        counted, images = FolderCount(), [member.parts for member in members]
        for parts in images:
            counted.add(parts)
        layout = counted.layout()
        placed = ((parts, layout.place(parts[:-1])) for parts in images)
        found = self.files.read(("/".join(parts), place.label) for parts, place in placed if place)
        self.labels = found.of
        uncount(self.ignored, found.used)
        if self.links:
            self.said.append(f"left out {len(self.links):,} images that are links: {join_first(self.links)}; {UNPACK}")
        if self.joined:
            joined = join_first(self.joined)
            self.said.append(
                f"read only to the end mark: {joined}; of several tars in one file, only the first is read"
            )
        if self.inside:
            self.said.append(f"not read, for they are archives inside an archive: {join_first(self.inside)}; {UNPACK}")
        elif not images and self.ignored:
            self.said.append(UNPACK)
        guessed = [f"the names in the archive were read as {self.encoding}"] if self.encoding else []
        self.notes[:] = [*guessed, *self.said, *counted.notes(layout), *self.passed_over.notes(), *found.notes]
        return layout

    def item(self, parts: tuple[str, ...], content: bytes, place: Placed) -> Item:
        """Return the item of an image; its class is stored next to it, or is its folder."""
        name = "/".join(parts)
        return Item(name, content, place.label if self.labels is None else self.labels.get(name), place.held_out)


def safe_parts(name: str) -> tuple[str, ...] | None:
    """Return the components of a member's name; None if the name points out of the archive."""
    name = name.replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    outside = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name)
    return None if outside or not parts else parts


def in_order(members: Iterable[Member], layout: Layout) -> Iterator[tuple[Member, Placed]]:
    """Yield the images that are used: the images to train on, and then the images of held-out splits."""
    placed = [(member, place) for member in members if (place := layout.place(member.parts[:-1]))]
    return iter(sorted(placed, key=lambda pair: (pair[1].held_out, pair[0].parts)))


def read_zip(path: Path, column: str | None = None) -> Source:
    """Turn a zip file into a source, its members in sorted order."""
    listing = Listing(column=column)
    members = zip_members(path, listing)
    placed = [*in_order(members, listing.layout(members))]
    items = partial(zip_items, path, placed, listing)
    return Source(
        path.stem, column_key(file_key(path), column), items, len(placed), listing.ignored, notes=listing.notes
    )


def zip_members(path: Path, listing: Listing) -> list[Member]:
    members = []
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), zipfile.ZipFile(path) as archive:
        names, listing.encoding = member_names(archive.infolist())
        for info, name in zip(archive.infolist(), names, strict=True):
            parts = None if info.is_dir() else safe_parts(name)
            if not parts:
                continue
            if passed_over_name(parts) is not None:
                listing.passed_over.add_path(parts)
            elif is_image(parts[-1]):
                members.append(Member(parts, info.file_size, info))
            else:
                read = partial(zip_bytes, archive, Member(parts, info.file_size, info))
                listing.add_other("/".join(parts), info.file_size, read)
    return members


def zip_items(path: Path, placed: Sequence[tuple[Member, Placed]], listing: Listing) -> Iterator[Item]:
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), zipfile.ZipFile(path) as archive:
        for member, place in placed:
            yield listing.item(member.parts, zip_bytes(archive, member), place)


def zip_bytes(archive: zipfile.ZipFile, member: Member) -> bytes:
    """Read one member; if it is damaged, the others are still good."""
    if member.size > MAX_BYTES:
        return TOO_LARGE
    packed = member.at.compress_size if isinstance(member.at, zipfile.ZipInfo) else member.size
    if member.size > max(LARGE, MAX_GROWTH * packed):
        return Broken(f"{packed:,} bytes that grow to {member.size:,}; unpack it if you trust it".encode())
    try:
        with archive.open(member.at) as file:  # type: ignore[arg-type]
            content = file.read(MAX_BYTES + 1)  # the declared size may be a lie
    except NotImplementedError:  # it is a RuntimeError too
        return Broken(b"compressed in a way that Python does not read; unpack the archive and give the folder")
    except RuntimeError:
        return Broken(b"encrypted")
    except ARCHIVE_DAMAGE:
        return Broken(b"damaged in the archive")
    return TOO_LARGE if len(content) > MAX_BYTES else content


def read_tar(path: Path, column: str | None = None, *, compressed: bool = False) -> Source:
    """Turn a tar file into a source: plain ones in sorted order, compressed ones, which cannot seek, in their own."""
    listing = Listing(column=column)  # filled by the first pass: listing a large .tar.gz takes as long as reading it
    items = partial(compressed_tar_items if compressed else plain_tar_items, path, listing)
    name = re.sub(r"\.(tar|tgz)(\.\w+)?$", "", path.name, flags=re.IGNORECASE)
    return Source(name, column_key(file_key(path), column), items, None, listing.ignored, notes=listing.notes)


def tar_files(
    archive: tarfile.TarFile, links: list[str] | None = None
) -> Iterator[tuple[tuple[str, ...], tarfile.TarInfo]]:
    """Yield the regular files of a tar file: no links, devices or sparse files; the names of links are added."""
    while (info := archive.next()) is not None:
        parts = safe_parts(info.name)
        if parts and info.isreg() and not info.issparse():
            yield parts, info
        elif parts and links is not None and (info.islnk() or info.issym()) and is_image(parts[-1]):
            links.append("/".join(parts))
        archive.members = []  # type: ignore[attr-defined]  # the library would keep every header it has seen


def list_tar_images(path: Place, listing: Listing) -> Iterator[Member]:
    """Yield the images of a tar file; the listing gets the other files, which may hold labels."""
    with (
        explain_damage(path, ARCHIVE_DAMAGE, "archive"),
        unpacked(path) as file,
        tarfile.open(fileobj=file, mode="r:", tarinfo=SmallHeaders) as archive,
    ):
        for parts, info in tar_files(archive, listing.links):
            if passed_over_name(parts) is not None:
                listing.passed_over.add_path(parts)
            elif is_image(parts[-1]):
                yield Member(parts, info.size, info.offset_data)
            else:
                listing.add_other("/".join(parts), info.size, partial(member_bytes, archive, info))
        if file.read(AFTER_END).strip(b"\0"):
            listing.joined.append(path.name)


def member_bytes(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """Read one member of a tar file."""
    file = archive.extractfile(info)
    return file.read() if file else b""


def plain_tar_items(path: Path, listing: Listing) -> Iterator[Item]:
    listing.clear()
    members = listing.samples(list_tar_images(path, listing))
    placed = in_order(members, listing.layout(members))
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), path.open("rb") as file:
        for member, place in placed:
            content = read_at(file, member.at, member.size)  # type: ignore[arg-type]
            yield listing.item(member.parts, content, place)


def read_at(file: Any, at: int, size: int) -> bytes:
    """Read the bytes of one member; a header claims its size, which may be a lie."""
    if not 0 <= size <= MAX_BYTES:
        return TOO_LARGE
    file.seek(at)
    return file.read(size)  # type: ignore[no-any-return]


def compressed_tar_items(path: Path, listing: Listing) -> Iterator[Item]:
    listing.clear()
    members = listing.samples(list_tar_images(path, listing))
    layout, names = listing.layout(members), {member.parts for member in members}
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), tarfile.open(path, "r|*", tarinfo=SmallHeaders) as archive:
        for parts, info in tar_files(archive):
            place = layout.place(parts[:-1])
            if parts in names and place:
                content = TOO_LARGE if info.size > MAX_BYTES else member_bytes(archive, info)
                yield listing.item(parts, content, place)
