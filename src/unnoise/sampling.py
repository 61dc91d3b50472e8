"""Draw images from a trained run: as tensors, or as files in a folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from unnoise import distributed, registry
from unnoise.card import Run
from unnoise.checkpoint import RunLike, as_run, weights_hash
from unnoise.config import SampleConfig, Sampling
from unnoise.errors import InputError, unknown
from unnoise.files import (
    check_writable,
    lock_folder,
    new_folder,
    parse_json,
    remove_leftovers,
    replacing,
    user_path,
    write_json,
)
from unnoise.images import grid, is_readable, read_image, save_image
from unnoise.options import Spec, describe_changes, plain
from unnoise.progress import Report, Say, mute, silent
from unnoise.run_folder import RECORD, is_own, own_file, refuse_links
from unnoise.samplers.draw import check_settings, labels_for
from unnoise.samplers.draw import draw as run_sampler
from unnoise.samplers.precision import Precision, choose_precision, describe_precision
from unnoise.types import Images

FREE_TO_CHANGE = ("n", "run")  # entries of the record that may differ when a folder is resumed
MAX_GRID = 256  # images in the grid; more would be too small to see


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
    """Draw n images; image i has seed + i and is the same at any n and batch.

    Args:
        run: A run folder, a model file, a `Run` or a `Diffusion`.
        n, batch: The number of images, and how many are computed at a time.
        sampler, spacing: Specs such as "ddim:eta=0.5", or callables (default: the run's own).
        steps, clip, guidance, guidance_interval: Fields of `SampleConfig` (default: the run's own).
        seed: The seed of the first image.
        label: The class of all images, by name (default: every class in turn).
        guide_with: A weaker run that guidance leads away from, instead of the run without its class.
        precision: "auto" is bf16 on a device whose instructions make it fast, else fp32.

    Returns:
        Images [n, c, h, w] in [-1, 1].

    Raises:
        InputError: A value is not allowed, or the run cannot be opened.
    """
    settings = {name: value for name, value in locals().items() if name not in ("run", "guide_with")}
    return sample_images(as_run(run), settings, None if guide_with is None else as_run(guide_with))


def sample_images(run: Run, settings: Mapping[str, Any], weaker: Run | None = None) -> Images:
    """Draw images [n, c, h, w] from an opened run; `settings` are fields of SampleConfig."""
    config = SampleConfig(run.name, **settings)
    resolved = resolve_settings(config, run, weaker)
    return torch.cat([images for _, images in sample_batches(config, run, resolved, weaker=weaker)])


def sample_to_folder(config: SampleConfig, report: Report = silent, say: Say = mute) -> Path:
    """Write one file per image, named by its seed, and a grid of them next to the folder; return the folder.

    The same call resumes a folder that was not finished.
    """
    run, weaker = as_run(config.run), as_run(config.guide_with) if config.guide_with else None
    settings = resolve_settings(config, run, weaker)
    record = describe_images(config, run, settings, weaker)
    with ExitStack() as held:
        folder, precision = distributed.from_main(lambda: find_folder(config, run, record, held))
        if existing := sum(not path.name.startswith(".") for path in folder.iterdir()):
            say(f"resuming {folder}, which holds {existing:,} images")
        say(describe_precision(precision, run.model.device))
        distributed.barrier()  # every process has counted the images
        write_images(replace(config, precision=precision), run, settings, weaker, folder, report)
        distributed.barrier()  # every image is written
        if distributed.is_main():
            write_grid(config, run.card.mode, folder)
    return folder


def describe_images(config: SampleConfig, run: Run, settings: Sampling, weaker: Run | None) -> dict[str, Any]:
    """Return the record of a folder: everything that its images depend on."""
    return {
        "run": str(run.file),
        "weights": weights_hash(run),
        "guide_with": weaker and weights_hash(weaker),
        "seed": config.seed,
        "label": config.label,
        **plain(settings),
        "precision": config.precision,
        "n": config.n,
    }


def write_images(
    config: SampleConfig, run: Run, settings: Sampling, weaker: Run | None, folder: Path, report: Report
) -> None:
    """Draw this process's share of the batches and write each image; leave batches that are complete already."""

    def is_done(seeds: Sequence[int]) -> bool:
        process = (seeds[0] - config.seed) // config.batch % distributed.world_size()
        done = (is_readable(image_path(folder, seed, run.card.mode)) for seed in seeds)
        return process != distributed.rank() or all(done)

    for seeds, images in sample_batches(config, run, settings, report, weaker, is_done):
        for seed, image in zip(seeds, images, strict=True):
            with replacing(image_path(folder, seed, run.card.mode), flush=False) as temporary:
                save_image(image, temporary, run.card.mode)


def write_grid(config: SampleConfig, mode: str, folder: Path) -> None:
    """Write a grid of the first images in a folder next to the folder."""
    seeds = range(config.seed, config.seed + min(config.n, MAX_GRID))
    images = torch.stack([read_image(image_path(folder, seed, mode)) for seed in seeds])
    with replacing(grid_path(folder)) as temporary:
        grid(images, mode).save(temporary)


def image_path(folder: Path, seed: int, mode: str) -> Path:
    """Return the file of the image with this seed."""
    return folder / f"{seed:06d}{'.png' if mode else '.npy'}"


def find_folder(config: SampleConfig, run: Run, record: Mapping[str, Any], held: ExitStack) -> tuple[Path, Precision]:
    """Return the folder to write to, locked until `held` closes, and the precision of its images.

    The folder is the one that the same call left unfinished, else a new one. A resumed folder keeps its precision.
    """
    folder = find_unfinished(config, run, record, held)
    if folder is None:
        held.enter_context(lock_folder(folder := new_folder(config.out, run.folder, "sampled")))
    recorded, requested = read_record(folder) or {}, config.precision
    if requested == "auto" and recorded.get("precision") in get_args(Precision):
        requested = recorded["precision"]
    precision = choose_precision(requested, run.model.device)
    check_writable(grid_path(folder), "--out")
    remove_leftovers(folder)
    write_json(folder / RECORD, {**record, "precision": precision})
    return folder, precision


def find_unfinished(config: SampleConfig, run: Run, record: Mapping[str, Any], held: ExitStack) -> Path | None:
    """Return the folder that the same call left unfinished, locked until `held` closes, or None.

    A folder named by --out may also be given more images. Raises InputError if it holds other images.
    """
    ignored = ["precision"] if config.precision == "auto" else []
    if config.out is not None:
        folder = user_path(config.out)
        before = read_record(folder)
        if before is None or not folder.is_dir():
            return None
        if changed := describe_changes(before, record, (*FREE_TO_CHANGE, *ignored)):
            raise InputError(f"--out {folder} holds other images: {'; '.join(changed)}; name a new folder")
        refuse_links(folder)
        held.enter_context(lock_folder(folder))
        return folder
    for folder in sorted(path for path in run.folder.glob("sampled-*/") if is_own(run.folder, path)):
        made = sum(path.lstat().st_size > 0 for path in folder.glob("[0-9]*"))
        unfinished = made < config.n or not grid_path(folder).exists()
        if unfinished and not describe_changes(read_record(folder) or {}, record, ignored):
            with suppress(InputError, OSError):  # another program draws there, there is a link, or it is read-only
                refuse_links(folder)
                held.enter_context(lock_folder(folder))
                return folder
    return None


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return how the images of a folder were drawn, or None if the record is missing or cannot be read."""
    if (file := own_file(folder, RECORD)) is None:
        return None
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def grid_path(folder: Path) -> Path:
    """Return the file of the grid: next to the folder, since inside it would count as one of the images."""
    folder = folder if folder.name else folder.resolve()  # the name of "." is empty
    return folder.with_name(f"{folder.name}-grid.png")


def resolve_settings(config: SampleConfig, run: Run, weaker: Run | None = None) -> Sampling:
    """Return the run's own sampling settings, replaced by the requested ones.

    Raises:
        InputError: A value is not allowed, or does not fit the run.
    """
    if config.seed >= 2**63 - config.n:
        raise InputError(f"seed + n must be below 2^63, got seed {config.seed} and n {config.n}")
    requested = {f.name: getattr(config, f.name) for f in fields(Sampling)}
    settings = replace(run.card.sampling, **{name: value for name, value in requested.items() if value is not None})
    check_settings(settings, run.model.schedule, run.card.learned_variance)
    check_taught(run, settings)
    classes = run.card.classes
    if config.label is not None and config.label not in classes:
        raise unknown("label", config.label, classes)
    if settings.guidance != 1:
        check_guidance(run, weaker)
    elif weaker:
        raise InputError("--guide-with does nothing at guidance 1; add --guidance 2, for example")
    return settings


def check_taught(run: Run, settings: Sampling) -> None:
    """Raise InputError if a student is asked for steps that it was not taught."""
    if not run.card.taught:
        return
    (steps, spacing), sampler = run.card.taught, registry.sampler.text(run.card.sampling.sampler)
    asked = settings.steps, registry.spacing.text(settings.spacing), registry.sampler.text(settings.sampler)
    if asked != (steps, spacing, sampler):
        raise InputError(
            f"{run.name} was taught {steps} steps of {sampler} at {spacing} levels and knows no others: got {asked[0]} "
            f"of {asked[2]} at {asked[1]}; distill another student, or draw from {run.described_teacher}"
        )


def network_calls(settings: Sampling) -> int:
    """Return about how many calls of the network an image takes.

    A sampler that declares no number counts as two calls per step.
    """
    calls_per_step = int(registry.sampler.declared(settings.sampler).get("evaluations", 2))
    return settings.steps * calls_per_step * (1 + (settings.guidance != 1))


def check_guidance(run: Run, weaker: Run | None) -> None:
    """Raise InputError if a run cannot be guided: nothing weaker is there to lead away from, or it does not fit."""
    if weaker is None:
        if not run.card.classes:
            raise InputError("--guidance needs a run with classes (train --classes), or a weaker one: --guide-with RUN")
        if not run.card.training.get("config", {}).get("label_dropout"):
            raise InputError(
                "--guidance needs a run that also saw images without their class: train with --label-dropout 0.1"
            )
        return
    if weaker.card.taught not in (None, run.card.taught):
        steps, spacing = weaker.card.taught
        raise InputError(f"--guide-with {weaker.name}: it was taught {steps} steps at {spacing} levels and no others")
    for name in ("shape", "schedule", "classes"):
        ours, theirs = getattr(run.card, name), getattr(weaker.card, name)
        if ours != theirs and theirs:
            raise InputError(f"--guide-with {weaker.name}: its {name} is {theirs}, but the run has {ours}")


def sample_batches(
    config: SampleConfig,
    run: Run,
    settings: Sampling,
    report: Report = silent,
    weaker: Run | None = None,
    skip: Callable[[Sequence[int]], bool] = lambda _: False,
    class_counts: Sequence[int] | None = None,
) -> Iterator[tuple[Sequence[int], Images]]:
    """Yield (seeds, images [b, c, h, w]), one batch at a time, except batches whose seeds `skip` says to leave out.

    The classes come in turn, or in the proportions of `class_counts`.
    """
    precision = choose_precision(config.precision, run.model.device)
    done, total = 0, config.n * settings.steps
    for start in range(0, config.n, config.batch):
        seeds = range(config.seed + start, config.seed + min(start + config.batch, config.n))
        if skip(seeds):
            report("sampling", done := done + len(seeds) * settings.steps, total)
            continue
        labels = labels_for(run.card.classes, seeds, class_counts)
        if config.label is not None:
            labels = torch.full((len(seeds),), run.card.classes.index(config.label))
        for step in run_sampler(run.model, seeds, settings, labels, weaker.model if weaker else None, precision):
            images = step.x
            report("sampling", done := done + len(seeds), total)
        yield seeds, images
