"""Files and folders that systems and programs leave between images: recycle bins, previews, caches.

They are passed over in every layout, and their images are counted for a note.
"""

import os
from collections import Counter
from itertools import islice
from pathlib import PurePosixPath

from unnoise.data.sources.classes import join_first
from unnoise.data.sources.source import is_image

SYSTEM_NAMES = frozenset(
    {
        "@eadir",  # Synology
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "~snapshot",  # NetApp
        "files_trashbin",  # Nextcloud
        "files_versions",
        "$recycle.bin",  # Windows
        "recycler",
        "recycled",
        "system volume information",
        "found.000",
        "_vti_cnf",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "lost+found",  # Linux
        "__macosx",  # macOS
        "network trash folder",
        "temporary items",
        "icon\r",
        "ipod photo cache",
        "__pycache__",
        "node_modules",
    }
)
SYSTEM_SUFFIXES = (".lrdata", ".lrcat-data")  # previews of Lightroom
MAX_COUNTED = 100_000  # files of one such folder that are looked at


def is_passed_over(name: str) -> bool:
    """Return whether a file or folder of this name belongs to a system or a program, or is hidden by a first dot."""
    if name.startswith("."):
        return True
    lower = name.lower()
    return lower in SYSTEM_NAMES or lower.endswith(SYSTEM_SUFFIXES)


def passed_over_name(parts: tuple[str, ...]) -> str | None:
    """Return the first component of a path that is passed over, None if there is none."""
    return next((part for part in parts if is_passed_over(part)), None)


class PassedOver(Counter[str]):
    """The number of images that were passed over, by the name of the file or folder that hides them."""

    def add_path(self, parts: tuple[str, ...]) -> None:
        """Count the file at this path, if it is an image that is passed over."""
        hidden = passed_over_name(parts)
        if hidden is not None and is_image(parts[-1]):
            self[kind_of_leftover(hidden)] += 1

    def add_folder(self, name: str, path: str) -> None:
        """Count the images below a folder that is passed over; a folder that cannot be listed counts as empty."""
        files = (file for _, _, names in os.walk(path) for file in names)
        if images := sum(map(is_image, islice(files, MAX_COUNTED))):
            self[kind_of_leftover(name)] += images

    def notes(self) -> list[str]:
        """Return a line that names what was passed over, nothing if no image was."""
        if not self:
            return []
        named = join_first([f"{name} {n:,}" for name, n in self.most_common()])
        return [f"passed over {self.total():,} images in hidden files and files of the system: {named}"]


def kind_of_leftover(name: str) -> str:
    """Return the name under which a leftover is counted: hidden files share one, folders keep their own."""
    if not name.startswith(".") or not is_image(name):
        return name
    return f"{'._*' if name.startswith('._') else '.*'}{PurePosixPath(name).suffix.lower()}"
