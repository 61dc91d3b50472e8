"""The images of a set, found by what a table calls them."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from unnoise.data.sources.source import is_image


def sample_key(name: str) -> str:
    """Return the name up to its first dot; the files of one WebDataset sample share this key."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


class ImageNames:
    """The images of a set, to be found by what a table calls them."""

    def __init__(self, images: Iterable[str]) -> None:
        self.by_stem = defaultdict[str, list[str]](list)
        self.folders = {""}
        for image in images:
            folder, _, file = image.rpartition("/")
            self.by_stem[comparable(stem_of(file))].append(image)
            while folder not in self.folders:
                self.folders.add(folder)
                folder = folder.rpartition("/")[0]

    def holds(self, table: str, text: Any) -> bool:
        """Return whether a text in a table names an image."""
        return self.find(table, text) is not None

    def find(self, table: str, text: Any) -> str | None:
        """Return the image that a table names; None if there is none, or several.

        Folders in front of the name and the suffix may be missing, and the table may be written for a folder above.
        """
        parts = [part for part in str(text).strip().replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts:
            return None
        above = table.rpartition("/")[0]
        matches: Sequence[str] = self.by_stem.get(comparable(stem_of(parts[-1])), ())
        if above and above in self.folders:
            matches = [image for image in matches if image.startswith(f"{above}/")]
        inside = len(f"{above}/") if above and above in self.folders else 0
        scored = [(match_quality(image[inside:].split("/"), parts), image) for image in matches]
        best = max((score for score, _ in scored), default=(0, False))
        winners = [image for score, image in scored if score == best and best[0]]
        return winners[0] if len(winners) == 1 else None


def match_quality(own: Sequence[str], wanted: Sequence[str]) -> tuple[int, bool]:
    """Return how well a path fits a name in a table: the length of the common end, 0 if one contradicts the other."""
    common = min(len(own), len(wanted))
    ends = [[*map(comparable, (*path[-common:-1], stem_of(path[-1])))] for path in (own, wanted)]
    if ends[0] != ends[1]:
        return 0, False
    return (1_000_000 if len(own) == len(wanted) else common), own[-1] == wanted[-1]


def stem_of(file: str) -> str:
    """Return the name of an image without its suffix; other dots stay."""
    return file.rpartition(".")[0] if is_image(file) else file


def comparable(text: str) -> str:
    """Return a name without differences of capital letters and Unicode forms."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFC", text).casefold()
