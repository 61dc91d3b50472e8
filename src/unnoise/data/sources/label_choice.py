"""The choice between several label files, and between files and folders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from unnoise.data.sources.classes import NO_CLASSES, first_few
from unnoise.errors import InputError


class FoundLabels(NamedTuple):
    """The labels that files give to a set of images."""

    of: Mapping[str, str | None] | None  # the label of each image; None: no label file counts
    notes: Sequence[str]
    used: Mapping[str, int] = {}  # files that were read, by suffix


class Candidate(NamedTuple):
    """The labels of one file, or of the files that belong together."""

    what: str  # its name in messages
    labels: Mapping[str, str]
    notes: Sequence[str]
    used: Mapping[str, int]
    beside: bool = False  # each file holds the label of one image


class RefusedError(ValueError):
    """Raised if a label file does not count; the message says what was seen and why."""


def count_images(n: int) -> str:
    """Return a number of images."""
    return "1 image" if n == 1 else f"{n:,} images"


def choose_labels(
    found: Sequence[Candidate], refused: Sequence[str], folders: Mapping[str, str | None], wanted: str | None
) -> FoundLabels:
    """Return the labels that most images have: of a label file, or of the folders if they alone label everything."""
    if wanted and not found:
        raise InputError(f"--label-column {wanted!r}: " + ("; ".join(refused) or "there is no label file"))
    reasons = [f"{NO_CLASSES}{reason}" for reason in refused]
    if not found:
        return FoundLabels(None, reasons)
    best = max(found, key=lambda candidate: len(candidate.labels))
    if best.beside:
        labels = {image: best.labels.get(image, folder) for image, folder in folders.items()}
        return FoundLabels(labels, [f"the classes are {best.what}"], best.used)
    notes = [f"{other.what} are labels too, which are not used" for other in found if other is not best]
    by_folder = len({*folders.values()}) > 1 and None not in folders.values()
    if not wanted and by_folder and len(best.labels) < len(folders):
        said = (
            f"{best.what} names a class of {len(best.labels):,} of {len(folders):,} images: the folders are the classes"
        )
        return FoundLabels(None, [said])
    if not wanted and by_folder and agree(best.labels, folders):
        return FoundLabels(None, [], best.used)  # the same classes; the folders' names are their names
    missing = [image for image in folders if image not in best.labels]
    notes = [f"the classes are {best.what}", *best.notes, *notes]
    if missing:
        notes.append(f"it has no label for {count_images(len(missing))}: {first_few(missing)}")
    return FoundLabels({image: best.labels.get(image) for image in folders}, notes, best.used)


def agree(labels: Mapping[str, str], folders: Mapping[str, str | None]) -> bool:
    """Return whether labels and folders divide the images into the same classes."""
    pairs = {(labels.get(image), folder) for image, folder in folders.items()}
    return len(pairs) == len({label for label, _ in pairs}) == len({folder for _, folder in pairs})


def uncount(ignored: Counter[str], used: Mapping[str, int]) -> None:
    """Take the files that were read out of the count of ignored files."""
    for suffix, n in used.items():
        if suffix in ignored:
            ignored[suffix] -= min(n, ignored[suffix])
            if not ignored[suffix]:
                del ignored[suffix]
