"""Draw images while a model trains, as many as there is time for."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.files import replacing
from unnoise.images import grid
from unnoise.samplers.draw import draw, labels_for
from unnoise.sampling import network_calls
from unnoise.training.clock import Clock
from unnoise.training.signals import Stop
from unnoise.types import Images


def affordable(evaluations: float, steps: int) -> int:
    """Return how many images a number of network evaluations is enough for: 1, 4, 9, 16, 36 or 64."""
    return next((n for n in (64, 36, 16, 9, 4) if n * steps <= evaluations), 1)


def seconds_each(settings: Sampling, clock: Clock) -> float:
    """Return about the seconds that drawing an image takes, at the pace of the training."""
    return network_calls(settings) / (3 * clock.pace)  # a call is about a third of a step


def draw_images(
    model: Diffusion,
    count: int,
    settings: Sampling,
    stop: Stop,
    seconds: float = math.inf,
    batch: int = 16,
    class_counts: Sequence[int] | None = None,
) -> Images | None:
    """Return images of seeds 0 to count - 1; None if a signal or the end of the time came first.

    The classes come in turn, or in the proportions of `class_counts`.
    """
    end = time.monotonic() + seconds
    training = model.backbone.training  # without an average, this network is the one in training
    model.backbone.eval()
    images = []
    try:
        for start in range(0, count, batch):
            seeds = range(start, min(start + batch, count))
            for step in draw(model, seeds, settings, labels_for(model.classes, seeds, class_counts)):
                if stop.signal is not None or time.monotonic() > end:
                    return None
                x = step.x
            images.append(x)
    finally:
        model.backbone.train(training)
    return torch.cat(images)


def save_grid(images: Images, path: Path, mode: str) -> None:
    """Write a grid of images as PNG, in a folder that may not exist yet."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        grid(images, mode).save(temporary, format="PNG")
