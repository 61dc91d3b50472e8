"""The order of the images and the randomness of each step: both depend on (seed, images seen) alone."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from unnoise import registry
from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset, runs_of
from unnoise.diffusion.objective import Noised, add_noise
from unnoise.diffusion.schedule import Schedule
from unnoise.diffusion.times import Times, Visited
from unnoise.images import flip, to_float
from unnoise.training.augmentation import draw_transforms, falling, transform_images
from unnoise.types import Images, Labels

ALL = slice(None)
CHUNK = 8  # images whose noise comes from one random stream, so that a batch can be divided in any way
LANES, WINDOW = 16, 1024  # of streamed data: places of a batch that read side by side; images that are mixed


def order(dataset: Dataset, batch: int, seed: int, seen: int = 0) -> Iterator[np.ndarray]:
    """Yield batches of indices without end, from image number `seen` on.

    Each epoch is a new permutation; its last batch may be short.
    """
    count, groups = len(dataset), dataset.groups
    while True:
        epoch, start = divmod(seen, count)
        rng = np.random.default_rng([seed, epoch])
        permutation = rng.permutation(count) if groups is None else nearby(groups, batch, rng, dataset.store.room)
        for begin in range(start, count, batch):
            yield permutation[begin : begin + batch]
        seen = (epoch + 1) * count


def nearby(groups: np.ndarray, batch: int, rng: np.random.Generator, room: int) -> np.ndarray:
    """Return a permutation that is read group by group: few groups at a time, each for a few places of the batch.

    Groups in random order are dealt to lanes, and each lane is mixed within a window. A batch takes the same number of
    images from each lane, side by side: so each of several processes reads the groups of its own lanes only. All open
    groups together have `room` for a number of images. If that is not enough for a few groups, one group is read after
    the other, and each is mixed by itself.
    """
    runs = runs_of(groups)
    largest, in_order = max(map(len, runs)), rng.permutation(len(runs))
    if room < 4 * largest:
        return np.concatenate([rng.permutation(runs[i]) for i in in_order])
    sequence = np.concatenate([runs[i] for i in in_order])
    most = max(1, min(LANES, batch // CHUNK, room // (4 * largest)))
    lanes = next(n for n in range(most, 0, -1) if batch % n == 0)
    window = max(largest, min(WINDOW, room // lanes - 3 * largest))
    whole = len(sequence) // batch * batch
    dealt = sequence[:whole].reshape(lanes, -1)
    for lane in dealt:
        for begin in range(0, len(lane), window):
            rng.shuffle(lane[begin : begin + window])
    mixed = dealt.reshape(lanes, -1, batch // lanes).swapaxes(0, 1).reshape(-1)
    return np.concatenate([mixed, rng.permutation(sequence[whole:])])


def make_times(config: TrainConfig, schedule: Schedule) -> Times:
    """Return what draws the noise levels: as --times says, or in a distillation, as the student visits them."""
    if config.distill is not None:
        return Visited(schedule.grid(config.steps or 1, config.spacing))
    times: Times = registry.times.get(config.times)(schedule)
    return times


class Batch(NamedTuple):
    """Images as they are read: the `rows` of a batch of `n` images, numbered `indices`, that a process learns from."""

    n: int
    rows: slice
    indices: np.ndarray
    pixels: np.ndarray  # [b, c, h, w]
    labels: np.ndarray | None  # [b]


def read_batch(dataset: Dataset, indices: np.ndarray, rows: slice = ALL) -> Batch:
    """Read the `rows` of the images numbered `indices` [n]."""
    mine = indices[rows]
    return Batch(len(indices), rows, mine, dataset.read(mine), dataset.labels(mine))


def read_ahead(wanted: Iterator[np.ndarray], read: Callable[[np.ndarray], Batch]) -> Iterator[Callable[[], Batch]]:
    """Yield functions that return each batch; it is read while the model learns from the one before."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, next(wanted))
        for indices in wanted:
            this, coming = coming, reader.submit(read, indices)
            yield this.result


def seeds(*position: int) -> tuple[int, int]:
    """Return two independent seeds for a position such as (seed, images seen, chunk)."""
    one, two = np.random.SeedSequence(position).generate_state(2, np.uint64) >> np.uint64(1)
    return int(one), int(two)


def prepare(  # what the randomness of a step depends on
    batch: Batch,
    times: Times,
    config: TrainConfig,
    seen: int,
    device: torch.device | str = "cpu",
    progress: float = 0.0,
) -> Noised:
    """Flip, label and noise the images of a batch; an image gets the same in whichever process reads it.

    Flips, labels, levels and transforms are drawn on the CPU for the whole batch. Noise is drawn on the device, in
    chunks.

    Args:
        batch: the images.
        times: draws the noise levels.
        config: seed, flip, augment, classes and label dropout.
        seen: number of images before this batch.
        device: where the model is.
        progress: the share of the training that is done; with --decay none 0.
    """
    n, mine = batch.n, batch.rows
    seed, rest = seeds(config.seed, seen)
    rng, rows = Generator().manual_seed(seed), range(n)[mine]
    torch.manual_seed(rest + rows.start)  # for dropout, which draws from the global stream; train() restores it
    mirrored, known = (torch.rand(n, generator=rng)[mine] for _ in range(2))
    t, s = (level.part(mine) for level in times.levels(n, rng))
    x0 = to_float(torch.from_numpy(batch.pixels).to(device))
    if config.flip:
        x0 = flip(x0, mirrored < 0.5)
    transform = None
    if config.augment:
        drawn = draw_transforms(n, falling(config.augment, progress), rng)[mine]
        x0, transform = transform_images(x0, drawn), drawn.to(device)
    label = None
    if config.classes:
        label = drop_labels(torch.from_numpy(batch.labels), known >= config.label_dropout).to(device)
    return add_noise(x0, noise(config.seed, seen, rows, x0), (t, s), label)._replace(transform=transform)


def noise(seed: int, seen: int, rows: range, like: Float[Tensor, "_ c h w"]) -> Images:
    """Return standard normal noise for rows of a batch; each chunk of the batch has a random stream of its own."""

    def chunk(i: int) -> Images:
        generator = Generator(like.device).manual_seed(seeds(seed, seen, i + 1)[0])
        return torch.randn(CHUNK, *like.shape[1:], generator=generator, device=like.device)

    begin, end = rows.start // CHUNK, -(-rows.stop // CHUNK)
    return torch.cat([chunk(i) for i in range(begin, end)])[rows.start - begin * CHUNK :][: len(rows)]


def drop_labels(label: Labels, known: Bool[Tensor, " b"]) -> Labels:
    """Replace the label by -1 where it is not known; Ho & Salimans 2022 (arXiv:2207.12598), algorithm 1."""
    return label.where(known, torch.tensor(-1))
