"""Measure KID of drawn images at marks of the training, at a cost that is printed before; keep the best weights."""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from unnoise.config import Sampling
from unnoise.data.dataset import Dataset, class_counts
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError
from unnoise.evaluation.features import efficientnet
from unnoise.evaluation.image_sets import BY_COUNT, dataset_images, extraction_seconds
from unnoise.evaluation.measure import measure, measure_pixels
from unnoise.evaluation.metrics import kid
from unnoise.evaluation.references import new_or_trained
from unnoise.evaluation.scores import Score
from unnoise.evaluation.statistics import Statistics
from unnoise.images import to_uint8
from unnoise.progress import duration, silent
from unnoise.training.clock import Clock
from unnoise.training.monitors.drawing import draw_images, seconds_each
from unnoise.training.monitors.monitor import Outcome
from unnoise.training.signals import Stop
from unnoise.types import Images

MARKS, KID_SHARE = (0.1, 0.2, 0.4, 0.7, 1.0), 0.04  # shares of the training; of its time, for all marks together
LEAST_DRAWN, MOST_DRAWN = 100, 1_000  # images: with fewer KID says nothing, more are not needed to see it fall
MOST_STEPS, MOST_COMPARED = 20, 2_000  # of the sampler, enough to tell weights apart; images to compare with
PLATEAU = 1_800.0  # seconds without a change beyond the interval that are worth a message


class KidMonitor:
    """Plan at the first mark, when the pace is known; measure nothing if there is no time for it."""

    name, remembered = "kid", ("count", "next", "spent", "last", "each", "rows")

    def __init__(self, dataset: Dataset, settings: Sampling, held: Dataset | None = None) -> None:
        self.dataset, self.settings = dataset, settings.within(MOST_STEPS)
        self.compared, self.which = new_or_trained(dataset, held)
        self.count = self.next = 0
        self.spent = self.last = self.each = 0.0  # seconds: of all marks, of the last one, of an image as planned
        self.rows, self.best = list[dict[str, Any]](), False  # best: the last row is the best so far
        self.real: Statistics | None = None
        self.extractor = cache(efficientnet)  # its weights are read at the first call
        self.class_counts = cache(partial(class_counts, dataset, MOST_COMPARED))  # of a stream, images are read

    def due(self, clock: Clock) -> bool:
        """Return True from the next mark on; at the end only if measuring was planned before."""
        return self.next < len(MARKS) and clock.progress >= MARKS[self.next] and (self.count > 0 or clock.progress < 1)

    def run(self, model: Diffusion, clock: Clock, stop: Stop) -> Outcome:
        """Plan if that is not done yet, and measure at a mark."""
        before, messages = len(self.rows), [] if self.count else [self.plan(clock)]
        if messages and self.count:
            messages[0] += f", against {self.which}" + (f", classes {BY_COUNT}" if model.classes else "")
        if not self.due(clock):
            return Outcome(messages=messages)
        counts = self.class_counts() if model.classes else None
        note = self.measure(lambda n, s: draw_images(model, n, self.settings, stop, s, class_counts=counts), clock)
        for row in (rows := self.rows[before:]):
            value, low, high = (f"{1000 * number:.1f}" for number in (row["kid"], *row["kid_interval"]))
            messages.append(f"KID       {value}, {low} to {high} (95 %; x 1000, {row['pictures']} images)")
        return Outcome(rows, messages + ([note] if note else []), self.best)

    def plan(self, clock: Clock) -> str:
        """Choose the number of images, the same at each mark; return what will be done and what it costs."""
        compared = min(MOST_COMPARED, len(self.compared))
        if compared < LEAST_DRAWN or self.dataset.shape[0] > 4:
            return self.give_up(f"it needs {LEAST_DRAWN} training images or more, of 1 to 4 channels")
        try:
            look = extraction_seconds(self.extractor())
        except InputError as error:
            return self.give_up(str(error))
        self.each = seconds_each(self.settings, clock) + look
        room = KID_SHARE * (clock.elapsed + clock.left) - compared * look
        self.count = max(0, min(MOST_DRAWN, int(room / (len(MARKS) + 1) / self.each)))  # one more mark, to be safe
        if self.count < LEAST_DRAWN:
            return self.give_up(f"{LEAST_DRAWN} images take more than {KID_SHARE:.0%} of the time")
        when, cost = ", ".join(f"{mark:.0%}" for mark in MARKS), duration(self.count * self.each)
        return f"KID       will be measured with {self.count} images at {when} of the training, about {cost} each time"

    def give_up(self, why: str) -> str:
        """Measure nothing from now on; return a message that says why."""
        self.count, self.next, self.best = 0, len(MARKS), False
        return f"KID       is not measured during this training{' any more' if self.rows else ''}: {why}"

    def measure(self, draw: Callable[[int, float], Images | None], clock: Clock) -> str | None:
        """Score images and return a message or None; `draw(count, seconds)` returns None when the time is over."""
        begun, self.next, self.best = time.monotonic(), self.next + 1, False
        room = KID_SHARE * (clock.elapsed + clock.left) - self.spent
        if self.last > room and self.next < len(MARKS):
            return self.wait_for_the_end(room)
        try:
            images = draw(self.count, room)
            if images is None and time.monotonic() - begun > room:
                return self.give_up("drawing takes longer than planned, and its share of the time is spent")
            return self.add_row(images, clock) if images is not None and images.isfinite().all() else None
        except (InputError, OSError) as error:  # such as a full disk: no reason to stop the training
            return self.give_up(str(error))
        finally:
            self.last = time.monotonic() - begun
            self.spent += self.last

    def wait_for_the_end(self, room: float) -> str:
        """Spend what is left of the share on the final weights, after the machine was busy for a while."""
        self.next, self.count = len(MARKS) - 1, min(self.count, int(0.8 * room / self.each))
        if self.count < LEAST_DRAWN:
            return self.give_up("the last time took longer than planned, and its share of the time is spent")
        return f"KID       is measured again only at the end, with {self.count} images: the last time took too long"

    def add_row(self, images: Images, clock: Clock) -> str | None:
        """Add the KID of images [n, c, h, w]; return a message if KID stands still."""
        if self.real is None:
            known = dataset_images(self.compared, min(MOST_COMPARED, len(self.compared)), 0, 64)
            self.real = measure(known, self.extractor(), "", silent)
        score = kid(measure_pixels(to_uint8(images), self.extractor()).kept, self.real.kept)
        self.best = all(score.value < row["kid"] for row in self.rows)
        row = {"images": clock.seen, "seconds": round(clock.elapsed, 2), "kid": score.value, "pictures": self.count}
        self.rows.append({**row, "kid_error": score.standard_error, "kid_interval": list(score.interval)})
        return self.standing_still(score)

    def standing_still(self, last: Score) -> str | None:
        """Return a message if no KID of the last PLATEAU seconds lies outside the last one's interval."""
        before = [row for row in self.rows if row["seconds"] <= self.rows[-1]["seconds"] - PLATEAU]
        since = self.rows[self.rows.index(before[-1]) :] if before else []
        if not since or any(not last.interval[0] <= row["kid"] <= last.interval[1] for row in since):
            return None
        return f"KID       has stayed within its interval for {duration(since[-1]['seconds'] - since[0]['seconds'])}"
