"""KID of pictures drawn while training, at a cost that is known beforehand; the best weights are kept."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

from unnoise import registry
from unnoise.config import Sampling
from unnoise.data.dataset import Dataset
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import dataset_images, seconds_to_look
from unnoise.evaluation.measure import gathered, statistics
from unnoise.evaluation.metrics import Score, kid
from unnoise.evaluation.statistics import Statistics
from unnoise.images import to_uint8
from unnoise.progress import duration
from unnoise.sampling import network_calls
from unnoise.training.clock import Clock
from unnoise.types import Images

MARKS = (0.1, 0.2, 0.4, 0.7, 1.0)  # of the way: growing intervals
SHARE = 0.04  # of the time of the whole training, for all of them
STEPS = 20  # of the sampler at most: what counts is which weights draw better
FEWEST, MOST = 100, 1_000  # pictures: with fewer KID says nothing, more are not needed to see it fall
REFERENCE = 2_000  # training images they are compared with
STILL = 1_800.0  # seconds without a change beyond the interval that are worth telling


class KidMonitor:
    """Plans at the first mark, once the pace is known; silent where there is no time for it."""

    remembered = ("count", "next", "spent", "last", "each", "rows")

    def __init__(self, dataset: Dataset, how: Sampling) -> None:
        self.dataset, self.how = dataset, how.within(STEPS)
        self.count, self.next = 0, 0
        self.spent = self.last = self.each = 0.0  # seconds: of all so far, of the last one, of a picture as planned
        self.rows, self.best = list[dict[str, Any]](), False  # whether the last row is the best so far
        self.real: Statistics | None = None

    def due(self, clock: Clock) -> bool:
        return self.next < len(MARKS) and clock.progress >= MARKS[self.next]

    @cached_property
    def extractor(self) -> Extractor:
        return cast("Extractor", registry.features.get("efficientnet")())

    def plan(self, clock: Clock, images_per_second: float) -> str:
        """Decide on the number of pictures, the same each time; returns what will be done and what it costs."""
        known = min(REFERENCE, len(self.dataset))
        if known < FEWEST or self.dataset.shape[0] > 4:
            return self.never(f"it takes {FEWEST} images or more of 1 to 4 channels")
        try:
            look = seconds_to_look(self.extractor)
        except InputError as error:
            return self.never(str(error))
        self.each = network_calls(self.how) / (3 * images_per_second) + look  # a call is about a third of a step
        room = SHARE * (clock.elapsed + clock.left) - known * look
        self.count = max(0, min(MOST, int(room / (len(MARKS) + 1) / self.each)))  # one more, to be safe
        if self.count < FEWEST:
            return self.never(f"in {SHARE:.0%} of the time there is none for {FEWEST} pictures")
        marks = ", ".join(f"{mark:.0%}" for mark in MARKS)
        return f"KID of {self.count} pictures at {marks} of the way, about {duration(self.count * self.each)} each time"

    def never(self, why: str) -> str:
        self.count, self.next, self.best = 0, len(MARKS), False
        return f"no KID on the way{' any more' if self.rows else ''}: {why}"

    def measure(self, draw: Callable[[int, float], Images | None], clock: Clock) -> str | None:
        """Score so many pictures that `draw` makes, and add a row; returns what is to be told.

        `draw` gives up (None) when the seconds it is given are over: on a machine that has become busy, too, all
        measuring keeps to its share of the time.
        """
        begun, self.next, self.best = time.monotonic(), self.next + 1, False
        room = SHARE * (clock.elapsed + clock.left) - self.spent
        if self.last > room and self.next < len(MARKS):
            return self.save_for_the_end(room)
        try:
            images = draw(self.count, room)
            if images is None and time.monotonic() - begun > room:
                return self.never("drawing takes longer than planned, and its share of the time is spent")
            return self.add(images, clock) if images is not None and images.isfinite().all() else None
        except (InputError, OSError) as error:  # such as a full disk: no reason to stop the training
            return self.never(str(error))
        finally:
            self.last = time.monotonic() - begun
            self.spent += self.last

    def save_for_the_end(self, room: float) -> str:
        """On a machine that was busy for a while: what is left of the time is best spent on the final weights."""
        self.next, self.count = len(MARKS) - 1, min(self.count, int(0.8 * room / self.each))
        late = "the last one took longer than planned"
        if self.count < FEWEST:
            return self.never(f"{late}, and its share of the time is spent")
        return f"KID again at the end only, of {self.count} pictures: {late}"

    def add(self, images: Images, clock: Clock) -> str | None:
        if self.real is None:
            known = dataset_images(self.dataset, min(REFERENCE, len(self.dataset)), 0, 64)
            self.real = statistics(known, self.extractor, "", lambda *_: None)
        drawn = gathered(to_uint8(images), self.extractor)
        score = kid(drawn.kept, self.real.kept)
        self.best = all(score.value < row["kid"] for row in self.rows)
        row = {"images": clock.seen, "seconds": round(clock.elapsed, 2), "kid": score.value}
        self.rows.append({**row, "kid_error": score.standard_error, "pictures": self.count})
        return self.still(score)

    def still(self, last: Score) -> str | None:
        """Whether no KID since at least STILL ago lies outside the last one's interval."""
        before = [row for row in self.rows if row["seconds"] <= self.rows[-1]["seconds"] - STILL]
        if not before:
            return None
        since = self.rows[self.rows.index(before[-1]) :]
        if any(abs(row["kid"] - last.value) > 1.96 * last.standard_error for row in since):
            return None
        return f"KID has not moved beyond its interval for {duration(since[-1]['seconds'] - since[0]['seconds'])}"

    def __str__(self) -> str:
        """The last row in words."""
        row = self.rows[-1]
        return f"{1000 * row['kid']:.1f} +- {1000 * row['kid_error']:.1f} (x 1000, {row['pictures']} pictures)"
