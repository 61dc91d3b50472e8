"""Grids from fixed noise while training: soon, then at growing intervals, within a share of the time."""

import time
from pathlib import Path

import torch

from unnoise.checkpoint import replacing
from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.pictures import grid
from unnoise.samplers.run import run
from unnoise.training.length import Clock
from unnoise.types import Images, Labels

FIRST, GROWTH, SHARE = 40.0, 1.6, 0.05  # seconds; factor between previews; share of the time they may take
FEW = Sampling(steps=10)


class Previews:
    """Draws `samples/IMAGES.png`."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder, self.mode = folder, mode
        self.count, self.next, self.spent, self.last = 16, 0.0, 0.0, 0.0

    def due(self, clock: Clock, images_per_second: float) -> bool:
        """Whether the next preview is wanted and fits in its share of the time; the first one shrinks until it does."""
        first = min(FIRST, 0.15 * clock.seconds) if clock.seconds else FIRST
        if clock.elapsed < (self.next or first):
            return False
        if not self.spent:
            self.count = min(16, affordable(SHARE * clock.elapsed, images_per_second, FEW.steps))
        return self.spent + self.last <= SHARE * clock.elapsed

    def draw(self, model: Diffusion, seen: int, elapsed: float) -> list[str]:
        """Write the grid; returns warnings about what is on it."""
        begun = time.monotonic()
        images = sample(model, self.count, FEW)
        save_grid(images, self.folder / f"{seen:09d}.png", self.mode)
        self.last = time.monotonic() - begun
        self.spent += self.last
        self.next = GROWTH * elapsed
        return look(images)


def affordable(seconds: float, images_per_second: float, steps: int) -> int:
    """How many images can be drawn in that time: an evaluation costs about a third of a training step."""
    return next((n for n in (64, 36, 16, 9, 4) if n * steps <= 3 * images_per_second * seconds), 1)


def sample(model: Diffusion, count: int, how: Sampling) -> Images:
    """Images of seeds 0..count-1, classes in turn."""
    labels = every_class(model, count)
    *_, last = run(model, range(count), how, labels)
    return last.x


def every_class(model: Diffusion, count: int) -> Labels | None:
    """Labels that go through the classes in turn, None for a model without classes."""
    return torch.arange(count) % len(model.classes) if model.classes else None


def save_grid(images: Images, path: Path, mode: str) -> None:
    with replacing(path) as temporary:
        grid(images, mode).save(temporary, format="PNG")


def look(images: Images) -> list[str]:
    """Name what is plainly wrong with generated images."""
    if not images.isfinite().all():
        return ["the preview holds values that are not finite (NaN); the weights are damaged"]
    warnings = []
    if images.std() < 0.02:
        warnings.append(f"the preview is almost one colour (std {images.std():.3f}); the model has learned nothing yet")
    if (saturated := images.abs().ge(1).float().mean()) > 0.9:
        warnings.append(f"{saturated:.0%} of the preview is at the ends of its range; try a lower --lr")
    return warnings
