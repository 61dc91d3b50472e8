"""Pictures from a trained run: as tensors, or as files."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from unnoise import distributed, registry
from unnoise.card import Run
from unnoise.checkpoint import RunLike, as_run, load, weights_hash
from unnoise.config import SampleConfig, Sampling, describe_changes
from unnoise.errors import InputError, unknown
from unnoise.files import lock_folder, new_folder, remove_leftovers, replacing, write_json
from unnoise.images import grid, is_readable, read_image, save_image
from unnoise.options import Spec, plain
from unnoise.progress import Report, silent
from unnoise.samplers.draw import check_settings, labels_in_turn
from unnoise.samplers.draw import draw as run_sampler
from unnoise.samplers.precision import Precision, choose_precision, describe_precision
from unnoise.types import Images

RECORD = ".sampled.json"  # in the folder: how its pictures were drawn; readers of pictures pass over hidden files
FREE_TO_CHANGE = ("n", "run")  # entries of the record that may differ when a folder is resumed


def sample(  # noqa: PLR0913  # the options of one call
    run: RunLike,
    n: int = 16,
    *,
    sampler: Spec | None = None,
    steps: int | None = None,
    spacing: Spec | None = None,
    clip: bool | None = None,
    seed: int = 0,
    label: str | None = None,
    guidance: float | None = None,
    guidance_interval: str | None = None,
    guide_with: RunLike | None = None,
    precision: Precision | Literal["auto"] = "auto",
    batch: int = 64,
) -> Images:
    """Draw n images, [n, c, h, w] in [-1, 1]. Image i has seed + i and is the same at any n and batch.

    `run` and `guide_with` are a run folder, a model file, a run, or a model; options left out are the run's own.
    """
    opened = as_run(run)
    weaker = None if guide_with is None else as_run(guide_with)
    config = SampleConfig(
        opened.name,
        n,
        sampler=sampler,
        steps=steps,
        spacing=spacing,
        clip=clip,
        seed=seed,
        label=label,
        guidance=guidance,
        guidance_interval=guidance_interval,
        precision=precision,
        batch=batch,
    )
    how = resolve_settings(config, opened, weaker)
    return torch.cat([images for _, images in sample_batches(config, opened, how, weaker=weaker)])


def sample_to_folder(
    config: SampleConfig, report: Report = silent, say: Callable[[str], object] = lambda _: None
) -> Path:
    """Write one picture an image, named by its seed, and beside the folder a grid of them.

    The same call goes on where it was stopped. Returns the folder.
    """
    run = load(config.run)
    weaker = load(config.guide_with) if config.guide_with else None
    how = resolve_settings(config, run, weaker)
    about: dict[str, Any] = {
        "run": str(run.path),
        "weights": weights_hash(run),
        "guide_with": weaker and weights_hash(weaker),
    }
    about |= {"seed": config.seed, "label": config.label, **plain(how), "precision": config.precision}
    with ExitStack() as to_the_end:
        folder, precision = distributed.from_main(lambda: find_folder(config, run, about, to_the_end))
        config = replace(config, precision=precision)

        def place(seed: int) -> Path:
            return folder / f"{seed:06d}{'.png' if run.card.mode else '.npy'}"

        def there(seeds: Sequence[int]) -> bool:
            another = (seeds[0] - config.seed) // config.batch % distributed.world_size() != distributed.rank()
            return another or all(is_readable(place(seed)) for seed in seeds)

        kept = [path for path in folder.iterdir() if not path.name.startswith(".")]
        if kept:
            say(f"goes on with {folder}, which holds {len(kept):,} pictures")
        say(describe_precision(precision, run.model.device))
        distributed.barrier()  # until all have looked
        for seeds, images in sample_batches(config, run, how, report, weaker, there):
            for seed, image in zip(seeds, images, strict=True):
                with replacing(place(seed), flush=False) as temporary:
                    save_image(image, temporary, run.card.mode)
        distributed.barrier()  # until all are done
        shown = range(config.seed, config.seed + min(config.n, 256))  # more would be no picture
        if distributed.is_main():
            with replacing(grid_path(folder)) as temporary:
                grid(torch.stack([read_image(place(seed)) for seed in shown]), run.card.mode).save(temporary)
    return folder


def find_folder(config: SampleConfig, run: Run, about: Mapping[str, Any], held: ExitStack) -> tuple[Path, Precision]:
    """Return the folder to write to, locked until `held` closes, and the precision of its images.

    The folder is the one that the same call left unfinished, else a new one. A resumed folder keeps its precision.
    """
    record = {**about, "n": config.n}
    folder = find_unfinished(config, run, record, held)
    if folder is None:
        held.enter_context(lock_folder(folder := new_folder(config.out, run.folder, "sampled")))
    recorded, requested = read_record(folder) or {}, config.precision
    if requested == "auto" and recorded.get("precision") in get_args(Precision):
        requested = recorded["precision"]
    precision = choose_precision(requested, run.model.device)
    remove_leftovers(folder)
    write_json(folder / RECORD, record | {"precision": precision})
    return folder, precision


def find_unfinished(config: SampleConfig, run: Run, record: Mapping[str, Any], held: ExitStack) -> Path | None:
    """Return the folder that the same call left unfinished, locked until `held` closes, or None.

    A folder named by --out may also be given more images. Raises InputError if it holds other images.
    """
    ignored = ("precision",) if config.precision == "auto" else ()
    if config.out is not None:
        folder = Path(config.out).expanduser()
        before = read_record(folder)
        if before is None or not folder.is_dir():
            return None
        if changed := describe_changes(before, record, (*FREE_TO_CHANGE, *ignored)):
            raise InputError(f"--out {folder} holds other images: {'; '.join(changed)}; name a new folder")
        held.enter_context(lock_folder(folder))
        return folder
    for folder in sorted(run.folder.glob("sampled-*/")):
        made = sum(path.stat().st_size > 0 for path in folder.glob("[0-9]*"))
        unfinished = made < config.n or not grid_path(folder).exists()
        if unfinished and not describe_changes(read_record(folder) or {}, record, ignored):
            with suppress(InputError):  # another program draws into it
                held.enter_context(lock_folder(folder))
                return folder
    return None


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return how the images of a folder were drawn, or None if the record is missing or cannot be read."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def grid_path(folder: Path) -> Path:
    """Not inside, where it would count as one of the pictures."""
    folder = folder if folder.name else folder.resolve()  # of "."
    return folder.with_name(f"{folder.name}-grid.png")


def resolve_settings(config: SampleConfig, run: Run, weaker: Run | None = None) -> Sampling:
    """The run's own way of sampling with what was asked for in its place; refuses what can't be."""
    for name, value in (("n", config.n), ("batch", config.batch)):
        if value < 1:
            raise InputError(f"{name} takes 1 or more images, got {value}")
    if not 0 <= config.seed < 2**63 - config.n:
        raise InputError(f"seed takes 0 or more, below 2^63, got {config.seed}")
    asked = {f.name: getattr(config, f.name) for f in fields(Sampling)}
    how = replace(run.card.sampling, **{name: value for name, value in asked.items() if value is not None})
    check_settings(how, run.model.schedule, run.card.learned_variance)
    classes = run.card.classes
    if config.label is not None and config.label not in classes:
        raise unknown("label", config.label, classes)
    if how.guidance != 1:
        check_guidance(run, weaker)
    elif weaker:
        raise InputError("--guide-with does nothing at guidance 1; add --guidance 2, for example")
    return how


def network_calls(how: Sampling) -> int:
    """Of the network for a picture, about: samplers that take as many as they like count as two a step."""
    return how.steps * registry.sampler.declared(how.sampler).get("evaluations", 2) * (1 + (how.guidance != 1))


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


def sample_batches(
    config: SampleConfig,
    run: Run,
    how: Sampling,
    report: Report = silent,
    weaker: Run | None = None,
    there: Callable[[Sequence[int]], bool] = lambda _: False,
) -> Iterator[tuple[Sequence[int], Images]]:
    """Yield (seeds, images) a batch at a time, but for batches that are `there` already."""
    precision, done, total = choose_precision(config.precision, run.model.device), 0, config.n * how.steps
    for start in range(0, config.n, config.batch):
        part = slice(start, min(start + config.batch, config.n))
        seeds = range(config.seed + part.start, config.seed + part.stop)
        if there(seeds):
            report("sampling", done := done + len(seeds) * how.steps, total)
            continue
        labels = labels_in_turn(run.card.classes, seeds)
        if config.label is not None:
            labels = torch.full((len(seeds),), run.card.classes.index(config.label))
        for step in run_sampler(run.model, seeds, how, labels, weaker.model if weaker else None, precision):
            images = step.x
            report("sampling", done := done + len(seeds), total)
        yield seeds, images
