"""Images kept out of training, to measure on."""

import numpy as np

from unnoise.data.dataset import Dataset
from unnoise.errors import InputError

SHARE, LEAST, MOST = 0.02, 64, 2_048
TENTH = 10  # of small data no more than a tenth is kept out


def split(dataset: Dataset, wanted: int | None = None) -> tuple[Dataset, Dataset]:
    """To train on, and held out: of the same data always the same images, whatever the seed of a run."""
    count = len(dataset)
    held = usual(count) if wanted is None else wanted
    if not 0 <= held < count:
        raise InputError(f"--held-out takes 0 to {count - 1} of the {count:,} images, got {held}")
    out = np.sort(dataset.chosen(held, 0))
    return dataset.part(np.delete(np.arange(count), out)), dataset.part(out)


def usual(count: int) -> int:
    """2 % of the images, at least 64, at most 2,048, and never more than a tenth."""
    return min(max(LEAST, round(SHARE * count)), MOST, count // TENTH)
