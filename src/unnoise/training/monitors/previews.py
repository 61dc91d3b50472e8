"""Grids from fixed noise while training."""

import math
import time
from pathlib import Path

import torch

from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.files import replacing
from unnoise.images import grid
from unnoise.samplers.draw import draw, labels_in_turn
from unnoise.training.clock import Clock
from unnoise.training.monitors.monitor import TimeBudget
from unnoise.training.signals import Stop
from unnoise.types import Images

FEW = Sampling(steps=10, spacing="karras")
SHARE = 0.05  # of the time


class PreviewMonitor:
    """Draws `samples/IMAGES.png`; `usual` is the share of the data's own values at the ends of their range."""

    remembered = ("count",)

    def __init__(self, folder: Path, mode: str, usual: float) -> None:
        self.folder, self.mode, self.usual = folder, mode, usual
        self.count, self.occasions = 0, TimeBudget(SHARE)

    def due(self, clock: Clock, images_per_second: float) -> bool:
        """Whether the next preview is wanted, and the pace known by which it is cut to its share of the time."""
        return images_per_second > 0 and self.occasions.due(clock)

    def draw(self, model: Diffusion, clock: Clock, images_per_second: float, stop: Stop) -> list[str]:
        """Write the grid, as large as the first one could be in its share; returns warnings about what is on it."""
        few = FEW.within(model.schedule.T)
        # an evaluation costs about a third of a training step
        self.count = self.count or min(16, affordable(3 * images_per_second * SHARE * clock.elapsed, few.steps))
        with self.occasions.taken(clock):
            images = sample(model, self.count, few, stop)
        if images is None:
            return []
        save_grid(images, self.folder / f"{clock.seen:09d}.png", self.mode)
        return look(images, self.usual)


def affordable(evaluations: float, steps: int) -> int:
    """How many images can be drawn by so many evaluations of one image."""
    return next((n for n in (64, 36, 16, 9, 4) if n * steps <= evaluations), 1)


def sample(
    model: Diffusion, count: int, how: Sampling, stop: Stop, seconds: float = math.inf, batch: int = 16
) -> Images | None:
    """Images of seeds 0..count-1, classes in turn; None where a signal or the time's end came before they were done."""
    end = time.monotonic() + seconds
    training = model.backbone.training  # without an average it is the network in training
    model.backbone.eval()
    images = []
    try:
        for start in range(0, count, batch):
            seeds = range(start, min(start + batch, count))
            for step in draw(model, seeds, how, labels_in_turn(model.classes, seeds)):
                if stop.signal is not None or time.monotonic() > end:
                    return None
                x = step.x
            images.append(x)
    finally:
        model.backbone.train(training)
    return torch.cat(images)


def save_grid(images: Images, path: Path, mode: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        grid(images, mode).save(temporary, format="PNG")


def look(images: Images, usual: float = 0.0) -> list[str]:
    """Name what is plainly wrong with generated images."""
    if not images.isfinite().all():
        return ["the preview holds values that are not finite (NaN); the weights are damaged"]
    warnings = []
    if images.std() < 0.02:
        warnings.append(f"the preview is almost one colour (std {images.std():.3f}); the model has learned nothing yet")
    if (share := saturation(images)) > 0.9 > usual:
        warnings.append(f"{share:.0%} of the preview is at the ends of its range; try a lower --lr")
    return warnings


def saturation(images: Images) -> float:
    """Share of the values at the ends of the range."""
    return float(images.abs().ge(1).float().mean())
