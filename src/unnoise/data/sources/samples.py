"""Several images of one WebDataset sample: which of them are used.

Files of a tar that share their name up to the first dot are one sample. Annotations in the form of images, such as
`1.mask.png` next to `1.jpg`, are left out, and so is a second format, as in `1.jpg` and `1.png`. Images with other
names of their own, and views that differ in a number, such as `1.0.jpg` and `1.1.jpg`, are all used.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from unnoise.data.sources.classes import join_first
from unnoise.data.sources.image_names import sample_key
from unnoise.data.sources.masks import MASK_FILES
from unnoise.data.sources.source import READS

ANNOTATIONS = re.compile(
    r"\b(depth|normals?|flow|edges?|canny|pose|alpha|thumb(nail)?s?|semantic|instances?|labels?)\b"
)
MOST_VIEWS = 64  # images of one sample; names with more in common than that are no samples


class Samples:
    """The kinds of images that samples hold, and the images that are left out."""

    def __init__(self) -> None:
        self.count, self.used, self.out = 0, Counter[str](), Counter[str]()

    def left_out(self, archives: Sequence[Sequence[str]]) -> list[set[str]]:
        """Return the names of the images of each archive that are left out."""
        found = [samples_of(names) for names in archives]
        if not any(found):
            return [set() for _ in found]
        kinds = Counter(kind_of(name) for names in archives for name in names)
        usual = {kind for kind, n in kinds.items() if 2 * n >= max(kinds.values())}  # others are strays
        return [{name for sample in samples for name in self.sort_out(sample, usual)} for samples in found]

    def sort_out(self, sample: Sequence[str], usual: set[str]) -> list[str]:
        """Return the images of one sample that are left out, and count them and the others."""
        images = [name for name in sample if not is_annotation(name)] or sample
        plain = sorted((name for name in images if kind_of(name).count(".") == 1), key=rank)
        second = {name for name in plain[1:] if kind_of(name) in usual}
        out = [name for name in sample if name not in images or name in second]
        self.count += 1
        self.out.update(map(kind_of, out))
        self.used.update(kind_of(name) for name in sample if name not in out)
        return out

    def notes(self) -> list[str]:
        """Return lines about samples that hold several images."""
        if self.out:
            named, beside = (
                join_first([f"{kind} {n:,}" for kind, n in kinds.items()]) for kinds in (self.out, self.used)
            )
            return [f"left out {self.out.total():,} images beside others of the same samples: {named}; used: {beside}"]
        if self.count > 1:
            return [f"{self.count:,} samples hold several images, and all are used: {join_first([*self.used])}"]
        return []


def samples_of(names: Sequence[str]) -> list[list[str]]:
    """Return the names of the images of each sample that holds several."""
    keys, several = Counter(map(sample_key, names)), defaultdict[str, list[str]](list)
    if len(keys) < len(names):
        for name in names:
            if 1 < keys[key := sample_key(name)] <= MOST_VIEWS:
                several[key].append(name)
    return [*several.values()]


def kind_of(name: str) -> str:
    """Return what comes after the key of a sample, the same for all numbers: `.mask.png`, `.#.jpg`."""
    return re.sub(r"\d+(?=.*\.)", "#", name[len(sample_key(name)) :].lower())


def is_annotation(name: str) -> bool:
    """Return whether an image of a sample is named like a mask, a depth map or a thumbnail."""
    stem = PurePosixPath(name).stem
    words = stem.partition(".")[2].lower().replace("_", " ")
    return bool(words) and bool(MASK_FILES.fullmatch(f".{words}") or ANNOTATIONS.search(words))


def rank(name: str) -> int:
    """Return the place of a suffix among the usual ones: photos come before drawings."""
    suffix = PurePosixPath(name).suffix[1:].lower()
    return READS.index(suffix) if suffix in READS else len(READS)
