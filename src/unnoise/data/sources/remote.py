"""Files in object storage, read by byte ranges through fsspec; `hf://` is the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import fsspec

from unnoise.errors import InputError, unknown

PROTOCOLS = ("hf", "s3", "gs", "az", "abfs", "https", "memory")


@dataclass(frozen=True)
class Remote:
    """One remote file, with the part of the interface of `Path` that readers use."""

    system: Any
    path: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def open(self, mode: str = "rb") -> Any:
        """Open the file for reading."""
        return self.system.open(self.path, mode)

    @property
    def stamp(self) -> tuple[Any, ...]:
        """Facts that change when the file does: path, size, and tags or times."""
        about = self.system.info(self.path)
        changing = ("ETag", "etag", "mtime", "LastModified", "blob_id")
        return (self.path, about["size"], *(str(about[name]) for name in changing if name in about))

    def __str__(self) -> str:
        return str(self.system.unstrip_protocol(self.path))


Place: TypeAlias = Path | Remote


def is_remote(data: str) -> bool:
    return "://" in data


def files_at(url: str) -> list[Remote]:
    """Return all files below an address, sorted, or the one file at this address."""
    protocol = url.partition("://")[0]
    if protocol not in PROTOCOLS:
        raise unknown("storage", protocol, PROTOCOLS)
    try:
        system, path = fsspec.core.url_to_fs(url)
        found = [Remote(system, name) for name in sorted(system.find(path))]
    except ImportError as error:
        raise InputError(f"{url}: {error}") from None
    except Exception as error:  # noqa: BLE001  # which errors clients raise differs between them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot list {url} ({reason}); does it exist, and may you read it?") from None
    if not found:
        raise InputError(f"there are no files at {url}")
    return found
