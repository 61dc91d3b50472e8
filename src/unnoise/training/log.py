"""Write what a training measures: rows of metrics.jsonl, the plot of the loss, the text of the progress bar."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from unnoise.files import read_json_lines, replacing
from unnoise.progress import duration
from unnoise.training.clock import Clock
from unnoise.training.tracker import Tracker

T = TypeVar("T")
WORTH_TELLING = 0.02  # share of the time that the training waits for data
PLOT_SHARE = 0.01  # of the time of the training, for plots before its end


class Log:
    """Rows of metrics.jsonl, and the means since the last row; only the main process has a file.

    Args:
        path: the file, or None in other processes.
    """

    remembered = ("kept", "last_time", "last_seen", "losses", "waited", "epoch_loss", "epoch_steps")

    def __init__(self, path: Path | None) -> None:
        self.path, self.rows, self.whole = path, list[dict[str, Any]](), True
        self.tracker: Tracker | None = None
        self.last_time, self.last_seen = 0.0, 0  # seconds and images at the last row
        self.losses, self.waited = list[float](), 0.0  # losses of the steps since then; seconds of waiting for data
        self.epoch_loss, self.epoch_steps = 0.0, 0
        self.loss = self.rate = float("nan")
        self.waiting = 0.0  # share of the time
        self.plotting = 0.0  # seconds that plots before the end took
        self.latest: dict[str, float] = {}

    @property
    def kept(self) -> int:
        """Return the number of rows; a run that resumes from an earlier state drops the later ones."""
        return len(self.rows)

    @kept.setter
    def kept(self, count: int) -> None:
        if self.path is not None and not self.rows and self.path.exists():
            self.rows = [*read_json_lines(self.path)]
        self.rows = self.rows[:count]
        self.whole = False  # the file is written anew with the next row

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row to the file; if it cannot be written, the rows wait here until it can."""
        self.rows.append(dict(row))
        if self.path is None:
            return
        if self.tracker:
            self.tracker.log(row)
        try:
            if not self.whole:
                self.rewrite()
                return
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError:
            self.whole = False

    def rewrite(self) -> None:
        """Write the whole file anew."""
        if self.path is None:
            return
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        self.whole = True

    def wait_for(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, and count the time as waiting for data."""
        begun = time.monotonic()
        result = work()
        self.waited += time.monotonic() - begun
        return result

    def step(self, clock: Clock, loss: float, grad_norm: float, *, lr: float) -> bool:
        """Take in one step; every second, or 1/500 of the time, write a row and return True."""
        self.losses.append(loss)
        self.epoch_loss, self.epoch_steps = self.epoch_loss + loss, self.epoch_steps + 1
        self.latest = {"grad_norm": grad_norm, "lr": lr}
        due = clock.elapsed - self.last_time >= max(1.0, clock.elapsed / 500)
        if due:
            self.write(clock)
        return due

    def write(self, clock: Clock) -> None:
        """Write a row for the steps since the last one, if there were any."""
        if not self.losses:
            return
        now = clock.elapsed
        self.loss = sum(self.losses) / len(self.losses)
        self.rate = (clock.seen - self.last_seen) / max(now - self.last_time, 1e-9)
        self.waiting = self.waited / max(now - self.last_time, 1e-9)
        row = {"images": clock.seen, "seconds": round(now, 2), "loss": self.loss, "images_per_second": self.rate}
        self.add({**row, "data_wait": round(self.waiting, 4), **self.latest})
        self.losses, self.waited, self.last_time, self.last_seen = [], 0.0, now, clock.seen

    def epoch(self, number: int, seen: int) -> float | None:
        """Close an epoch; return the plain mean of its batches' losses, as the notebook prints it, or None."""
        mean = self.epoch_loss / self.epoch_steps if self.epoch_steps else None
        self.add({"epoch": number, "images": seen, "loss": mean})
        self.epoch_loss, self.epoch_steps = 0.0, 0
        return mean

    def line(self, clock: Clock) -> str:
        """Return the loss, the pace and the time left, as the progress bar shows them."""
        wait = f"  {self.waiting:.0%} of the time waits for data" if self.waiting >= WORTH_TELLING else ""
        return f"loss {self.loss:.4f}  {self.rate:.0f} images/s{wait}  {duration(clock.left)} left"

    def curve(self, points: int = 200) -> list[tuple[int, float]]:
        """Return (images, loss) of about `points` rows, the last one always."""
        rows = [(row["images"], row["loss"]) for row in self.rows if "seconds" in row and "loss" in row]
        return rows[::-1][:: max(1, len(rows) // points)][::-1]

    def plot_in_between(self, path: Path, clock: Clock) -> None:
        """Plot, unless the plots so far have taken their share of the time."""
        if self.plotting <= PLOT_SHARE * clock.elapsed:
            begun = time.monotonic()
            self.plot(path)
            self.plotting += time.monotonic() - begun

    def plot(self, path: Path) -> None:
        """Write the curve of the loss as PNG, if there is one."""
        from matplotlib.figure import Figure  # noqa: PLC0415  # slow to import

        rows = self.curve(2000)
        if not rows:
            return
        images, losses = zip(*rows, strict=True)
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axis = figure.subplots()
        smooth = [losses[0]]
        for i, loss in enumerate(losses[1:], 1):
            keep = min(0.9, i / (i + 4))  # short at first, while the loss falls fast
            smooth.append(keep * smooth[-1] + (1 - keep) * loss)
        axis.plot(images, losses, color="#b8c4d6", linewidth=0.8, label="mean of the steps between two rows")
        axis.plot(images, smooth, color="#1f4e8c", linewidth=1.8, label="smoothed")
        axis.set(xlabel="images seen", ylabel="training loss", yscale="log")
        axis.grid(visible=True, which="both", alpha=0.25)
        axis.legend(frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
