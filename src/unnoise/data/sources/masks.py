"""Masks and other annotations that lie next to images in the form of images: they are read, with a warning."""

import re
from collections.abc import Sequence
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
    """The number of images that are named like masks."""

    def __init__(self) -> None:
        self.images, self.count, self.example = 0, 0, ""

    def add(self, parts: Sequence[str]) -> None:
        """Count an image, by its path."""
        self.images += 1
        if MASK_FILES.fullmatch(PurePosixPath(parts[-1]).stem) or any(map(MASK_FOLDERS.fullmatch, parts[:-1])):
            self.count += 1
            self.example = self.example or "/".join(parts)

    def notes(self) -> list[str]:
        """Return a warning if some images, and not all, are named like masks."""
        if not 0 < self.count < self.images:
            return []
        more = ", ..." if self.count > 1 else ""
        text = f"{self.count:,} of {self.images:,} images are named like masks and are trained on: {self.example}{more}"
        return [f"{text}; to leave them out, move them to a folder whose name starts with a dot, such as .masks"]
