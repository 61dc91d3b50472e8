"""Archives, zip or tar: read in place. Nothing is extracted, so no name can reach outside."""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.data.sources.layout import FolderCount, Layout, Placed
from unnoise.data.sources.remote import Place
from unnoise.data.sources.source import (
    MAX_BYTES,
    Broken,
    Item,
    Source,
    explain_damage,
    file_key,
    is_image,
    suffix_of,
)
from unnoise.data.sources.system_files import PassedOver, passed_over_name

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
)
MAX_HEADER = 2**20  # bytes of an extended header of a tar file
LARGE, MAX_GROWTH = 2**26, 500  # bytes; a larger member that grows more than this when unpacked is no image
MAX_CLASS_NAME = 256  # bytes of the name of a class


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
    labels: dict[str, str] = field(default_factory=dict)  # by the key of a sample
    passed_over: PassedOver = field(default_factory=PassedOver)

    def clear(self) -> None:
        """Forget everything, for a new pass; the objects that a source shows stay the same."""
        for each in (self.ignored, self.notes, self.labels, self.passed_over):
            each.clear()

    def layout(self, members: Iterable[Member]) -> Layout:
        """Return the layout of the folders of these images, and note what they were taken for."""
        counted = FolderCount()
        for member in members:
            counted.add(member.parts)
        layout = counted.layout()
        self.notes[:] = [*counted.notes(layout), *self.passed_over.notes()]
        return layout

    def item(self, parts: tuple[str, ...], content: bytes, place: Placed) -> Item:
        """Return the item of an image; its class is stored next to it, or is its folder."""
        name = "/".join(parts)
        return Item(name, content, self.labels.get(sample_key(name)) or place.label, place.held_out)


def safe_parts(name: str) -> tuple[str, ...] | None:
    """Return the components of a member's name; None if the name points out of the archive."""
    name = name.replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    outside = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name)
    return None if outside or not parts else parts


def sample_key(name: str) -> str:
    """Return the name up to its first dot; the files of one WebDataset sample share this key."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def in_order(members: Iterable[Member], layout: Layout) -> Iterator[tuple[Member, Placed]]:
    """Yield the images that are used: the images to train on, and then the images of held-out splits."""
    placed = [(member, place) for member in members if (place := layout.place(member.parts[:-1]))]
    return iter(sorted(placed, key=lambda pair: (pair[1].held_out, pair[0].parts)))


def read_zip(path: Path) -> Source:
    """Turn a zip file into a source, its members in sorted order."""
    listing = Listing()
    members = zip_members(path, listing)
    placed = [*in_order(members, listing.layout(members))]
    items = partial(zip_items, path, placed, listing)
    return Source(path.stem, file_key(path), items, len(placed), listing.ignored, notes=listing.notes)


def zip_members(path: Path, listing: Listing) -> list[Member]:
    members = []
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            parts = None if info.is_dir() else safe_parts(info.filename)
            if not parts:
                continue
            if passed_over_name(parts) is not None:
                listing.passed_over.add_path(parts)
            elif is_image(parts[-1]):
                members.append(Member(parts, info.file_size, info))
            else:
                listing.ignored[suffix_of(parts[-1])] += 1
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
    except RuntimeError:
        return Broken(b"encrypted")
    except ARCHIVE_DAMAGE:
        return Broken(b"damaged in the archive")
    return TOO_LARGE if len(content) > MAX_BYTES else content


def read_tar(path: Path, *, compressed: bool = False) -> Source:
    """Turn a tar file into a source: plain ones in sorted order, compressed ones, which cannot seek, in their own."""
    listing = Listing()  # filled by the first pass: listing a large .tar.gz takes as long as reading it
    items = partial(compressed_tar_items if compressed else plain_tar_items, path, listing)
    name = re.sub(r"\.(tar|tgz)(\.\w+)?$", "", path.name, flags=re.IGNORECASE)
    return Source(name, file_key(path), items, None, listing.ignored, notes=listing.notes)


def tar_files(archive: tarfile.TarFile) -> Iterator[tuple[tuple[str, ...], tarfile.TarInfo]]:
    """Yield the regular files of a tar file: no links, devices or sparse files."""
    while (info := archive.next()) is not None:
        parts = safe_parts(info.name) if info.isreg() and not info.issparse() else None
        if parts:
            yield parts, info
        archive.members = []  # type: ignore[attr-defined]  # the library would keep every header it has seen


def list_tar_images(path: Place, mode: str, listing: Listing) -> Iterator[Member]:
    """Yield the images of a tar file; the listing gets the classes, stored as text in KEY.cls."""
    with (
        explain_damage(path, ARCHIVE_DAMAGE, "archive"),
        path.open("rb") as file,
        tarfile.open(fileobj=file, mode=mode, tarinfo=SmallHeaders) as archive,  # type: ignore[call-overload]
    ):
        for parts, info in tar_files(archive):
            if passed_over_name(parts) is not None:
                listing.passed_over.add_path(parts)
            elif is_image(parts[-1]):
                yield Member(parts, info.size, info.offset_data)
            elif parts[-1].endswith(".cls") and info.size <= MAX_CLASS_NAME and (text := archive.extractfile(info)):
                listing.labels[sample_key("/".join(parts))] = text.read().decode("utf-8", "replace").strip()
            else:
                listing.ignored[suffix_of(parts[-1])] += 1


def plain_tar_items(path: Path, listing: Listing) -> Iterator[Item]:
    listing.clear()
    members = [*list_tar_images(path, "r:", listing)]
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
    layout = listing.layout(list_tar_images(path, "r|*", listing))
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), tarfile.open(path, "r|*", tarinfo=SmallHeaders) as archive:
        for parts, info in tar_files(archive):
            place = layout.place(parts[:-1])
            if is_image(parts[-1]) and passed_over_name(parts) is None and place:
                file = archive.extractfile(info)
                content = TOO_LARGE if info.size > MAX_BYTES or not file else file.read()
                yield listing.item(parts, content, place)
