"""The protocol of a monitor, and a budget that keeps it within its share of the time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from unnoise.diffusion.model import Diffusion
from unnoise.training.clock import Clock
from unnoise.training.signals import Stop

FIRST = 40.0  # seconds before the first turn
GROWTH = 1.6  # factor from one turn to the next


class Outcome(NamedTuple):
    """The result of a monitor's turn."""

    rows: Sequence[Mapping[str, Any]] = ()  # for metrics.jsonl; each names the "images" seen
    messages: Sequence[str] = ()  # to print
    best: bool = False  # True keeps the averaged weights in best.safetensors
    keep: bool = False  # True keeps them in without-copies.safetensors
    end: bool = False  # True ends the training, with the weights that were kept last


@runtime_checkable
class Monitor(Protocol):
    """Anything that looks at a model while it trains. Pass your own by `unnoise.train(..., monitors=[...])`.

    The loop asks each monitor after each step. A monitor keeps its own time; `TimeBudget` helps.
    A monitor may have `remembered`, the names of attributes that are saved in the state of the run.
    """

    @property
    def name(self) -> str:
        """Name the monitor in messages and in the state."""

    def due(self, clock: Clock) -> bool:
        """Return True if the monitor wants to run now; at the end of the training, `clock.progress` is 1."""

    def run(self, model: Diffusion, clock: Clock, stop: Stop) -> Outcome:
        """Measure or draw.

        Args:
            model: the model with the averaged weights.
            clock: images and seconds so far.
            stop: `stop.signal` is not None if the training is asked to end; long work should then end too.
        """


class TimeBudget:
    """Give turns soon, then at growing intervals, within a share of the time of the training."""

    remembered = ("next", "spent", "last")

    def __init__(self, share: float) -> None:
        self.share = share
        self.next, self.spent, self.last = 0.0, 0.0, 0.0  # seconds: time of the next turn; of all turns; of the last

    def due(self, clock: Clock) -> bool:
        """Return True if the interval is over and a turn as long as the last one fits in the share."""
        first = min(FIRST, 0.15 * clock.seconds) if clock.seconds else FIRST
        return clock.elapsed >= (self.next or first) and self.spent + self.last <= self.share * clock.elapsed

    @contextmanager
    def spending(self, clock: Clock) -> Iterator[None]:
        """Count the time that is spent in this context."""
        begun, elapsed = time.monotonic(), clock.elapsed
        yield
        self.last = time.monotonic() - begun
        self.spent += self.last
        self.next = GROWTH * elapsed
