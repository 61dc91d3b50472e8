"""Measure the loss on held-out images, at fixed noise and levels, beside the loss on as many training images."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.data.dataset import Dataset
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Objective, add_noise
from unnoise.evaluation.scores import symmetric
from unnoise.images import to_float
from unnoise.samplers.draw import seeded_noise
from unnoise.training.clock import Clock
from unnoise.training.monitors.monitor import Outcome, TimeBudget
from unnoise.training.signals import Stop

BANDS = 4  # of noise levels, from the cleanest quarter to the noisiest
MOST_HELD_OUT = 256  # images of each kind
VALIDATION_SHARE = 0.01  # of the time of the training, for all measurements; one takes a quarter

Losses = Float64[Tensor, "bands n"]


def fixed_subset(dataset: Dataset) -> Dataset:
    """Return at most MOST_HELD_OUT images of all kinds, always the same ones; the first may be of one class."""
    return dataset.part(dataset.chosen(MOST_HELD_OUT, 0))


@dataclass
class ValidationMonitor:
    """Measure both losses, and remember the losses of the held-out images at their best."""

    objective: Objective
    trained: Dataset
    held: Dataset
    batch: int
    labelled: bool = False  # the model knows classes
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_losses: Losses | None = None
    count: int = 0  # images of each kind, once it is planned
    budget: TimeBudget = field(default_factory=lambda: TimeBudget(VALIDATION_SHARE))
    measured_at: int = -1  # images seen
    name, remembered = "validation", ("rows", "best_losses", "count", "budget")

    @property
    def available(self) -> int:
        """Return the number of images of each kind that there are; with fewer than 2, nothing can be said."""
        return min(len(self.held), len(self.trained))

    def due(self, clock: Clock) -> bool:
        """Return True if the budget gives a turn, and once at the end."""
        at_the_end = clock.progress >= 1 and self.measured_at != clock.seen
        return self.available > 1 and (at_the_end or self.budget.due(clock))

    def run(self, model: Diffusion, clock: Clock, stop: Stop) -> Outcome:  # noqa: ARG002  # it is short
        """Add a row of both losses; warn if the network knows its training images by heart."""
        self.plan(clock)
        with self.budget.spending(clock):
            warning = self.measure(model)
        self.measured_at = clock.seen
        row = {"images": clock.seen, "seconds": round(clock.elapsed, 2), **self.rows[-1], "count": self.count}
        return Outcome([row], [f"warning: {warning}"] if warning else [])

    def plan(self, clock: Clock) -> None:
        """Choose, once, as many images as fit in the share; a level of an image takes a third of a step."""
        room = VALIDATION_SHARE / 4 * (clock.elapsed + clock.left) * 3 * clock.pace
        self.count = self.count or min(self.available, max(8, int(room / (2 * BANDS))))

    def measure(self, model: Diffusion) -> str | None:
        """Add a row, and return a warning if the held-out loss is far above the other one and rising."""
        held, trained = self.losses(model, self.held), self.losses(model, self.trained)
        error = float(held.mean(0).std()) / math.sqrt(self.count)
        self.rows.append(
            {"held_out": held.mean(1).tolist(), "trained": trained.mean(1).tolist(), "held_out_error": error}
        )
        apart = (held.mean() - trained.mean()) / ((held.mean(0).var() + trained.mean(0).var()) / self.count).sqrt()
        if self.best_losses is None or held.mean() < self.best_losses.mean():
            self.best_losses = held
        worse = (held - self.best_losses).mean(0)
        rising = worse.mean() > 2 * worse.std() / math.sqrt(self.count)
        if not (apart > 4 and rising and worse.mean() > 0):
            return None
        return (
            f"overfitting: the loss on held-out images is {held.mean():.4f} and rising, on training images "
            f"{trained.mean():.4f}; more images, --augment 0.12 or a shorter training would help"
        )

    def __str__(self) -> str:
        last = self.rows[-1]
        held, trained = (sum(last[name]) / BANDS for name in ("held_out", "trained"))
        low, high = symmetric(held, last["held_out_error"] ** 2, self.count).interval
        return f"{held:.4f}, {low:.4f} to {high:.4f} (95 %), on held-out images, {trained:.4f} on training images"

    @torch.no_grad()
    def losses(self, model: Diffusion, dataset: Dataset) -> Losses:
        """Return the losses of the first images, each at one level of every band, always under the same noise."""
        training = model.backbone.training
        model.backbone.eval()
        parts = torch.split(torch.arange(self.count), self.batch)
        found = torch.cat([self.losses_of(model, dataset, part) for part in parts], dim=1)
        model.backbone.train(training)
        return found

    def losses_of(self, model: Diffusion, dataset: Dataset, part: Tensor) -> Losses:
        """Return the losses of the images numbered `part` [b]."""
        indices, T = part.numpy().astype(np.int64), model.schedule.T
        x0 = to_float(torch.from_numpy(dataset.read(indices)).to(model.device))
        labels = dataset.labels(indices) if self.labelled else None
        label = None if labels is None else torch.from_numpy(labels).to(model.device)
        noise, losses = seeded_noise(part.tolist()), []
        for band in range(BANDS):
            time = ((band + (part + 0.5) / self.count) / BANDS * T).floor()
            levels = model.schedule.level(time), model.schedule.level(time - 1)
            losses.append(self.objective(model, add_noise(x0, noise(x0), levels, label)).cpu().double())
        return torch.stack(losses)
