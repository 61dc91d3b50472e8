"""When to do what takes time from the training: soon, then at growing intervals, within a share of the time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from unnoise.training.clock import Clock

FIRST, GROWTH = 40.0, 1.6  # seconds; factor between two


class TimeBudget:
    """Counts what was spent, so that the next one waits until it fits in its share of the time."""

    remembered = ("next", "spent", "last")

    def __init__(self, share: float) -> None:
        self.share = share
        self.next, self.spent, self.last = 0.0, 0.0, 0.0

    def due(self, clock: Clock) -> bool:
        first = min(FIRST, 0.15 * clock.seconds) if clock.seconds else FIRST
        return clock.elapsed >= (self.next or first) and self.spent + self.last <= self.share * clock.elapsed

    @contextmanager
    def taken(self, clock: Clock) -> Iterator[None]:
        """Time what is done here."""
        begun, elapsed = time.monotonic(), clock.elapsed
        yield
        self.last = time.monotonic() - begun
        self.spent += self.last
        self.next = GROWTH * elapsed
