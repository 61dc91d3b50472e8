"""What a run says of itself before and after."""

import signal
from datetime import datetime

from unnoise.device import peak_memory
from unnoise.progress import Progress, duration
from unnoise.run_folder import FINAL, SAMPLES
from unnoise.training.trainer import Trainer


def introduce(run: Trainer, progress: Progress) -> None:
    """Say what will be done with what, before it is done."""
    config, (c, h, w) = run.config, run.dataset.shape
    for note in run.dataset.notes:
        progress.say(f"  {note}")
    size = sum(p.numel() for p in run.ema.network.parameters()) / 1e6
    precision = run.accelerator.mixed_precision.replace("no", "fp32")
    length = duration(run.clock.seconds) if run.clock.seconds else f"{run.clock.images:,.0f} images"
    progress.say(
        f"data      {run.dataset.name}: {len(run.dataset):,} images, {w}x{h}, {run.dataset.mode or f'{c} channels'}"
        + (f", {len(run.card.classes)} classes" if run.card.classes else "")
        + (f"; {held:,} more are held out to measure on" if (held := run.card.data["held_out"]) else "")
    )
    progress.say(f"network   {run.card.backbone}, {size:.1f} M parameters, {precision} on {run.accelerator.device}")
    if config.precision == "fp16" and precision == "fp32":
        progress.say("          fp16 needs CUDA; training in fp32")
    progress.say(f"plan      {run.plan.told(run.clock, len(run.dataset), datetime.now())}")  # noqa: DTZ005  # theirs
    progress.say(f"training  {length}, into {run.folder}")


def conclude(run: Trainer, interrupted: int | None) -> None:
    clock, memory = run.clock, peak_memory()
    why = f"stopped by {signal.Signals(interrupted).name} after" if interrupted else "trained"
    rate = clock.seen / max(clock.elapsed, 1e-9)
    summary = {
        "images": clock.seen,
        "training_seconds": clock.elapsed,
        "mean_images_per_second": rate,
        "preview_seconds": run.previews.occasions.spent,
        "measuring_seconds": run.measuring.spent + run.quality.spent,
        "planned_images_per_second": run.plan.images_per_second,
        "peak_bytes": memory,
        "planned_peak_bytes": run.plan.peak_bytes,
        "skipped_steps": run.skipped,
    }
    run.log.add(summary)
    pace = f"{duration(clock.elapsed)} ({rate:.0f} images/s)"
    print(f"{why} {clock.seen:,} images in {pace}, peak memory {memory / 2**20:,.0f} MB")
    if run.skipped:
        print(f"skipped   {run.skipped} of the steps: their loss or gradient was not finite, and changed nothing")
    if run.held_out.rows:
        print(f"loss      {run.held_out}")
    if (run.folder / SAMPLES / FINAL).exists():
        print(f"grid      {run.folder / 'samples' / 'final.png'}")
    disk = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    if interrupted:
        print("to go on, give the same command again, without --fresh")
    print(f"run       {run.folder} ({disk / 2**20:,.0f} MB)    more pictures: unnoise sample {run.folder} -n 64")
