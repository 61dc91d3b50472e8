"""Print what a training will do before it starts, and what it did at its end."""

import signal
from datetime import datetime

from unnoise.data.dataset import ABOUT_CLASSES
from unnoise.device import describe_device, peak_memory
from unnoise.progress import duration
from unnoise.run_folder import FINAL, SAMPLES
from unnoise.training.few_images import copy_horizon, later
from unnoise.training.job import Job
from unnoise.training.monitors.validation import ValidationMonitor


def introduce(job: Job) -> None:
    """Print the data, the network, the plan and the folder."""
    trainer, dataset, (c, h, w), say = job.trainer, job.dataset, job.dataset.shape, job.progress.say
    for note in dataset.notes:
        unused = note.startswith(ABOUT_CLASSES) and not job.card.classes
        say(f"  {len(dataset.classes)} classes are not used; --classes learns them" if unused else f"  {note}")
    size = sum(p.numel() for p in trainer.ema.network.parameters()) / 1e6
    precision, clock = trainer.precision, job.clock
    say(
        f"data      {dataset.name}: {len(dataset):,} images, {w}x{h}, {dataset.mode or f'{c} channels'}"
        + (f", {len(job.card.classes)} classes" if job.card.classes else "")
        + (f"; {held:,} more are held out to measure on" if (held := job.card.data["held_out"]) else "")
    )
    device = describe_device(precision.device)
    say(f"network   {job.card.backbone}, {size:.1f} M parameters, {precision.name} on {device}")
    if job.asked.precision == "fp16" and precision.name == "fp32":
        say("          fp16 needs CUDA; training in fp32")
    if job.references:
        say(f"target    in much noise, the mean over {len(job.references.numbers):,} training images")
    say(f"plan      {job.plan.in_words(clock, len(dataset), datetime.now())}")  # noqa: DTZ005  # the user's clock
    if job.expected:
        say(f"expected  KID x 1000 of {job.expected}; unnoise eval compares")
    by_images = clock.images is not None and job.plan.images(clock) == clock.images
    if by_images and clock.seconds and (horizon := copy_horizon(len(dataset), later(trainer.config))):
        say(f"copies    begin after about {horizon:,.0f} images: training ends before; --allow-copies trains on")
    length = f"{clock.images:,.0f} images" if by_images else duration(clock.seconds or 0)
    say(f"training  {length}, into {job.folder}")


def conclude(job: Job, interrupted: int | None) -> None:
    """Log and print what was done; `interrupted` is the signal that ended it, or None."""
    clock, memory, trainer, say = job.clock, peak_memory(), job.trainer, job.progress.say
    spent = {monitor.name: seconds_spent(monitor) for monitor in job.monitors}
    job.log.add(
        {
            "images": clock.seen,
            "training_seconds": clock.elapsed,
            "mean_images_per_second": clock.pace,
            "preview_seconds": spent.pop("previews", 0.0),
            "measuring_seconds": sum(spent.values()),
            "peak_bytes": memory,
            **planned(job),
            "skipped_steps": trainer.skipped,
        }
    )
    why = f"stopped by {signal.Signals(interrupted).name} after" if interrupted else "trained"
    pace = f"{duration(clock.elapsed)} ({clock.pace:.0f} images/s)"
    say(f"{why} {clock.seen:,} images in {pace}, peak memory {memory / 2**20:,.0f} MB")
    if trainer.skipped:
        say(f"skipped   {trainer.skipped} steps: their loss or gradient was not finite, and they changed nothing")
    for monitor in job.monitors:
        if isinstance(monitor, ValidationMonitor) and monitor.rows:
            say(f"loss      {monitor}")
    if (final := job.folder / SAMPLES / FINAL).exists():
        say(f"grid      {final}")
    if interrupted:
        say("resume    by the same command, without --fresh")
    disk = sum(path.stat().st_size for path in job.folder.rglob("*") if path.is_file())
    say(f"run       {job.folder} ({disk / 2**20:,.0f} MB)    more images: unnoise sample {job.folder} -n 64")


def log_plan(job: Job) -> None:
    """Log what was planned, so that a training that is killed keeps it too."""
    job.log.add({"images": job.clock.seen, **planned(job)})


def planned(job: Job) -> dict[str, float]:
    """Return the pace and the memory that were planned."""
    return {"planned_images_per_second": job.plan.images_per_second, "planned_peak_bytes": job.plan.peak_bytes}


def seconds_spent(monitor: object) -> float:
    """Return the seconds that a monitor has spent, if it counts them."""
    return float(getattr(getattr(monitor, "budget", monitor), "spent", 0.0))
