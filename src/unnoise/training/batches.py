"""The order of the data and the randomness of each step, both a function of (seed, images seen) alone."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from unnoise.config import TrainConfig
from unnoise.data.cache import Dataset
from unnoise.data.transforms import flip, to_float
from unnoise.diffusion.objective import Noised, add_noise
from unnoise.diffusion.times import Times
from unnoise.types import Images, Labels

ALL = slice(None)
CHUNK = 8  # images whose noise comes from one stream, so that a batch can be shared out in any way


def order(count: int, batch: int, seed: int, seen: int = 0) -> Iterator[np.ndarray]:
    """Endless batches of indices from image number `seen` on; each epoch is a new permutation, its last batch short."""
    while True:
        epoch, start = divmod(seen, count)
        permutation = np.random.default_rng([seed, epoch]).permutation(count)
        for begin in range(start, count, batch):
            yield permutation[begin : begin + batch]
        seen = (epoch + 1) * count


def seeds(*position: int) -> tuple[int, int]:
    """Two independent seeds of a position, such as (seed, images seen, chunk)."""
    one, two = np.random.SeedSequence(position).generate_state(2, np.uint64) >> np.uint64(1)
    return int(one), int(two)


def noised(
    dataset: Dataset,
    indices: np.ndarray,
    times: Times,
    config: TrainConfig,
    seen: int,
    device: torch.device | str = "cpu",
    mine: slice = ALL,
) -> Noised:
    """Read the rows `mine` of a batch and noise them, `seen` images before it: each gets the same whoever reads it.

    Flips, classes and levels are drawn on the CPU for the whole batch, noise on the device in chunks of it.
    """
    n = len(indices)
    seed, rest = seeds(config.seed, seen)
    rng, rows = Generator().manual_seed(seed), range(n)[mine]
    torch.manual_seed(rest + rows.start)  # for dropout, which draws from the global stream
    mirrored, known = (torch.rand(n, generator=rng)[mine] for _ in range(2))
    t, s = (level.part(mine) for level in times.levels(n, rng))
    x0 = to_float(torch.from_numpy(dataset.read(indices[mine])).to(device))
    if config.flip:
        x0 = flip(x0, mirrored < 0.5)
    label = None
    if config.classes:
        label = drop(torch.from_numpy(dataset.labels(indices[mine])), known >= config.label_dropout).to(device)
    return add_noise(x0, noise(config.seed, seen, rows, x0), (t, s), label)


def noise(seed: int, seen: int, rows: range, like: Float[Tensor, "_ c h w"]) -> Images:
    """Standard normal, for these rows of a batch: each chunk of the batch has a stream of its own."""

    def chunk(i: int) -> Images:
        generator = Generator(like.device).manual_seed(seeds(seed, seen, i + 1)[0])
        return torch.randn(CHUNK, *like.shape[1:], generator=generator, device=like.device)

    begin, end = rows.start // CHUNK, -(-rows.stop // CHUNK)
    return torch.cat([chunk(i) for i in range(begin, end)])[rows.start - begin * CHUNK :][: len(rows)]


def drop(label: Labels, known: Bool[Tensor, " b"]) -> Labels:
    """Take the class from the others; Ho & Salimans 2022 (arXiv:2207.12598), algorithm 1."""
    return label.where(known, torch.tensor(-1))
