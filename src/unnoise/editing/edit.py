"""Pictures edited by a trained run: as tensors, or as files."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from unnoise import registry
from unnoise.checkpoint import Run, load
from unnoise.config import EditConfig, SampleConfig, Sampling
from unnoise.editing.edits import Edit, Picture, Work
from unnoise.errors import InputError, unknown
from unnoise.files import new_folder, replacing
from unnoise.pictures import film, grid, save_image
from unnoise.samplers.run import untracked
from unnoise.samplers.step import Step
from unnoise.sampling import resolve
from unnoise.types import Images

MOST = 256  # pictures at once
WAYS = ("interpolate", "morph")  # from one picture to another: theirs are the frames of a film


def edit(run: Run | str | Path, *pictures: Picture, mask: Picture | None = None, **settings: Any) -> Images:
    """Edit a picture, or go from one to another: [n, c, h, w] in [-1, 1]. Variant i has seed + i.

    Pictures are paths, Pillow's images, or tensors [c, h, w] in [-1, 1] of the run's shape; `mask` is one that is white
    where `inpaint` fills in. settings are the fields of EditConfig, e.g. `task="enlarge:factor=4"`, `n=4`.
    """
    opened = run if isinstance(run, Run) else load(run)
    known = [f.name for f in fields(EditConfig)]
    for name in settings:
        if name not in known:
            raise unknown("setting of edit", name, known)
    return last(begin(EditConfig(str(opened.path), **settings), opened, pictures, mask).steps)


def begin(config: EditConfig, run: Run, pictures: tuple[Picture, ...] = (), mask: Picture | None = None) -> Edit:
    """What is given and the steps to be made; refuses what can't be before any of them."""
    if not 1 <= config.n <= MOST:
        raise InputError(f"n takes 1 to {MOST} pictures, got {config.n}")
    shared = ("run", "n", "seed", "label", *(f.name for f in fields(Sampling)))
    how = resolve(SampleConfig(**{name: getattr(config, name) for name in shared}), run)
    seeds = range(config.seed, config.seed + config.n)
    label = -1 if config.label is None else run.card.classes.index(config.label)
    work = Work(run.model, how, run.card.mode, seeds, label, config.by, pictures, mask, config.fit)
    if config.by is not None:
        registry.posterior.get(config.by)
    made: Edit = registry.edit.get(config.task)(work)
    return made._replace(steps=untracked(made.steps))


def last(steps: Iterator[Step]) -> Images:
    for step in steps:
        images = step.x
    return images


def edit_to_folder(config: EditConfig) -> tuple[Path, Path]:
    """Write one picture a variant, and beside the folder a grid that begins with what was given, or a film.

    Returns the folder, and what lies beside it.
    """
    run = load(config.run)
    pictures = tuple(picture for picture in (config.picture, config.other) if picture is not None)
    made = begin(config, run, pictures, config.mask)
    images, way = last(made.steps).cpu(), config.task.partition(":")[0] in WAYS
    folder = new_folder(config.out, run.path.parent, "edited")
    for i, image in enumerate(images):
        name = f"{i if way else config.seed + i:06d}{'.png' if run.card.mode else '.npy'}"
        with replacing(folder / name, flush=False) as temporary:
            save_image(image, temporary, run.card.mode)
    beside = folder.with_name(f"{folder.name}{'.gif' if way else '-grid.png'}")  # not inside, among the pictures
    with replacing(beside) as temporary:
        if way:
            film([*images[:, None]], temporary)
        else:
            grid(torch.cat([made.given.cpu(), images]), run.card.mode).save(temporary)
    return folder, beside
