"""Archives, zip or tar: read in place. Nothing is extracted, so no name can reach outside."""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.data.sources.remote import Place
from unnoise.data.sources.source import (
    MAX_BYTES,
    Broken,
    Item,
    Source,
    explain_damage,
    file_key,
    is_hidden,
    is_image,
    label_from_path,
    suffix_of,
)

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
MAX_CLASS_NAME = 256  # bytes of the name of a class
COMPRESSED = r"\.(tgz|gz|bz2|xz)$"


class Member(NamedTuple):
    """One regular file of an archive."""

    parts: tuple[str, ...]
    size: int
    at: zipfile.ZipInfo | int  # how to read it: a zip entry, or the offset of its bytes in a plain tar


def safe_parts(name: str) -> tuple[str, ...] | None:
    """Return the components of a member's name; None if the member is hidden or points out of the archive."""
    name = name.replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    outside = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name)
    return None if outside or not parts or any(map(is_hidden, parts)) else parts


def root_depth(members: Iterable[Member]) -> int:
    """Return 1 if everything lies in one top folder, as when a folder was packed whole; otherwise 0."""
    tops = {member.parts[0] if len(member.parts) > 1 else None for member in members}
    return int(len(tops) == 1 and None not in tops)


def archive_item(parts: tuple[str, ...], content: bytes, depth: int, labels: Mapping[str, str] | None = None) -> Item:
    name = "/".join(parts)
    return Item(name, content, (labels or {}).get(sample_key(name)) or label_from_path(parts[depth:]))


def sample_key(name: str) -> str:
    """Return the name up to its first dot; the files of one WebDataset sample share this key."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def read_zip(path: Path) -> Source:
    """Turn a zip file into a source, its members in sorted order."""
    members, ignored = zip_members(path)
    return Source(path.stem, file_key(path), lambda: zip_items(path, members), len(members), ignored)


def zip_members(path: Path) -> tuple[list[Member], Counter[str]]:
    members, ignored = [], Counter[str]()
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            parts = None if info.is_dir() else safe_parts(info.filename)
            if parts and is_image(parts[-1]):
                members.append(Member(parts, info.file_size, info))
            elif parts:
                ignored[suffix_of(parts[-1])] += 1
    return sorted(members, key=lambda member: member.parts), ignored


def zip_items(path: Path, members: list[Member]) -> Iterator[Item]:
    depth = root_depth(members)
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), zipfile.ZipFile(path) as archive:
        for member in members:
            yield archive_item(member.parts, zip_bytes(archive, member), depth)


def zip_bytes(archive: zipfile.ZipFile, member: Member) -> bytes:
    """Read one member; if it is damaged, the others are still good."""
    if member.size > MAX_BYTES:
        return TOO_LARGE
    try:
        with archive.open(member.at) as file:  # type: ignore[arg-type]
            content = file.read(MAX_BYTES + 1)  # the declared size may be a lie
    except RuntimeError:
        return Broken(b"encrypted")
    except ARCHIVE_DAMAGE:
        return Broken(b"damaged in the archive")
    return TOO_LARGE if len(content) > MAX_BYTES else content


def read_tar(path: Path) -> Source:
    """Turn a tar file into a source: plain ones in sorted order, compressed ones, which cannot seek, in their own."""
    ignored: Counter[str] = Counter()  # known after the first pass: listing a large .tar.gz takes as long as reading it
    compressed = re.search(COMPRESSED, path.name.lower())
    stream = compressed_tar_items if compressed else plain_tar_items
    name = re.sub(r"\.(tar|tgz)(\.\w+)?$", "", path.name, flags=re.IGNORECASE)
    return Source(name, file_key(path), lambda: stream(path, ignored), None, ignored)


def tar_files(archive: tarfile.TarFile) -> Iterator[tuple[tuple[str, ...], tarfile.TarInfo]]:
    """Yield the regular files of a tar file: no links, devices or sparse files."""
    while (info := archive.next()) is not None:
        parts = safe_parts(info.name) if info.isreg() and not info.issparse() else None
        if parts:
            yield parts, info
        archive.members = []  # type: ignore[attr-defined]  # the library would keep every header it has seen


def list_tar_images(path: Place, mode: str, ignored: Counter[str], labels: dict[str, str]) -> Iterator[Member]:
    """Yield the images of a tar file; fill `labels` with the classes, stored as text in KEY.cls."""
    ignored.clear()
    with (
        explain_damage(path, ARCHIVE_DAMAGE, "archive"),
        path.open("rb") as file,
        tarfile.open(fileobj=file, mode=mode) as archive,  # type: ignore[call-overload]
    ):
        for parts, info in tar_files(archive):
            if is_image(parts[-1]):
                yield Member(parts, info.size, info.offset_data)
            elif parts[-1].endswith(".cls") and info.size <= MAX_CLASS_NAME and (text := archive.extractfile(info)):
                labels[sample_key("/".join(parts))] = text.read().decode("utf-8", "replace").strip()
            else:
                ignored[suffix_of(parts[-1])] += 1


def plain_tar_items(path: Path, ignored: Counter[str]) -> Iterator[Item]:
    labels: dict[str, str] = {}
    members = sorted(list_tar_images(path, "r:", ignored, labels), key=lambda member: member.parts)
    depth = root_depth(members)
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), path.open("rb") as file:
        for member in members:
            content = read_at(file, member.at, member.size)  # type: ignore[arg-type]
            yield archive_item(member.parts, content, depth, labels)


def read_at(file: Any, at: int, size: int) -> bytes:
    """Read the bytes of one member; a header claims its size, which may be a lie."""
    if not 0 <= size <= MAX_BYTES:
        return TOO_LARGE
    file.seek(at)
    return file.read(size)  # type: ignore[no-any-return]


def compressed_tar_items(path: Path, ignored: Counter[str]) -> Iterator[Item]:
    labels: dict[str, str] = {}
    depth = root_depth(list_tar_images(path, "r|*", ignored, labels))
    with explain_damage(path, ARCHIVE_DAMAGE, "archive"), tarfile.open(path, "r|*") as archive:
        for parts, info in tar_files(archive):
            if is_image(parts[-1]):
                file = archive.extractfile(info)
                content = TOO_LARGE if info.size > MAX_BYTES or not file else file.read()
                yield archive_item(parts, content, depth, labels)
