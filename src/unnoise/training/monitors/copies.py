"""Look for copies of training images among drawn images; keep the last weights without them, and end the training."""

from typing import Any

import numpy as np
import torch

from unnoise.config import Sampling
from unnoise.data.dataset import Dataset
from unnoise.diffusion.model import Diffusion
from unnoise.evaluation.copies import copied
from unnoise.evaluation.references import new_or_trained
from unnoise.images import Uint8Images, as_uint8, to_uint8
from unnoise.training.clock import Clock
from unnoise.training.monitors.drawing import draw_images, seconds_each
from unnoise.training.monitors.monitor import Outcome, TimeBudget
from unnoise.training.signals import Stop

MOST_TRAINED = 5_000  # images; copies of more are not looked for
EARLIEST = 20  # passes over the data; benchmarks/results/few_images has no copies before 80
COPIES_SHARE = 0.04  # of the time of the training, for all turns
MOST_STEPS, LEAST_DRAWN, MOST_DRAWN = 20, 50, 200  # of the sampler; images of a turn


class CopiesMonitor:
    """Compare drawn images with all training images, as often as its share of the time allows.

    A drawn image is flagged if it is nearer to one training image than new images are. Weights are kept if drawn images
    are flagged as seldom as new ones, within a standard error. The training ends if drawn images are flagged more often
    beyond doubt (95 %).
    """

    name, remembered = "copies", ("budget", "count", "looked_at")

    def __init__(
        self, trained: Dataset, held: Dataset, settings: Sampling, *, allowed: bool, mirrored: bool = False
    ) -> None:
        self.trained, self.settings = trained, settings.within(MOST_STEPS)
        self.mirrored, self.allowed = mirrored, allowed
        self.new, _ = new_or_trained(trained, held)
        self.budget = TimeBudget(COPIES_SHARE)
        self.count, self.looked_at = 0, -1  # images to draw, once they are planned; images seen at the last look

    def due(self, clock: Clock) -> bool:
        """Return True if the budget gives a turn, and at the end, once images were seen often enough to be copied."""
        few = len(self.trained) <= MOST_TRAINED and self.trained.groups is None
        at_the_end = clock.progress >= 1 and self.looked_at != clock.seen
        seen_often = clock.seen >= EARLIEST * len(self.trained) and not clock.ended
        return few and seen_often and (at_the_end or self.budget.due(clock))

    def run(self, model: Diffusion, clock: Clock, stop: Stop) -> Outcome:
        """Draw and compare; say whether these weights are kept, and whether the training ends."""
        affordable = (COPIES_SHARE * clock.elapsed - self.budget.spent) / seconds_each(self.settings, clock)
        self.count = self.count or int(max(LEAST_DRAWN, min(MOST_DRAWN, affordable)))
        with self.budget.spending(clock):
            images = draw_images(model, self.count, self.settings, stop)
            found = None if images is None else self.compare(to_uint8(images))
        self.looked_at = clock.seen
        if found is None:
            return Outcome()
        drawn, new = found["drawn"], found["new"]
        row = {"images": clock.seen, "seconds": round(clock.elapsed, 2), "copies": drawn["value"]}
        rows = [{**row, "copies_interval": drawn["interval"], "copies_of_new": new["value"]}]
        if drawn["interval"][0] <= new["interval"][1]:
            one_error = (new["interval"][1] - new["value"]) / 2
            return Outcome(rows, keep=drawn["value"] <= new["value"] + one_error)
        told = (
            f"copies    {drawn['value']:.0%} of {self.count} drawn images are nearer to one training image than new "
            f"images are, and {new['value']:.1%} of new images"
        )
        return Outcome(rows, [told], end=not self.allowed)

    def compare(self, drawn: Uint8Images) -> dict[str, Any] | None:
        """Return the flagged shares of drawn and of new images; None if there are too few images."""
        trained, new = read_all(self.trained), read_all(self.new)
        own = torch.arange(len(trained)) if self.new is self.trained else None
        return copied(drawn, new, trained, own, mirrored=self.mirrored)


def read_all(dataset: Dataset) -> Uint8Images:
    """Return all images of a dataset, 8-bit, [n, c, h, w]."""
    return as_uint8(torch.from_numpy(dataset.read(np.arange(len(dataset)))))
