"""A run while it trains, from its files alone: nothing of the training knows that it is watched."""

import time
from itertools import chain
from pathlib import Path

from unnoise.card import Card
from unnoise.errors import InputError
from unnoise.progress import duration
from unnoise.recipes import train_config
from unnoise.reporting.report import curves, embedded, escape, read
from unnoise.run_folder import CONFIG, METRICS
from unnoise.training.clock import Clock


def watched(folder: Path, card: Card) -> str:
    """A piece of HTML: where it is, the last preview, the curves."""
    try:
        rows = read(folder / METRICS)
    except OSError:
        return "<p>There is no log of a training here.</p>"
    if not rows.steps:
        return "<p>There is no log of a training here.</p>"
    parts = [f"<p>{escape(progress(folder, card, rows.steps[-1]))}</p>"]
    if previews := sorted(folder.glob("samples/[0-9]*.png")):
        seen = int(previews[-1].stem)
        parts.append(
            f'<figure><img class="pixels" alt="preview after {seen:,} images" src="{embedded(previews[-1])}">'
            f"<figcaption>{seen:,} images, fixed noise</figcaption></figure>"
        )
    return "\n".join(chain(parts, curves(rows)))


def progress(folder: Path, card: Card, row: dict[str, float]) -> str:
    """Share, images, loss, pace, time left; and when it last wrote, since nobody else says whether it still goes on."""
    ago = time.time() - (folder / METRICS).stat().st_mtime
    said = f"{row['images']:,} images in {duration(row['seconds'])}, loss {row['loss']:.4f}, "
    said += f"{row['images_per_second']:.0f} images/s; "
    try:
        clock = Clock.from_config(train_config(str(folder / CONFIG), {}), card.data.get("count", 0))
    except InputError:
        return f"{said}last written {duration(ago)} ago"
    clock.seen, clock.elapsed = int(row["images"]), row["seconds"]
    if clock.progress >= 1:
        return f"{said}over"
    return f"{clock.progress:.0%}: {said}{duration(clock.left)} left, last written {duration(ago)} ago"
