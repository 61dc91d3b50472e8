"""Masks and other annotations that lie next to images in the form of images: they are read, with a warning."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

MASK_FOLDERS = re.compile(
    r"(?!(with|without|no|face)[-_ ])(.*[-_ ])?"  # classes of people with and without a face mask
    r"(masks?|segmentations?|annotations?|trimaps?|mattes?|ground[-_ ]?truths?|gt|gtfine|gtcoarse|labelmaps?|"
    r"label[-_ ]images?|segmentation(class|object)(raw|aug)?|semantic|instances|depth|normals)",
    re.IGNORECASE,
)
MASK_FILES = re.compile(
    r".*[-_. ](masks?|seg|segm|segmentation|annotations?|gt|groundtruth|trimap|matte|labelids|labeltrainids|"
    r"instanceids)([-_. ]?\d+)?",
    re.IGNORECASE,
)


class MaskCount:
    """The number of images that are named like masks, in each folder."""

    def __init__(self) -> None:
        self.count: Counter[tuple[str, ...]] = Counter()
        self.examples: dict[tuple[str, ...], str] = {}

    def add(self, parts: Sequence[str], folders: tuple[str, ...]) -> None:
        """Count an image, by its path; `folders` are what the layout looks at."""
        if MASK_FILES.fullmatch(PurePosixPath(parts[-1]).stem) or any(map(MASK_FOLDERS.fullmatch, parts[:-1])):
            self.count[folders] += 1
            self.examples.setdefault(folders, "/".join(parts))

    def notes(self, used: Mapping[tuple[str, ...], int]) -> list[str]:
        """Return a warning if some images, and not all, are named like masks; `used` are the images of each folder."""
        folders = [folders for folders in self.count if folders in used]
        count, images = sum(self.count[each] for each in folders), sum(used.values())
        if not 0 < count < images:
            return []
        example = f"{self.examples[folders[0]]}{', ...' if count > 1 else ''}"
        text = f"{count:,} of {images:,} images are named like masks and are trained on: {example}"
        return [f"{text}; to leave them out, move them to a folder whose name starts with a dot, such as .masks"]
