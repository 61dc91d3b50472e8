"""Edit images by a trained run: as tensors, or as files in a folder."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import RunLike, as_run
from unnoise.config import EditConfig, SampleConfig, Sampling
from unnoise.editing.inputs import Edit, EditInputs, ImageLike
from unnoise.errors import InputError, unknown
from unnoise.files import check_new_folder, check_vacant, check_writable, new_folder, replacing
from unnoise.images import grid, save_gif, save_image
from unnoise.progress import Report, Say, mute, silent
from unnoise.samplers.base import Step
from unnoise.samplers.draw import without_grad
from unnoise.sampling import grid_path, image_path, network_calls, resolve_settings
from unnoise.types import Images

FILMS = ("interpolate", "morph")  # edits whose images are frames from one image to another


def edit(run: RunLike, *images: ImageLike, mask: ImageLike | None = None, **settings: Any) -> Images:
    """Edit an image, or make images between two images or seeds. Variant i has seed + i.

    Args:
        run: A run folder, a model file, a `Run` or a `Diffusion`.
        images: The images to edit: paths, PIL images, arrays [h, w], [h, w, c] or [c, h, w] of pixels, or floats
            [c, h, w] in [-1, 1] of the run's shape.
        mask: An image that is white where `inpaint` fills in.
        settings: The fields of EditConfig, for example `task="enlarge:factor=4"`, `n=4` or `sampler=my_sampler`.

    Returns:
        Images [n, c, h, w] in [-1, 1].

    Raises:
        InputError: A setting is not allowed, an image cannot be read, or the run cannot be opened.
    """
    opened = as_run(run)
    known = [f.name for f in fields(EditConfig) if f.name not in ("run", "picture", "other", "mask", "out")]
    for name in settings:
        if name not in known:
            raise unknown("setting of edit", name, known)
    return last_images(start_edit(EditConfig(opened.name, **settings), opened, images, mask).steps)


def start_edit(
    config: EditConfig,
    run: Run,
    images: tuple[ImageLike, ...] = (),
    mask: ImageLike | None = None,
    say: Say = mute,
) -> Edit:
    """Check everything and return the edit, whose steps are made as they are asked for.

    `say` is called with a line for each thing that was done to the given images.
    """
    check_inputs(config, len(images), mask)
    check_taught(config, run)
    settings, label = resolve_edit(config, run)
    seeds = range(config.seed, config.seed + config.n)
    given = (images, mask, config.fit, say, run.card.spans)
    inputs = EditInputs(run.model, settings, run.card.mode, seeds, label, config.by, *given)
    made: Edit = registry.edit.get(config.task)(inputs)
    return made._replace(steps=without_grad(made.steps))


def check_inputs(config: EditConfig, images: int, mask: ImageLike | None) -> None:
    """Raise InputError for inputs and settings that the edit does not use; `images` is the number of given images."""
    task, takes = task_name(config), registry.edit.declared(config.task)
    if not takes:  # an edit that declares nothing takes everything
        return
    if images != takes["images"]:
        raise InputError(f"{task} takes {takes['images'] or 'no'} image{'s' * (takes['images'] != 1)}, got {images}")
    if mask is not None and not takes.get("mask"):
        raise InputError(f"--mask is for inpaint; {task} uses none")
    if config.by is not None:
        registry.posterior.get(config.by)
        if not takes.get("by"):
            raise InputError(f"--by is for edits that keep a known part of an image; {task} keeps none")
    if not takes.get("sampler", True) and (config.sampler is not None or config.clip is not None or config.seed):
        raise InputError(
            f"{task} inverts and samples by ddim, clips nothing and draws no noise; leave out --sampler, --clip and "
            f"--seed"
        )
    if not takes["images"] and config.fit != "crop":
        raise InputError(f"--fit is for given images, and {task} takes none")


def check_taught(config: EditConfig, run: Run) -> None:
    """Raise InputError for a student and a given image: a student knows few levels, and edits need many."""
    if run.card.taught and registry.edit.declared(config.task).get("images"):
        raise InputError(
            f"{run.name} was taught to draw in {run.card.taught[0]} steps, and to edit an image takes many; edit it by "
            f"{run.described_teacher}"
        )


def task_name(config: EditConfig) -> str:
    """Return the name of the edit without its options."""
    return registry.edit.text(config.task).partition(":")[0].strip()


def resolve_edit(config: EditConfig, run: Run) -> tuple[Sampling, int]:
    """Return the sampling settings and the class, -1 for none.

    Raises InputError if a class must be named: the run never saw images without a class, or guidance needs one.
    """
    shared = ("run", "n", "seed", "label", *(f.name for f in fields(Sampling)))
    settings = resolve_settings(SampleConfig(**{name: getattr(config, name) for name in shared}), run)
    if config.label is not None or not run.card.classes:
        return settings, -1 if config.label is None else run.card.classes.index(config.label)
    if config.guidance not in (None, 1) or config.guidance_interval is not None:
        raise InputError("--guidance follows a class; name it by --label")
    drawn = not registry.edit.declared(config.task).get("images", 1)
    if drawn or not run.card.training.get("config", {}).get("label_dropout"):
        raise InputError(f"this run draws images of a class; name it by --label: {', '.join(run.card.classes)}")
    return replace(settings, guidance=1.0), -1


def edit_calls(config: EditConfig, settings: Sampling) -> int:
    """Return about how many calls of the network an edited image takes."""
    times = registry.posterior.settings(config.by).get("resamplings", 1) if config.by else 1
    if config.by is None and task_name(config) == "inpaint":
        times = registry.posterior.settings("repaint")["resamplings"]
    return network_calls(settings) * int(times)


def last_images(steps: Iterator[Step], report: Report = silent) -> Images:
    """Make all steps, report each, and return the images of the last one."""
    for done, step in enumerate(steps, 1):
        images = step.x
        report("editing", done, None)
    return images


def edit_to_folder(config: EditConfig, report: Report = silent, say: Say = mute) -> tuple[Path, Path]:
    """Write one file per image, and next to the folder a grid that begins with the given images, or a film.

    Args:
        config: The settings.
        report: Called with (task, steps done, steps in total).
        say: Called with a line for each thing that was done to the given images.

    Returns:
        The folder, and the file next to the folder.
    """
    run, is_film = as_run(config.run), task_name(config) in FILMS
    images = tuple(image for image in (config.picture, config.other) if image is not None)
    check_new_folder(config.out, run.folder)
    made = start_edit(config, run, images, config.mask, say)
    if config.out is not None and (existing := overview_path(check_vacant(config.out), is_film=is_film)).exists():
        raise InputError(f"{existing} exists already; name another folder by --out")
    if config.out is not None and existing.parent.exists():
        check_writable(existing, "--out")
    edited = last_images(made.steps, report).cpu()
    folder = new_folder(config.out, run.folder, "edited")
    for i, image in enumerate(edited):
        with replacing(image_path(folder, i if is_film else config.seed + i, run.card.mode), flush=False) as temporary:
            save_image(image, temporary, run.card.mode)
    with replacing(overview := overview_path(folder, is_film=is_film)) as temporary:
        if is_film:
            save_gif([*edited[:, None]], temporary)
        else:
            grid(torch.cat([made.given.cpu(), edited]), run.card.mode).save(temporary)
    return folder, overview


def overview_path(folder: Path, *, is_film: bool) -> Path:
    """Return the file next to a folder of edited images: a grid, as for sampled images, or a film."""
    path = grid_path(folder)
    return path.with_name(path.name.removesuffix("-grid.png") + ".gif") if is_film else path
