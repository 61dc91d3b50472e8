"""Pictures edited by a trained run: as tensors, or as files."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import RunLike, as_run, load
from unnoise.config import EditConfig, SampleConfig, Sampling
from unnoise.editing.tasks import Edit, Picture, Work
from unnoise.errors import InputError, unknown
from unnoise.files import check_vacant, new_folder, replacing
from unnoise.images import grid, save_gif, save_image
from unnoise.progress import Report, silent
from unnoise.samplers.base import Step
from unnoise.samplers.draw import without_grad
from unnoise.sampling import grid_path, resolve_settings
from unnoise.sampling import network_calls as calls_of
from unnoise.types import Images

MOST = 64  # pictures at once
WAYS = ("interpolate", "morph")  # from one picture to another: theirs are the frames of a film


def edit(run: RunLike, *pictures: Picture, mask: Picture | None = None, **settings: Any) -> Images:
    """Edit a picture, or go from one to another: [n, c, h, w] in [-1, 1]. Variant i has seed + i.

    Pictures are paths, Pillow's images, or tensors [c, h, w] in [-1, 1] of the run's shape; `mask` is one that is white
    where `inpaint` fills in. settings are the fields of EditConfig, e.g. `task="enlarge:factor=4"`, `n=4`.
    """
    opened = as_run(run)
    known = [f.name for f in fields(EditConfig) if f.name not in ("run", "picture", "other", "mask", "out")]
    for name in settings:
        if name not in known:
            raise unknown("setting of edit", name, known)
    return last(begin(EditConfig(opened.name, **settings), opened, pictures, mask).steps)


def begin(config: EditConfig, run: Run, pictures: tuple[Picture, ...] = (), mask: Picture | None = None) -> Edit:
    """What is given and the steps to be made; refuses what can't be before any of them."""
    if not 1 <= config.n <= MOST:
        raise InputError(f"n takes 1 to {MOST} pictures, got {config.n}")
    check(config, len(pictures), mask)
    how, label = resolved(config, run)
    seeds = range(config.seed, config.seed + config.n)
    work = Work(run.model, how, run.card.mode, seeds, label, config.by, pictures, mask, config.fit)
    made: Edit = registry.edit.get(config.task)(work)
    return made._replace(steps=without_grad(made.steps))


def check(config: EditConfig, pictures: int, mask: Picture | None) -> None:
    """Refuse what an edit would not look at."""
    task, takes = task_name(config), registry.edit.declared(config.task)
    if not takes:  # of an edit that says nothing of itself
        return
    if pictures != takes["pictures"]:
        raise InputError(
            f"{task} takes {takes['pictures'] or 'no'} picture{'s' * (takes['pictures'] != 1)}, got {pictures}"
        )
    if mask is not None and not takes.get("mask"):
        raise InputError(f"--mask is for inpaint; {task} looks at none")
    if config.by is not None:
        registry.posterior.get(config.by)
        if not takes.get("by"):
            raise InputError(f"--by is for edits that keep what is known; {task} is none")
    if not takes.get("sampler", True) and (config.sampler is not None or config.clip is not None or config.seed):
        raise InputError(
            f"{task} goes there and back by ddim, clips nothing and draws no noise; leave out --sampler, --clip and "
            f"--seed"
        )
    if not takes["pictures"] and config.fit != "crop":
        raise InputError(f"--fit is for pictures that are given, and {task} takes none")


def task_name(config: EditConfig) -> str:
    """Return the name of the edit without its options."""
    return registry.edit.text(config.task).partition(":")[0].strip()


def resolved(config: EditConfig, run: Run) -> tuple[Sampling, int]:
    """How it is sampled, and the class, -1 for none: a run that never saw pictures without one needs to be told."""
    shared = ("run", "n", "seed", "label", *(f.name for f in fields(Sampling)))
    how = resolve_settings(SampleConfig(**{name: getattr(config, name) for name in shared}), run)
    if config.label is not None or not run.card.classes:
        return how, -1 if config.label is None else run.card.classes.index(config.label)
    if config.guidance not in (None, 1) or config.guidance_interval is not None:
        raise InputError("--guidance follows a class; name it by --label")
    if task_name(config) == "interpolate" or not run.card.training.get("config", {}).get("label_dropout"):
        raise InputError(f"this run draws pictures of a class; name it by --label: {', '.join(run.card.classes)}")
    return replace(how, guidance=1.0), -1


def calls(config: EditConfig, how: Sampling) -> int:
    """Of the network for a picture, about."""
    times = registry.posterior.settings(config.by).get("resamplings", 1) if config.by else 1
    if config.by is None and task_name(config) == "inpaint":
        times = registry.posterior.settings("repaint")["resamplings"]
    return calls_of(how) * int(times)


def last(steps: Iterator[Step], report: Report = silent) -> Images:
    for done, step in enumerate(steps, 1):
        images = step.x
        report("editing", done, None)
    return images


def edit_to_folder(config: EditConfig, report: Report = silent) -> tuple[Path, Path]:
    """Write one picture a variant, and beside the folder a grid that begins with what was given, or a film.

    Returns the folder, and what lies beside it.
    """
    run = load(config.run)
    pictures = tuple(picture for picture in (config.picture, config.other) if picture is not None)
    made, is_film = begin(config, run, pictures, config.mask), task_name(config) in WAYS
    if config.out is not None and (there := beside(check_vacant(config.out), is_film=is_film)).exists():
        raise InputError(f"{there} is there already; name another folder by --out")
    images = last(made.steps, report).cpu()
    folder = new_folder(config.out, run.folder, "edited")
    for i, image in enumerate(images):
        name = f"{i if is_film else config.seed + i:06d}{'.png' if run.card.mode else '.npy'}"
        with replacing(folder / name, flush=False) as temporary:
            save_image(image, temporary, run.card.mode)
    with replacing(together := beside(folder, is_film=is_film)) as temporary:
        if is_film:
            save_gif([*images[:, None]], temporary)
        else:
            grid(torch.cat([made.given.cpu(), images]), run.card.mode).save(temporary)
    return folder, together


def beside(folder: Path, *, is_film: bool) -> Path:
    """Not inside, among the pictures: where the grid of sampled ones lies, or a film by the name of the folder."""
    grid_there = grid_path(folder)
    return grid_there.with_name(grid_there.name.removesuffix("-grid.png") + ".gif") if is_film else grid_there
