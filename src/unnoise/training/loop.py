"""The training loop, from top to bottom."""

from functools import partial

import numpy as np

from unnoise import distributed
from unnoise.data.dataset import Dataset
from unnoise.device import out_of_memory
from unnoise.errors import InputError, UnreadError
from unnoise.run_folder import LOSS
from unnoise.training.batches import Batch, order, prepare, read_ahead, read_batch
from unnoise.training.clock import Clock
from unnoise.training.job import Job
from unnoise.training.monitors.monitor import Monitor
from unnoise.training.nonfinite import explain_nonfinite, find_nonfinite
from unnoise.training.optimizers import peak_lr
from unnoise.training.signals import Stop
from unnoise.training.trainer import StepResult

SAVE_EVERY, SAVE_SHARE = 60.0, 0.01  # seconds between states at least; share of the time that saving may take
PATIENCE = 50  # steps in a row that may be skipped because loss or gradient is not finite
LEAST_CAUTION = 1 / 8  # of the learning rate: the last try


def loop(job: Job, stop: Stop) -> None:
    """Train until the end or a signal; if numbers stop being finite, go back to the last state and learn slower."""
    trainer, clock = job.trainer, job.clock
    clock.start()
    while trouble := train_until_trouble(job, stop):
        job.roll_back()
        if trainer.caution < LEAST_CAUTION:
            raise InputError(
                f"training stopped: {trouble}. The last good state and weights, of {clock.seen:,} images, are in "
                f"{job.folder}: try --init {job.folder} with a lower --lr (now {peak_lr(trainer.config):g}) or "
                f"--precision fp32"
            )
        job.progress.say(
            f"warning: {trouble}; back to the state of {clock.seen:,} images, at {trainer.caution:g} of the "
            f"learning rate"
        )
    clock.stop()


def train_until_trouble(job: Job, stop: Stop) -> str | None:
    """Take steps until the clock or a signal ends them; return what went wrong, or None."""
    trainer, clock, config = job.trainer, job.clock, job.trainer.config
    save_at, job.skipping = clock.elapsed + SAVE_EVERY, 0
    indices = order(job.dataset, config.batch, config.seed, clock.seen)
    for coming in read_ahead(indices, partial(read_shard, job.dataset)):  # the next batch is read during this step
        if agree(clock, stop, save=clock.own_seconds >= save_at):
            if trouble := find_nonfinite(trainer):
                return trouble
            if not job.skipping:  # a state amid skipped steps would not be a good one
                save_at = clock.own_seconds + max(SAVE_EVERY, job.try_to_save() / SAVE_SHARE)
        if clock.progress >= 1 or stop.signal is not None:
            break
        images = job.log.wait_for(coming)
        done = clock.progress if config.decay == "cosine" else 0.0
        batch = prepare(images, trainer.times, config, clock.seen, trainer.model.device, done)  # noise at drawn levels
        if job.references:
            batch = job.references.average(batch, images.indices)
        if job.teacher:
            batch = job.teacher.correct(batch)
        clock.seen += images.n
        result = trainer.step(batch, images.n, distributed.shard(images.n))
        job.skipping = 0 if result else job.skipping + 1
        if job.skipping >= PATIENCE:
            numbers = job.dataset.numbers(images.indices)
            return f"{job.skipping} steps in a row were not finite: {explain_nonfinite(trainer, batch, numbers)}"
        log_step(job, result)
        if clock.progress < 1:
            run_monitors(job, stop)
    return find_nonfinite(trainer)


def read_shard(dataset: Dataset, indices: np.ndarray) -> Batch:
    """Read the part of a batch that this process learns from; one image if there are fewer images than processes."""
    rows = distributed.shard(len(indices))
    try:
        return read_batch(dataset, indices, rows if rows.start < rows.stop else slice(0, 1))
    except InputError as error:
        raise UnreadError(str(error)) from error


def agree(clock: Clock, stop: Stop, *, save: bool) -> bool:
    """Return True if it is time to save; several processes go by the same clock, and stop together."""
    if distributed.world_size() == 1:
        return save
    here = clock.own_seconds, stop.signal or 0, clock.ended, save and distributed.is_main()
    clock.agreed, signal, ended, save_now = distributed.all_reduce_max(*here)
    stop.signal, clock.ended = int(signal) or None, bool(ended)
    return bool(save_now)


def log_step(job: Job, result: StepResult | None) -> None:
    """Log a step, and the epoch that ends with it; print warnings that wait."""
    trainer, clock, epoch = job.trainer, job.clock, len(job.dataset)
    if result and job.log.step(clock, result.loss, result.grad_norm, lr=trainer.optimizer.param_groups[0]["lr"]):
        job.progress.show(clock.progress, job.log.line(clock))
    if clock.seen % epoch == 0:
        mean = job.log.epoch(clock.seen // epoch, clock.seen)
        if trainer.config.epochs and mean is not None:
            job.progress.say(f"epoch={clock.seen // epoch} avg_loss={mean:.6f}")
    for note in [*trainer.notes, *job.dataset.store.news()]:
        job.progress.say(f"warning: {note}")
    trainer.notes.clear()


def run_monitors(job: Job, stop: Stop) -> None:
    """Run the monitors that are due, in the main process; what cannot be read or written is a warning."""
    for monitor in job.monitors if distributed.is_main() else ():
        try:
            if monitor.due(job.clock) and run_monitor(job, monitor, stop):
                job.clock.ended = True
                return  # the others measure the weights that were kept
        except (InputError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not out_of_memory(error):
                raise
            job.progress.say(f"warning: {monitor.name}: {error}")


def run_monitor(job: Job, monitor: Monitor, stop: Stop) -> bool:
    """Run a monitor, and do what its outcome asks for; return True if it ends the training."""
    with job.trainer.averaged() as model:
        outcome = monitor.run(model, job.clock, stop)
    job.record(outcome)
    if job.clock.progress < 1:  # the end of the training plots once, for all
        job.log.plot_in_between(job.folder / LOSS, job.clock)
    return outcome.end
