"""The one progress bar: it always shows totals."""

import sys
import time
from collections.abc import Callable
from typing import TypeAlias

from tqdm import tqdm

Report: TypeAlias = Callable[[str, int, int | None], object]  # task, items done so far, items in total if known

LINE_EVERY = 10.0  # seconds between plain lines
LINE_SHARE = 0.05  # of a training between plain lines
PERCENTAGE = "{percentage:3.0f}%|{bar:24}| {desc}"


def silent(task: str, done: int, total: int | None) -> None:
    """Ignore a report."""


class Progress:
    """Show how far a task is: a bar on a terminal; elsewhere nothing, or plain lines now and then with `lines`."""

    def __init__(self, unit: str = " images", *, lines: bool = False, silent: bool = False) -> None:
        self.live, self.lines, self.silent = sys.stderr.isatty() and not silent, lines, silent
        self.bar = tqdm(unit=unit, bar_format=PERCENTAGE if lines else None, disable=not self.live)
        self.task, self.next_line, self.next_share = "", time.monotonic() + LINE_EVERY, 0.0

    def update(self, task: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` items of a task are finished."""
        if self.live:
            if task != self.task:
                self.task = task
                self.bar.reset(total)
            self.bar.set_description_str(f"{task} {done:,}{f' of {total:,}' if total else ''}" if self.lines else task)
            self.bar.update(done - self.bar.n)
        elif self.lines and not self.silent and time.monotonic() > self.next_line:
            self.next_line = time.monotonic() + LINE_EVERY
            print(f"{task} {done:,}{f' of {total:,}' if total else ''}", flush=True)

    def show(self, share: float, text: str) -> None:
        """Show the share of a training that is done, 0 to 1, and a text."""
        if self.live:
            self.bar.total, self.bar.n = 1.0, share
            self.bar.set_description_str(text)
        elif share >= self.next_share and not self.silent:
            self.next_share = share + LINE_SHARE
            print(f"{share:4.0%}  {text}", flush=True)

    def say(self, text: str) -> None:
        """Print a line without breaking the bar: to the output of a training, or else beside the bar."""
        if not self.silent:
            tqdm.write(text, file=sys.stdout if self.lines else sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def duration(seconds: float) -> str:
    """Write seconds as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
