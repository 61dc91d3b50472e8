"""The order of the data and the randomness of each step, both a function of (seed, images seen) alone."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator

from unnoise.config import TrainConfig
from unnoise.data.cache import Dataset
from unnoise.data.transforms import flip, to_float
from unnoise.diffusion.objective import Noised, add_noise
from unnoise.diffusion.times import Times
from unnoise.types import Labels


def order(count: int, batch: int, seed: int, seen: int = 0) -> Iterator[np.ndarray]:
    """Endless batches of indices from image number `seen` on; each epoch is a new permutation, its last batch short."""
    while True:
        epoch, start = divmod(seen, count)
        permutation = np.random.default_rng([seed, epoch]).permutation(count)
        for begin in range(start, count, batch):
            yield permutation[begin : begin + batch]
        seen = (epoch + 1) * count


def streams(seed: int, rank: int, seen: int, device: torch.device | str = "cpu") -> tuple[Generator, Generator]:
    """The independent random streams of one step: on the CPU for flips and levels, on the device for the noise.

    And the global one, which dropout draws from, starts anew.
    """
    cpu, noise, rest = (
        int(state >> np.uint64(1)) for state in np.random.SeedSequence([seed, rank, seen]).generate_state(3, np.uint64)
    )
    torch.manual_seed(rest)
    return Generator().manual_seed(cpu), Generator(device).manual_seed(noise)


def noised(
    dataset: Dataset, indices: np.ndarray, times: Times, rngs: tuple[Generator, Generator], config: TrainConfig
) -> Noised:
    """Read a batch and noise it; flips, scaling and noise are computed on the second stream's device."""
    rng, noise_rng = rngs
    device = noise_rng.device
    pixels = torch.from_numpy(dataset.read(indices)).to(device)
    x0 = flip(to_float(pixels), rng) if config.flip else to_float(pixels)
    labels = dataset.labels(indices) if config.classes else None
    label = None if labels is None else drop(torch.from_numpy(labels), config.label_dropout, rng).to(device)
    eps = torch.randn(x0.shape, generator=noise_rng, device=device)
    return add_noise(x0, eps, times.levels(len(x0), rng), label)


def drop(label: Labels, share: float, rng: Generator) -> Labels:
    """Take the class from each image with this probability; Ho & Salimans 2022 (arXiv:2207.12598), algorithm 1."""
    return label.where(torch.rand(len(label), generator=rng) >= share, torch.tensor(-1))
