"""Images in a zip or tar file, read in place: nothing is extracted, so no name can reach outside."""

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
    MOST_BYTES,
    Broken,
    Item,
    Source,
    errors_in_words,
    file_key,
    is_hidden,
    is_image,
    label_of,
    suffix_of,
)

TOO_LARGE = Broken(f"larger than {MOST_BYTES >> 20} MiB".encode())
DAMAGE = (
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
LONGEST = 256  # bytes of the name of a class
COMPRESSED = r"\.(tgz|gz|bz2|xz)$"


class Member(NamedTuple):
    """One regular file of an archive."""

    parts: tuple[str, ...]
    size: int
    at: zipfile.ZipInfo | int  # how to read it: a zip entry, or the offset of its bytes in a plain tar


def safe_parts(name: str) -> tuple[str, ...] | None:
    """The components of a member's name, or None where it is hidden or points out of the archive."""
    name = name.replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    outside = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name)
    return None if outside or not parts or any(map(is_hidden, parts)) else parts


def root_depth(members: Iterable[Member]) -> int:
    """1 where everything lies in one top folder, as when a folder was packed whole; else 0."""
    tops = {member.parts[0] if len(member.parts) > 1 else None for member in members}
    return int(len(tops) == 1 and None not in tops)


def item_of(parts: tuple[str, ...], content: bytes, depth: int, labels: Mapping[str, str] | None = None) -> Item:
    name = "/".join(parts)
    return Item(name, content, (labels or {}).get(key_of(name)) or label_of(parts[depth:]))


def key_of(name: str) -> str:
    """What comes before the first dot of a file's name: the files of one WebDataset sample share it."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def read_zip(path: Path) -> Source:
    members, ignored = zip_members(path)
    return Source(path.stem, file_key(path), lambda: stream_zip(path, members), len(members), ignored)


def zip_members(path: Path) -> tuple[list[Member], Counter[str]]:
    members, ignored = [], Counter[str]()
    with errors_in_words(path, DAMAGE, "archive"), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            parts = None if info.is_dir() else safe_parts(info.filename)
            if parts and is_image(parts[-1]):
                members.append(Member(parts, info.file_size, info))
            elif parts:
                ignored[suffix_of(parts[-1])] += 1
    return sorted(members, key=lambda member: member.parts), ignored


def stream_zip(path: Path, members: list[Member]) -> Iterator[Item]:
    depth = root_depth(members)
    with errors_in_words(path, DAMAGE, "archive"), zipfile.ZipFile(path) as archive:
        for member in members:
            yield item_of(member.parts, zip_bytes(archive, member), depth)


def zip_bytes(archive: zipfile.ZipFile, member: Member) -> bytes:
    """Read one member; damage to it is its own, the others are still good."""
    if member.size > MOST_BYTES:
        return TOO_LARGE
    try:
        with archive.open(member.at) as file:  # type: ignore[arg-type]
            content = file.read(MOST_BYTES + 1)  # the declared size may be a lie
    except RuntimeError:
        return Broken(b"encrypted")
    except DAMAGE:
        return Broken(b"damaged in the archive")
    return TOO_LARGE if len(content) > MOST_BYTES else content


def read_tar(path: Path) -> Source:
    """Plain tar files are read in sorted order; compressed ones in their own order, for they have no way back."""
    ignored: Counter[str] = Counter()  # known after the first pass: listing a large .tar.gz takes as long as reading it
    compressed = re.search(COMPRESSED, path.name.lower())
    stream = stream_compressed if compressed else stream_plain
    name = re.sub(r"\.(tar|tgz)(\.\w+)?$", "", path.name, flags=re.IGNORECASE)
    return Source(name, file_key(path), lambda: stream(path, ignored), None, ignored)


def tar_files(archive: tarfile.TarFile) -> Iterator[tuple[tuple[str, ...], tarfile.TarInfo]]:
    """Regular files only: no links, devices or sparse files."""
    while (info := archive.next()) is not None:
        parts = safe_parts(info.name) if info.isreg() and not info.issparse() else None
        if parts:
            yield parts, info
        archive.members = []  # type: ignore[attr-defined]  # the library would keep every header it has seen


def survey_tar(path: Place, mode: str, ignored: Counter[str], labels: dict[str, str]) -> Iterator[Member]:
    """Its images; `labels` are the classes that lie beside them, as text in KEY.cls."""
    ignored.clear()
    with (
        errors_in_words(path, DAMAGE, "archive"),
        path.open("rb") as file,
        tarfile.open(fileobj=file, mode=mode) as archive,  # type: ignore[call-overload]
    ):
        for parts, info in tar_files(archive):
            if is_image(parts[-1]):
                yield Member(parts, info.size, info.offset_data)
            elif parts[-1].endswith(".cls") and info.size <= LONGEST and (text := archive.extractfile(info)):
                labels[key_of("/".join(parts))] = text.read().decode("utf-8", "replace").strip()
            else:
                ignored[suffix_of(parts[-1])] += 1


def stream_plain(path: Path, ignored: Counter[str]) -> Iterator[Item]:
    labels: dict[str, str] = {}
    members = sorted(survey_tar(path, "r:", ignored, labels), key=lambda member: member.parts)
    depth = root_depth(members)
    with errors_in_words(path, DAMAGE, "archive"), path.open("rb") as file:
        for member in members:
            content = bytes_at(file, member.at, member.size)  # type: ignore[arg-type]
            yield item_of(member.parts, content, depth, labels)


def bytes_at(file: Any, at: int, size: int) -> bytes:
    """Of one member; its size is what a header says."""
    if not 0 <= size <= MOST_BYTES:
        return TOO_LARGE
    file.seek(at)
    return file.read(size)  # type: ignore[no-any-return]


def stream_compressed(path: Path, ignored: Counter[str]) -> Iterator[Item]:
    labels: dict[str, str] = {}
    depth = root_depth(survey_tar(path, "r|*", ignored, labels))
    with errors_in_words(path, DAMAGE, "archive"), tarfile.open(path, "r|*") as archive:
        for parts, info in tar_files(archive):
            if is_image(parts[-1]):
                file = archive.extractfile(info)
                yield item_of(parts, TOO_LARGE if info.size > MOST_BYTES or not file else file.read(), depth, labels)
