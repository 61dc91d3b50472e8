"""Training times: draw the noise levels of a batch, and weigh the losses to correct for how they are drawn."""

import math

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from unnoise.diffusion.level import Level
from unnoise.diffusion.schedule import Levels, Schedule
from unnoise.errors import InputError
from unnoise.registry import times
from unnoise.types import PerImage

MAX_HISTORY = 1_000  # losses of each level

Time = Float64[Tensor, " b"]


class Times:
    """Draw the training times of a schedule. Subclasses define `draw`; some weigh the losses, some learn from them.

    Attributes that are learned are named by `remembered`: numbers, lists, dicts or tensors. A saved run keeps them.
    """

    remembered: tuple[str, ...] = ()

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def draw(self, batch: int, generator: Generator) -> Time:
        """Return a time for each image [b], 0..T-1; it need not be an integer."""
        raise NotImplementedError

    def levels(self, batch: int, generator: Generator) -> tuple[Level, Level]:
        """Return training levels: t at the times drawn, and s one step cleaner."""
        time = self.draw(batch, generator)
        return self.schedule.level(time), self.schedule.level((time - 1).clamp(min=-1))

    def weight(self, time: Time) -> Time:
        """Return the weight of each image's loss [b]."""
        return torch.ones_like(time)

    def update(self, time: Time, loss: PerImage) -> None:
        """Learn from the unweighted losses [b] at these times [b]."""


@times
class Uniform(Times):
    """Draw every level equally often, Ho et al. 2020 (arXiv:2006.11239), algorithm 1."""

    def draw(self, batch: int, generator: Generator) -> Time:
        return torch.randint(self.schedule.T, (batch,), generator=generator).double()


@times
class Stratified(Times):
    """Spread each batch evenly over all levels, Kingma et al. 2021 (arXiv:2107.00630), appendix I.1.

    A batch of b has one offset u: t_i = T ((u + i / b) mod 1). The losses of batches then vary less.
    """

    def draw(self, batch: int, generator: Generator) -> Time:
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        return ((offset + torch.arange(batch) / batch) % 1 * self.schedule.T).floor()


@times
class LogNormal(Times):
    """Draw log(sigma / alpha) from a normal distribution, Karras et al. 2022 (arXiv:2206.00364), table 1.

    The schedule only limits the range.

    Args:
        mean, std: P_mean and P_std of the paper, for images in [-1, 1].

    Raises:
        InputError: std is not above 0.
    """

    def __init__(self, schedule: Schedule, *, mean: float = -1.2, std: float = 1.2) -> None:
        super().__init__(schedule)
        if not std > 0:
            raise InputError(f"times lognormal: std is above 0, got {std}")
        self.mean, self.std = mean, std

    def draw(self, batch: int, generator: Generator) -> Time:
        log_ratio = self.mean + self.std * torch.randn(batch, generator=generator, dtype=torch.float64)
        return self.schedule.time(-log_ratio)


@times
class Importance(Times):
    """Draw levels by the root mean square of their last losses, Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 18.

    Times are uniform until every level has `history` losses. With the weight 1 / (T p) the expected loss is the same
    as for uniform times.

    Args:
        history: The number of losses that are kept of each level, up to 1,000.
        uniform: The share of times that is drawn uniformly, above 0 up to 1.

    Raises:
        InputError: history is not from 1 to 1,000, or uniform is not in (0, 1].
    """

    remembered = ("losses", "count")

    def __init__(self, schedule: Schedule, *, history: int = 10, uniform: float = 0.001) -> None:
        super().__init__(schedule)
        if not 1 <= history <= MAX_HISTORY or not 0 < uniform <= 1:
            raise InputError(
                f"times importance: history is 1 to {MAX_HISTORY:,} and uniform, the share drawn uniformly, above 0 "
                f"up to 1, got {history} and {uniform}"
            )
        self.uniform = uniform
        self.losses = torch.zeros(schedule.T, history, dtype=torch.float64)
        self.count = torch.zeros(schedule.T, dtype=torch.long)

    @property
    def probability(self) -> Float64[Tensor, " T"]:
        """Return the probability of each level."""
        T, size = self.losses.shape
        even = torch.full((T,), 1 / T, dtype=torch.float64)
        spread = self.losses.square().mean(dim=1).sqrt()
        if self.count.min() < size or not spread.sum() > 0:
            return even
        return self.uniform * even + (1 - self.uniform) * spread / spread.sum()

    def draw(self, batch: int, generator: Generator) -> Time:
        return torch.multinomial(self.probability, batch, replacement=True, generator=generator).double()

    def weight(self, time: Time) -> Time:
        return 1 / (self.schedule.T * self.probability[time.long()])

    def update(self, time: Time, loss: PerImage) -> None:
        for t, value in zip(time.long().tolist(), loss.detach().double().tolist(), strict=True):
            if math.isfinite(value):  # other losses teach nothing
                self.losses[t, self.count[t] % self.losses.shape[1]] = value
                self.count[t] += 1


class Visited(Times):
    """Draw the levels that a sampler visits, each equally often, and as s the level that it visits next."""

    def __init__(self, levels: Levels) -> None:
        super().__init__(levels.schedule)
        self.visited = torch.stack([level.time for level in levels])

    def levels(self, batch: int, generator: Generator) -> tuple[Level, Level]:
        """Return training levels: t at the times drawn, and s where the next step of the sampler ends."""
        step = torch.randint(len(self.visited) - 1, (batch,), generator=generator)
        return self.schedule.level(self.visited[step]), self.schedule.level(self.visited[step + 1])
