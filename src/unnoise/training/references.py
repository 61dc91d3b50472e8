"""Choose the training images that may explain a noisy image, for a target with less noise (`StableTarget`)."""

from typing import NamedTuple

import numpy as np
import torch

from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.diffusion.objective import Noised
from unnoise.diffusion.stable_target import StableTarget
from unnoise.images import to_float

MOST, MOST_VALUES = 4096, 2**24  # images, and numbers in all of them, which take 64 MiB


class References(NamedTuple):
    """Hold the sorted numbers of the references in a dataset, and the targets that they give."""

    numbers: np.ndarray
    target: StableTarget

    def average(self, batch: Noised, numbers: np.ndarray) -> Noised:
        """Return a batch, made of the images of these numbers [b], with the mean of the references."""
        column = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
        return self.target(batch, torch.from_numpy(np.where(self.numbers[column] == numbers, column, -1)))


def reference_count(config: TrainConfig, shape: tuple[int, int, int], count: int) -> int:
    """Return how many of `count` training images are references.

    By default it is as many as fit into 64 MiB, at most 4,096; none of streamed data, which is slow to read in any
    order, and none in a distillation.
    """
    if config.distill is not None:  # the teacher knows better
        return 0
    if config.references is not None:
        return min(config.references, count)
    return 0 if config.stream else min(MOST, MOST_VALUES // int(np.prod(shape)), count)


def choose_references(dataset: Dataset, config: TrainConfig, device: torch.device) -> References | None:
    """Choose and read the references from the training set; None if there are none. With `flip`, half are mirrored."""
    count = reference_count(config, dataset.shape, len(dataset))
    if not count:
        return None
    rng = np.random.default_rng([config.seed, len(dataset)])
    numbers = np.sort(rng.permutation(len(dataset))[:count])
    images = to_float(torch.from_numpy(dataset.read(numbers)).to(device))
    if config.flip:
        images[::2] = images[::2].flip(3)
    labels = torch.from_numpy(dataset.labels(numbers)).to(device) if config.classes else None
    return References(numbers, StableTarget(images, labels))
