"""Set up a training and end it; the loop between is in loop.py."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from unnoise import distributed, registry
from unnoise.backbones.layers import recompute
from unnoise.card import Card, on_mirrored
from unnoise.checkpoint import build_model
from unnoise.config import TrainConfig
from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset, class_counts, split_held_out
from unnoise.data.frames import read_as
from unnoise.device import pick_device
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError, UnreadError
from unnoise.evaluation.judges import DURING_TRAINING
from unnoise.images import to_float
from unnoise.options import plain
from unnoise.progress import Progress, Report, duration
from unnoise.run_folder import FINAL, LOSS, METRICS, SAMPLES
from unnoise.samplers.precision import seconds_per_image
from unnoise.sampling import network_calls
from unnoise.training import resume
from unnoise.training.checks import (
    check_conditions,
    check_config,
    describe_objective,
    learned_variance,
    pretrained_networks,
    sampling_settings,
    suited_to,
)
from unnoise.training.clock import Clock
from unnoise.training.expected import expected_kid
from unnoise.training.few_images import choose_flip, warn_of_few
from unnoise.training.job import Job
from unnoise.training.log import Log
from unnoise.training.loop import loop, run_monitors
from unnoise.training.monitors.copies import CopiesMonitor
from unnoise.training.monitors.drawing import affordable, draw_images, save_grid
from unnoise.training.monitors.kid import KidMonitor
from unnoise.training.monitors.monitor import Monitor
from unnoise.training.monitors.previews import PREVIEW, PreviewMonitor, saturation
from unnoise.training.monitors.validation import ValidationMonitor, fixed_subset
from unnoise.training.near_runs import near_runs
from unnoise.training.nonfinite import find_nonfinite
from unnoise.training.optimizers import peak_lr
from unnoise.training.plan import Planned, make_plan
from unnoise.training.precision import place_network
from unnoise.training.references import choose_references
from unnoise.training.signals import Interrupted, Stop, stop_signals
from unnoise.training.summary import conclude, introduce, log_plan
from unnoise.training.teaching import keep_teacher, open_teacher
from unnoise.training.tracker import Tracker
from unnoise.training.trainer import Trainer
from unnoise.training.warm_start import load_into

TELL_AFTER = 2.0  # seconds of decoding after which its length is known well enough


def train(config: TrainConfig, monitors: Sequence[Monitor] = ()) -> Path:
    """Train on `config.data`, or resume the same command where it was stopped.

    Args:
        config: the settings.
        monitors: your own monitors, beside previews, validation and KID.

    Returns:
        The run folder.

    Raises:
        InputError: something that was given cannot be used.
        Interrupted: a signal ended the training; its state is saved.
    """
    progress = Progress(lines=True, silent=not distributed.is_main())
    try:
        with own_random_stream():
            check_config(config)
            config = replace(config, lr=peak_lr(config))
            return train_or_resume(config, monitors, progress)
    finally:
        progress.close()


@contextmanager
def own_random_stream() -> Iterator[None]:
    """Leave PyTorch's random streams as they were: weights and dropout are drawn from seeds of our own."""
    with torch.random.fork_rng([pick_device()] if torch.cuda.is_available() else []):
        yield


def train_or_resume(config: TrainConfig, monitors: Sequence[Monitor], progress: Progress) -> Path:
    """Open the data, find the run, build the model, make the folder, and train; refuse before there is a folder."""
    distributed.from_main(lambda: resume.refuse_taken(config))
    dataset, held = open_parts(config, progress)
    config = suited_to(dataset.shape[0], config)
    with resume.find(config, dataset) as earlier:
        then = resume.as_then(config, earlier.state["config"]) if earlier else config
        config, chosen = choose_flip(then, dataset)  # a run that is resumed has chosen
        as_chosen = resume.with_chosen(config, earlier)
        teacher = open_teacher(as_chosen, earlier.folder if earlier else None)
        ready = make_plan(as_chosen, dataset.shape, len(dataset), teacher)
        card = make_card(replace(config, backbone=ready.backbone), dataset, held)
        if earlier:
            card = replace(card, sampling=resume.tuned_settings(earlier) or card.sampling)
        torch.manual_seed(config.seed)
        model = build_model(card, ready.backbone)
        if config.recompute:
            recompute(model.backbone)
        news = earlier.messages if earlier else near_runs(config, dataset)
        if config.init and not earlier:
            news.append(f"start     {config.init}: {load_into(model.backbone, config.init)}")
        if not earlier:
            news += describe_objective(config, dataset.shape[0])
            news += [*([] if teacher else warn_of_few(dataset, len(held))), *chosen]
            news += check_conditions(model, card.backbone, transformed=bool(config.augment))
        with resume.place(config, dataset, earlier) as folder:
            job = make_job(config, (dataset, held), (model, card), ready, folder, progress)
            job.monitors, job.teacher = [*job.monitors, *monitors], teacher
            if teacher and not earlier and distributed.is_main():
                keep_teacher(teacher, folder)
            if earlier:
                job.restore(earlier.state)
                job.trainer.at_once = min(job.trainer.at_once, ready.plan.at_once)  # the memory of today
            introduce(job)
            for line in news:
                progress.say(line)
            return run_to_the_end(job)


def open_parts(config: TrainConfig, progress: Progress) -> tuple[Dataset, Dataset]:
    """Open the data; return the images to train on and the held-out ones."""
    with distributed.main_first():  # it fills the cache for the others
        everything = open_data(
            read_as(config.data, config.frames, config.max_pixels, config.label_column),
            size=config.size,
            channels=config.channels,
            fit=config.fit,
            limit=config.limit,
            stream=config.stream,
            progress=progress.update if config.images or config.epochs else told_before_the_budget(progress),
        )
    if len({*distributed.all_gather(everything.fingerprint)}) > 1:
        raise InputError(f"the processes do not see the same images in {everything.name}; is it the same everywhere?")
    dataset, held = split_held_out(everything, config.held_out)
    if config.classes and not dataset.classes:
        why = dataset.no_classes or "its images have no labels"
        raise InputError(
            f"--classes: {everything.name} has none: {why}; put the images of each class in a sub-folder of its "
            "own, or name a column of labels with --label-column"
        )
    return dataset, held


def told_before_the_budget(progress: Progress) -> Report:
    """Return a report of the progress that also says, once, that decoding takes time beside the budget."""
    begun, told = dict[str, float](), list[str]()

    def report(task: str, done: int, total: int | None) -> None:
        progress.update(task, done, total)
        spent = time.monotonic() - begun.setdefault(task, time.monotonic())
        if task == "decoding" and not told and total and done and spent > TELL_AFTER:
            told.append(
                f"data      {total:,} images are made ready first, which takes about "
                f"{duration(spent * total / done)} and is not part of the budget"
            )
            progress.say(told[0])

    return report


def make_card(config: TrainConfig, dataset: Dataset, held: Dataset) -> Card:
    """Return what the model file will say of itself."""
    assert config.backbone is not None  # it is chosen by now
    return Card(
        backbone=registry.backbone.text(config.backbone),
        schedule=registry.schedule.named(config.schedule),
        target=registry.target.named(config.target),
        shape=dataset.shape,
        mode=dataset.mode,
        classes=dataset.classes if config.classes else (),
        plugin=registry.backbone.origin(config.backbone),
        learned_variance=learned_variance(config.objective),
        sampling=sampling_settings(config),
        data={
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,  # of all images, the held-out ones too
            "count": len(dataset),
            "held_out": len(held),
            "spans": dataset.spans,
            **({"class_counts": class_counts(dataset)} if config.classes and dataset.groups is None else {}),
        },
    )


def make_job(
    config: TrainConfig,
    data: tuple[Dataset, Dataset],
    new: tuple[Diffusion, Card],
    ready: Planned,
    folder: Path,
    progress: Progress,
) -> Job:
    """Put together what a training consists of."""
    (dataset, held), (model, card) = data, new
    place_network(model.backbone, pick_device(), ready.precision)
    clock = Clock.from_config(config, len(dataset))
    chosen = replace(config, backbone=ready.backbone)
    trainer = Trainer(chosen, model, ready.precision, clock, ready.plan.at_once)
    some = to_float(torch.from_numpy(dataset.read(dataset.chosen(64, 0))))
    monitors: list[Monitor] = [
        CopiesMonitor(dataset, held, card.sampling, allowed=config.allow_copies, mirrored=on_mirrored(vars(config))),
        PreviewMonitor(folder / SAMPLES, dataset.mode, saturation(some), card.sampling if config.distill else PREVIEW),
    ]
    if config.distill is None:  # a student learns no images, but what its teacher makes of their noise
        at_once = min(config.batch, ready.plan.at_once)
        kinds = fixed_subset(dataset), fixed_subset(held)
        monitors.append(ValidationMonitor(trainer.objective, *kinds, at_once, labelled=config.classes))
    # a judge that teaches would choose the best weights by what it taught
    if DURING_TRAINING not in pretrained_networks(config.objective):
        monitors.append(KidMonitor(dataset, card.sampling, held))
    log = Log(folder / METRICS if distributed.is_main() else None)
    references = choose_references(dataset, config, model.device)
    expected = expected_kid(chosen, dataset, ready.plan.images(clock))
    return Job(config, trainer, dataset, card, ready.plan, folder, log, progress, references, monitors, expected)


def run_to_the_end(job: Job) -> Path:
    """Run the loop and what comes after it; if another process is lost, say so in words."""
    try:
        return run_loop(job)
    except RuntimeError as error:
        if not distributed.lost_peer(error):
            raise
        raise InputError(
            f"another process of this training has ended; the state in {job.folder} is whole, and the same command "
            f"resumes it"
        ) from error


def run_loop(job: Job) -> Path:
    """Save, run the loop, measure, draw and save again; after a signal, only save."""
    if trouble := find_nonfinite(job.trainer):
        raise InputError(f"{trouble} before the first step; is the model of --init {job.asked.init} damaged?")
    job.finished, job.clock.ended = False, job.clock.ended and not job.asked.allow_copies
    distributed.barrier()  # every process has read the state that is now replaced
    with stop_signals() as stop, ExitStack() as afterwards:
        if distributed.is_main():
            job.save()
            afterwards.callback(start_tracker(job))
            log_plan(job)
        try:
            loop(job, stop)
        except UnreadError:
            save_what_was_learned(job)
            raise
        if distributed.is_main():
            finish(job, stop)
        interrupted = None if job.finished else stop.signal  # a signal after the last save changes nothing
        job.progress.close()
        if distributed.is_main():
            conclude(job, interrupted)
        interrupted = distributed.from_main(lambda: interrupted)
    if interrupted is not None:
        raise Interrupted(interrupted, job.folder)
    return job.folder


def start_tracker(job: Job) -> Callable[[], None]:
    """Pass the log on to a tracker, if one is named; return what closes it."""
    if job.asked.tracker is None:
        return lambda: None
    job.log.tracker = Tracker(job.asked.tracker, job.folder, plain(job.asked), job.trainer.notes.append)
    return job.log.tracker.finish


def save_what_was_learned(job: Job) -> None:
    """Save when data cannot be read any more, unless the last steps were not finite."""
    if distributed.is_main() and not job.skipping and not find_nonfinite(job.trainer):
        with suppress(InputError, OSError):
            job.save()


def finish(job: Job, stop: Stop) -> None:
    """Save; at the end of the length also run the monitors once more, draw the final grid, and save again."""
    job.save()
    if stop.signal is None and not job.clock.ended:
        run_monitors(job, stop)
    if stop.signal is None and job.clock.ended:
        job.progress.say(f"ended     {job.take_kept()}; --allow-copies trains on")
        run_monitors(job, stop)
    job.log.plot(job.folder / LOSS)
    if stop.signal is None:
        try:
            draw_final_grid(job, stop)
        except InputError as error:  # images that are no numbers do not undo the training
            job.progress.say(f"warning: no grid of the end: {error}")
    if stop.signal is None:
        job.finished = True
        job.save()


def draw_final_grid(job: Job, stop: Stop) -> None:
    """Draw up to 64 images as `unnoise sample` draws them, in a tenth of the time, or 20 to 60 seconds."""
    settings, seconds = job.card.sampling, min(60.0, max(20.0, job.clock.elapsed / 10))
    with job.trainer.averaged() as model:
        count = affordable(seconds / seconds_per_image(model, 4), network_calls(settings))
        images = draw_images(model, count, settings, stop)
    if images is not None:
        save_grid(images, job.folder / SAMPLES / FINAL, job.card.mode)
