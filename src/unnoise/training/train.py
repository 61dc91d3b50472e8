"""Training, from top to bottom."""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from unnoise import distributed, registry
from unnoise.backbones.layers import recompute
from unnoise.card import Card
from unnoise.checkpoint import build_model
from unnoise.config import TrainConfig
from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset, split_held_out
from unnoise.errors import InputError, UnreadError
from unnoise.options import plain
from unnoise.progress import Progress
from unnoise.run_folder import FINAL, LOSS, SAMPLES
from unnoise.samplers.precision import seconds_per_image
from unnoise.sampling import network_calls
from unnoise.training import resume
from unnoise.training.batches import Batch, ahead, noised, order, read
from unnoise.training.checks import learned_variance, validate, way_of
from unnoise.training.clock import Clock
from unnoise.training.monitors.previews import affordable, sample, save_grid
from unnoise.training.plan import planned
from unnoise.training.signals import Interrupted, Stop, stop_signals
from unnoise.training.summary import conclude, introduce
from unnoise.training.tracker import Tracker
from unnoise.training.trainer import Trainer
from unnoise.training.warm_start import load_into

SAVE_EVERY, SAVE_SHARE = 60.0, 0.01  # seconds between states at least, and share of the time that saving may take
PATIENCE = 50  # steps in a row that may be skipped for a loss or gradient that is not finite
CAUTION = 1 / 8  # of the learning rate: the last try


def train(config: TrainConfig) -> Path:
    """Train on `config.data`, or go on where the same command was stopped; returns the run folder."""
    validate(config)
    progress = Progress(lines=True, silent=not distributed.is_main())
    try:
        return run_all(config, progress)
    finally:
        progress.close()


def run_all(config: TrainConfig, progress: Progress) -> Path:
    """Data, network, folder, loop, files, farewell."""
    distributed.from_main(lambda: resume.refuse_taken(config))
    with distributed.state().local_main_process_first():  # which fills the cache for the others
        everything = open_data(
            config.data,
            size=config.size,
            channels=config.channels,
            fit=config.fit,
            limit=config.limit,
            stream=config.stream,
            progress=progress.update,
        )
    if len({*distributed.all_gather(everything.fingerprint)}) > 1:
        raise InputError(f"the processes do not see the same pictures in {config.data}; is it the same everywhere?")
    dataset, held = split_held_out(everything, config.held_out)
    if config.classes and not dataset.classes:
        raise InputError(f"--classes: {config.data} has none; put the images of each class in a sub-folder of its own")
    with resume.find(config, dataset) as earlier:
        as_before = {name: earlier.state[name] for name in ("backbone", "precision")} if earlier else {}
        if config.backbone is not None and not isinstance(config.backbone, str):
            as_before["backbone"] = config.backbone  # the same by its text, which the state holds
        ready = planned(replace(config, **as_before), dataset.shape, len(dataset))
        torch.manual_seed(config.seed)
        card = card_of(replace(config, backbone=ready.backbone), dataset, held)
        if earlier:
            card = replace(card, sampling=resume.sampling(earlier) or card.sampling)
        model = build_model(card, ready.backbone)  # all that can be refused is refused before there is a folder
        if config.recompute:
            recompute(model.backbone)
        kept = load_into(model.backbone, config.init) if config.init and not earlier else None
        with resume.place(config, dataset, earlier) as folder:
            run = Trainer(config, (dataset, held), (model, card), ready, folder)
            if earlier:
                run.restore(earlier.state)
            introduce(run, progress)
            for line in earlier.said if earlier else [f"start     {config.init}: {kept}"] if kept else []:
                progress.say(line)
            return to_the_end(run, progress)


def to_the_end(run: Trainer, progress: Progress) -> Path:
    """The loop and what comes after it; where another process is lost on the way, that is said in words."""
    try:
        return trained(run, progress)
    except RuntimeError as error:
        if not distributed.lost_peer(error):
            raise
        raise InputError(
            f"another process of this training has ended; the state in {run.folder} is whole, and the same command "
            f"goes on with it"
        ) from error


def trained(run: Trainer, progress: Progress) -> Path:
    """The loop, and what comes after it."""
    if trouble := run.unsound():
        raise InputError(f"{trouble} before the first step; is the model of --init {run.config.init} damaged?")
    run.finished = False
    distributed.barrier()  # all have read the state that is now replaced
    with stop_signals() as stop, ExitStack() as afterwards:
        if distributed.is_main():
            run.save()
            afterwards.callback(follow(run))
        try:
            loop(run, progress, stop)
        except UnreadError:
            if distributed.is_main() and not run.failing and not run.unsound():
                with suppress(InputError, OSError):
                    run.save()
            raise
        run.clock.stop()
        interrupted = stop.signal
        if distributed.is_main():
            finish(run, progress, stop)
        progress.close()
        if distributed.is_main():
            conclude(run, interrupted)
    distributed.barrier()
    if interrupted is not None:
        raise Interrupted(interrupted, run.folder)
    return run.folder


def follow(run: Trainer) -> Callable[[], None]:
    """Let the tracker know of what is logged from here on, where one is named; returns what ends it."""
    if run.config.tracker is None:
        return lambda: None
    run.log.follower = Tracker(run.config.tracker, run.folder, plain(run.asked), run.notes.append)
    return run.log.follower.finish


def finish(run: Trainer, progress: Progress, stop: Stop) -> None:
    """What is measured, saved and drawn at the end; after a signal it is only saved."""
    interrupted = stop.signal
    run.save()
    if interrupted is None:
        try:
            warnings = run.measure()
            if run.quality.count:
                run.score(progress, stop)
        except InputError as error:  # of data that cannot be read any more, say
            warnings = [f"not measured: {error}"]
        for warning in warnings:
            progress.say(f"warning: {warning}")
    run.log.plot(run.folder / LOSS)
    if interrupted is None:
        final_grid(run, stop)
        run.finished = True
        run.save()


def loop(run: Trainer, progress: Progress, stop: Stop) -> None:
    """To the end or to a signal; where numbers stop being finite, from the last state on at a lower learning rate."""
    run.clock.start()
    while trouble := steps(run, progress, stop):
        run.roll_back()
        if run.caution < CAUTION:
            raise InputError(
                f"training stopped: {trouble}. The last good state and weights, of {run.clock.seen:,} images, are in "
                f"{run.folder}: try --init {run.folder} with a lower --lr (now {run.config.lr:g}) or --precision fp32"
            )
        progress.say(
            f"warning: {trouble}; back to the state of {run.clock.seen:,} images, at {run.caution:g} of the "
            f"learning rate"
        )


def steps(run: Trainer, progress: Progress, stop: Stop) -> str | None:
    """Until the clock says so: noise a batch, take a step, log, measure, save. Returns what went wrong."""
    config, clock = run.config, run.clock
    due, run.failing = clock.elapsed + SAVE_EVERY, 0
    wanted = order(run.dataset, config.batch, config.seed, clock.seen)
    for coming in ahead(wanted, partial(mine, run.dataset)):
        if agreed(clock, stop, save=clock.own >= due):
            if trouble := run.unsound():
                return trouble
            if not run.failing:  # else it would be no good state
                due = clock.own + max(SAVE_EVERY, keep(run, progress) / SAVE_SHARE)
        if clock.progress >= 1 or stop.signal is not None:
            break
        begun = time.monotonic()
        images = coming()
        run.log.waited += time.monotonic() - begun
        batch = noised(images, run.times, config, clock.seen, run.accelerator.device)
        clock.seen += images.n
        result = run.step(batch, images.n, distributed.shard(images.n))
        run.failing = 0 if result else run.failing + 1
        if run.failing >= PATIENCE:
            return f"{run.failing} steps in a row were not finite: {run.diagnosis(batch, images.indices)}"
        tell(run, result, progress)
        if distributed.is_main():
            look(run, progress, stop)
    return run.unsound()


def mine(dataset: Dataset, indices: np.ndarray) -> Batch:
    """What this process learns from; where there are fewer images than processes, one that does not count."""
    rows = distributed.shard(len(indices))
    try:
        return read(dataset, indices, rows if rows.start < rows.stop else slice(0, 1))
    except InputError as error:
        raise UnreadError(str(error)) from error


def tell(run: Trainer, result: tuple[float, float] | None, progress: Progress) -> None:
    """Log a step, and the epoch that ends with it."""
    clock, epoch = run.clock, len(run.dataset)
    if result and run.log.step(clock, *result, lr=run.optimizer.param_groups[0]["lr"]):
        progress.show(clock.progress, run.log.line(clock))
    if clock.seen % epoch == 0:
        mean = run.log.epoch(clock.seen // epoch, clock.seen)
        if run.config.epochs and mean is not None:
            progress.say(f"epoch={clock.seen // epoch} avg_loss={mean:.6f}")
    for note in [*run.notes, *run.dataset.store.news()]:
        progress.say(f"warning: {note}")
    run.notes.clear()


def agreed(clock: Clock, stop: Stop, *, save: bool) -> bool:
    """Whether it is time to save; several processes go by the same clock, and stop together."""
    if distributed.world_size() == 1:
        return save
    clock.agreed, signal, save_now = distributed.all_reduce_max(
        clock.own, stop.signal or 0, save and distributed.is_main()
    )
    stop.signal = int(signal) or None
    return bool(save_now)


def look(run: Trainer, progress: Progress, stop: Stop) -> None:
    """What is measured and drawn on the way, when it is due; where it cannot be written it is told, and no more."""
    warnings = list[str]()
    try:
        if run.previews.due(run.clock, run.log.rate):
            warnings += run.preview(stop)
        if run.measuring.due(run.clock):
            warnings += run.measure()
        if run.quality.due(run.clock) and run.clock.progress < 1:
            run.score(progress, stop)
    except (InputError, OSError) as error:
        warnings.append(f"not written: {error}")
    for warning in warnings:
        progress.say(f"warning: {warning}")


def keep(run: Trainer, progress: Progress) -> float:
    """Save on the way; what cannot be written is no reason to stop, it may be later. Returns the seconds it took."""
    begun = time.monotonic()
    try:
        if distributed.is_main():
            run.save()
    except (InputError, OSError) as error:
        progress.say(f"warning: not saved, and tried again soon: {error}")
    return time.monotonic() - begun


def card_of(config: TrainConfig, dataset: Dataset, held: Dataset) -> Card:
    """What the model file will say of itself."""
    assert config.backbone  # planned
    return Card(
        backbone=registry.backbone.text(config.backbone),
        schedule=registry.schedule.named(config.schedule),
        target=registry.target.named(config.target),
        shape=dataset.shape,
        mode=dataset.mode,
        classes=dataset.classes if config.classes else (),
        plugin=registry.backbone.origin(config.backbone),
        learned_variance=learned_variance(config.objective),
        sampling=way_of(config),
        data={
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,  # of all, those held out too
            "count": len(dataset),
            "held_out": len(held),
        },
    )


def final_grid(run: Trainer, stop: Stop) -> None:
    """The last picture: up to 64 images as `unnoise sample` draws them, in a tenth of the time, or 20 to 60 seconds."""
    how, seconds = run.card.sampling, min(60.0, max(20.0, run.clock.elapsed / 10))
    with run.accelerator.autocast():
        images = sample(
            run.averaged, affordable(seconds / seconds_per_image(run.averaged, 4), network_calls(how)), how, stop
        )
    if images is not None:
        save_grid(images, run.folder / SAMPLES / FINAL, run.card.mode)
