"""The loss on images that are not trained on, at fixed noise and levels, beside that on as many that are."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Objective, add_noise
from unnoise.images import to_float
from unnoise.samplers.draw import seeded_noise
from unnoise.training.clock import Clock

BANDS = 4  # of noise levels, from the cleanest quarter to the noisiest
MOST = 256  # images of each kind
SHARE = 0.01  # of the time of the training, for all measurements; a quarter of it for one

Losses = Float64[Tensor, "bands n"]


def fixed_subset(dataset: Dataset) -> Dataset:
    """At most MOST of the images, of all kinds: always the same, and not the first ones, which may be of one class."""
    return dataset.part(dataset.chosen(MOST, 0))


@dataclass
class ValidationMonitor:
    """Measures, and remembers the best: `better` are the losses of the held-out images then."""

    config: TrainConfig
    objective: Objective
    trained: Dataset
    held: Dataset
    rows: list[dict[str, Any]] = field(default_factory=list)
    better: Losses | None = None
    count: int = 0  # images of each kind, once that is planned
    remembered = ("rows", "better", "count")

    @property
    def most(self) -> int:
        return min(len(self.held), len(self.trained))

    def plan(self, clock: Clock) -> None:
        """As many images as take their share of the time, at a third of a step for a level of each; from then on."""
        room = SHARE / 4 * (clock.elapsed + clock.left) * 3 * clock.seen / max(clock.elapsed, 1e-9)
        self.count = self.count or min(self.most, max(8, int(room / (2 * BANDS))))

    def measure(self, model: Diffusion) -> str | None:
        """Add a row; returns a warning where the network knows its training images by heart."""
        ours, others = self.losses(model, self.held), self.losses(model, self.trained)
        self.rows.append(
            {
                "held_out": ours.mean(1).tolist(),
                "trained": others.mean(1).tolist(),
                "held_out_error": float(ours.mean(0).std()) / math.sqrt(self.count),
            }
        )
        apart = (ours.mean() - others.mean()) / ((ours.mean(0).var() + others.mean(0).var()) / self.count).sqrt()
        if self.better is None or ours.mean() < self.better.mean():
            self.better = ours
        worse = (ours - self.better).mean(0)
        rising = worse.mean() > 2 * worse.std() / math.sqrt(self.count)
        if not (apart > 4 and rising and worse.mean() > 0):
            return None
        return (
            f"overfitting: the loss on held-out images is {ours.mean():.4f} and rising, on those of the training "
            f"{others.mean():.4f}; more images, --flip or a shorter training would help"
        )

    def __str__(self) -> str:
        """The last row in words."""
        last = self.rows[-1]
        ours, others = (sum(last[name]) / BANDS for name in ("held_out", "trained"))
        return f"{ours:.4f} +- {last['held_out_error']:.4f} on held-out images, {others:.4f} on those of the training"

    @torch.no_grad()
    def losses(self, model: Diffusion, dataset: Dataset) -> Losses:
        """Of the first images, each at one level of every band: always the same levels and the same noise."""
        training = model.backbone.training
        model.backbone.eval()
        found = [
            self.of_part(model, dataset, part) for part in torch.split(torch.arange(self.count), self.config.batch)
        ]
        model.backbone.train(training)
        return torch.cat(found, dim=1)

    def of_part(self, model: Diffusion, dataset: Dataset, part: Tensor) -> Losses:
        indices, T = part.numpy().astype(np.int64), model.schedule.T
        x0 = to_float(torch.from_numpy(dataset.read(indices)).to(model.device))
        labels = dataset.labels(indices) if self.config.classes else None
        label = None if labels is None else torch.from_numpy(labels).to(model.device)
        noise, losses = seeded_noise(part.tolist()), []
        for band in range(BANDS):
            time = ((band + (part + 0.5) / self.count) / BANDS * T).floor()
            levels = model.schedule.level(time), model.schedule.level(time - 1)
            losses.append(self.objective(model, add_noise(x0, noise(x0), levels, label)).cpu().double())
        return torch.stack(losses)
