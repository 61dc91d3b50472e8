"""Show a training while it runs. Everything is read from the run's files, so the training knows nothing of the app."""

import time
from contextlib import suppress
from pathlib import Path

from unnoise.card import Card
from unnoise.errors import InputError
from unnoise.progress import duration
from unnoise.recipes import train_config
from unnoise.reporting.curves import TrainingLog, draw_curves, read_log
from unnoise.reporting.render import EmbeddedImages, render
from unnoise.reporting.report import open_preview, preview_files
from unnoise.run_folder import CONFIG, METRICS, own_file, reading_records
from unnoise.training.clock import Clock


def training_view(folder: Path, card: Card) -> str:
    """Return a piece of HTML with the progress of a training, its last preview and its curves."""
    metrics, log = own_file(folder, METRICS), TrainingLog([], [], [], [], {})
    if metrics is not None:
        with suppress(OSError):
            log = read_log(metrics)
    previews = preview_files(folder)
    with reading_records(folder):
        facts = {
            "progress": describe_progress(folder, card, log.steps[-1]) if log.steps else None,
            "preview": open_preview(EmbeddedImages(folder), previews[-1]) if previews else None,
            **draw_curves(log),
        }
    return render("app/training_view.html.jinja", facts)


def describe_progress(folder: Path, card: Card, row: dict[str, float]) -> str:
    """Return the share done, images, loss, speed and time left by the last row of the log.

    The text also says when the log was last written, since only this tells if the training still runs.
    """
    written = f"last written {duration(time.time() - (folder / METRICS).stat().st_mtime)} ago"
    done = f"{row['images']:,} images in {duration(row['seconds'])}, loss {row['loss']:.4f}, "
    done += f"{row['images_per_second']:.0f} images/s"
    if (settings := own_file(folder, CONFIG)) is None:
        return f"{done}; {written}"
    try:
        clock = Clock.from_config(train_config(str(settings), {}), card.data.get("count", 0))
    except InputError:
        return f"{done}; {written}"
    clock.seen, clock.elapsed = int(row["images"]), row["seconds"]
    if clock.progress >= 1:
        return f"{done}; finished"
    return f"{clock.progress:.0%}: {done}; {duration(clock.left)} left, {written}"
