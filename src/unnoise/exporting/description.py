"""Describe how a run draws as plain numbers, which stand in the metadata of an exported model file."""

from importlib.metadata import version
from typing import Any

from unnoise.card import Run
from unnoise.config import Sampling
from unnoise.diffusion.level import Level
from unnoise.diffusion.target import Target
from unnoise.errors import InputError
from unnoise.registry import sampler, spacing
from unnoise.samplers.draw import parse_interval
from unnoise.samplers.table import Row, as_table

FORMAT = 1
BLOCK = 16  # numbers that PyTorch draws at a time; fewer come from another stream


def describe_drawing(run: Run, settings: Sampling) -> dict[str, Any]:
    """Return everything that a program needs, beside the network, to draw the images of a run.

    "steps" has a row for each call of the network: its time, alpha and sigma; "image" (p, q), for the predicted image
    x0 = p x + q output; and the coefficients of `samplers.table`, for the next x.

    Raises:
        InputError: The sampler cannot be written as a table, or an image has fewer than 16 numbers.
    """
    model, card = run.model, run.card
    c, h, w = card.shape
    if c * h * w < BLOCK:
        raise InputError(f"{run.name} has images of {c * h * w} numbers; an export needs {BLOCK} or more")
    interval = parse_interval(settings.guidance_interval)
    rows = as_table(settings.sampler, model.schedule.grid(settings.steps, settings.spacing))
    return {
        "format": FORMAT,
        "unnoise": version("unnoise"),
        "name": run.name if run.path is None else run.folder.resolve().name,
        "shape": list(card.shape),
        "mode": card.mode,
        "classes": list(card.classes),
        "sampler": sampler.text(settings.sampler),
        "spacing": spacing.text(settings.spacing),
        "clip": settings.clip,
        "guidance": settings.guidance,
        "steps": [describe_step(row, model.target, interval) for row in rows],
    }


def describe_step(row: Row, target: Target, interval: tuple[float, float]) -> dict[str, Any]:
    """Return a row of the table as plain values."""
    level, (low, high) = row.level, interval
    return {
        "time": float(level.time),
        "alpha": float(level.alpha),
        "sigma": float(level.sigma),
        "image": of_output(level, target),
        "guided": low < float(level.ratio) <= high,
        "x": row.of_x,
        "x0": list(row.of_x0),
        "noise": row.of_noise,
    }


def of_output(level: Level, target: Target) -> tuple[float, float]:
    """Return (p, q) with x0 = p x + q output: the first row of the inverse in `diffusion.target.decode`."""
    a, b = target(level)
    determinant = level.alpha * b - level.sigma * a
    return float(b / determinant), float(-level.sigma / determinant)
