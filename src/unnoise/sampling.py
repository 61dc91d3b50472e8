"""Pictures from a trained run: as tensors, or as files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch

from unnoise.checkpoint import Run, load, new_folder, replacing
from unnoise.config import SampleConfig, Sampling
from unnoise.errors import InputError, unknown
from unnoise.pictures import grid, save_image
from unnoise.samplers.run import check, in_turn
from unnoise.samplers.run import run as run_sampler
from unnoise.types import Images

Report = Callable[
    [int, int], object
]  # called with the steps just made, one for each image, and how many there are in all


def sample(  # noqa: PLR0913  # the options of one call
    run: Run | str | Path,
    n: int = 16,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    spacing: str | None = None,
    clip: bool | None = None,
    seed: int = 0,
    label: str | None = None,
    guidance: float | None = None,
    guidance_interval: str | None = None,
    guide_with: Run | str | Path | None = None,
    batch: int = 64,
) -> Images:
    """Draw n images, [n, c, h, w] in [-1, 1]. Image i has seed + i and is the same at any n and batch.

    `run` and `guide_with` are a run folder, a model file, or what `load` returned; options left out are the run's own.
    """
    opened = run if isinstance(run, Run) else load(run)
    weaker = guide_with if isinstance(guide_with, Run) or guide_with is None else load(guide_with)
    config = SampleConfig(
        str(opened.path),
        n,
        sampler=sampler,
        steps=steps,
        spacing=spacing,
        clip=clip,
        seed=seed,
        label=label,
        guidance=guidance,
        guidance_interval=guidance_interval,
        batch=batch,
    )
    how = resolve(config, opened, weaker)
    return torch.cat([images for _, images in batches(config, opened, how, weaker=weaker)])


def sample_to_folder(config: SampleConfig, report: Report = lambda *_: None) -> Path:
    """Write one picture an image, named by its seed, and beside the folder a grid of them; returns the folder."""
    run = load(config.run)
    weaker = load(config.guide_with) if config.guide_with else None
    how = resolve(config, run, weaker)
    folder = new_folder(config.out, run.path.parent, "sampled")
    shown: list[Images] = []
    for seeds, images in batches(config, run, how, report, weaker):
        for seed, image in zip(seeds, images, strict=True):
            with replacing(folder / f"{seed:06d}{'.png' if run.card.mode else '.npy'}") as temporary:
                save_image(image, temporary, run.card.mode)
        if sum(map(len, shown)) < 256:  # more would be no picture
            shown.append(images.cpu())
    with replacing(grid_of(folder)) as temporary:
        grid(torch.cat(shown)[:256], run.card.mode).save(temporary)
    return folder


def grid_of(folder: Path) -> Path:
    """Not inside, where it would count as one of the pictures."""
    return folder.with_name(f"{folder.name}-grid.png")


def resolve(config: SampleConfig, run: Run, weaker: Run | None = None) -> Sampling:
    """The run's own way of sampling with what was asked for in its place; refuses what can't be."""
    for name, value in (("n", config.n), ("batch", config.batch)):
        if value < 1:
            raise InputError(f"{name} takes 1 or more images, got {value}")
    if not 0 <= config.seed < 2**63 - config.n:
        raise InputError(f"seed takes 0 or more, below 2^63, got {config.seed}")
    asked = {f.name: getattr(config, f.name) for f in fields(Sampling)}
    how = replace(run.card.sampling, **{name: value for name, value in asked.items() if value is not None})
    check(how, run.model.schedule, run.card.learned_variance)
    classes = run.card.classes
    if config.label is not None and config.label not in classes:
        raise unknown("label", config.label, classes)
    if how.guidance != 1:
        check_guidance(run, weaker)
    elif weaker:
        raise InputError("--guide-with does nothing at guidance 1; add --guidance 2, for example")
    return how


def check_guidance(run: Run, weaker: Run | None) -> None:
    """Refuse guidance by what knows no better or worse."""
    if weaker is None:
        if not run.card.classes:
            raise InputError("--guidance needs a run with classes (train --classes), or a weaker one: --guide-with RUN")
        if not run.card.training.get("config", {}).get("label_dropout"):
            raise InputError(
                "--guidance needs a run that also saw images without their class: train with --label-dropout 0.1"
            )
        return
    for name in ("shape", "schedule", "classes"):
        ours, theirs = getattr(run.card, name), getattr(weaker.card, name)
        if ours != theirs and theirs:
            raise InputError(f"--guide-with {weaker.path}: its {name} is {theirs}, not {ours} as that of the run")


def batches(
    config: SampleConfig,
    run: Run,
    how: Sampling,
    report: Report = lambda *_: None,
    weaker: Run | None = None,
) -> Iterator[tuple[Sequence[int], Images]]:
    """Yield (seeds, images) a batch at a time."""
    for start in range(0, config.n, config.batch):
        part = slice(start, min(start + config.batch, config.n))
        seeds = range(config.seed + part.start, config.seed + part.stop)
        labels = in_turn(run.card.classes, seeds)
        if config.label is not None:
            labels = torch.full((len(seeds),), run.card.classes.index(config.label))
        for step in run_sampler(run.model, seeds, how, labels, weaker.model if weaker else None):
            images = step.x
            report(len(seeds), config.n * how.steps)
        yield seeds, images
