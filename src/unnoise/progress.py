"""The one progress bar: it always shows totals."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from tqdm import tqdm
from tqdm.utils import ObjectWrapper

from unnoise.terminal import encodable, has_width, is_terminal, printable, say, tell

Report: TypeAlias = Callable[[str, int, int | None], object]  # task, items done so far, items in total if known
Say: TypeAlias = Callable[[str], object]  # called with a line for the user

LINE_EVERY = 10.0  # seconds between plain lines
LINE_SHARE = 0.05  # of a training between plain lines
USUAL_WIDTH = 80  # characters of a terminal that does not tell its own, as in some containers
PERCENTAGE = "{percentage:3.0f}%|{bar:24}| {desc}"


def silent(task: str, done: int, total: int | None) -> None:
    """Ignore a report."""


def mute(line: str) -> None:
    """Ignore a line for the user."""


class Quiet(ObjectWrapper):
    """A stream as tqdm needs it: what cannot be written is dropped, so that a bar never ends the work it shows."""

    def write(self, text: str) -> None:
        """Write a text, if the stream is still there."""
        with suppress(OSError, ValueError, AttributeError):  # AttributeError: there is no stream
            self._wrapped.write(encodable(text, self._wrapped))

    def flush(self) -> None:
        """Flush, if the stream is still there."""
        with suppress(OSError, ValueError, AttributeError):
            self._wrapped.flush()


class Progress:
    """Show how far a task is: a bar on a terminal; elsewhere nothing, or plain lines now and then with `lines`."""

    def __init__(self, unit: str = " images", *, lines: bool = False, silent: bool = False) -> None:
        self.live, self.lines, self.silent = is_terminal(sys.stderr) and not silent, lines, silent
        form = PERCENTAGE if lines else None
        width: dict[str, Any] = {"dynamic_ncols": True} if has_width(sys.stderr) else {"ncols": USUAL_WIDTH}
        self.bar = tqdm(unit=unit, file=Quiet(sys.stderr), bar_format=form, disable=not self.live, **width)
        self.task, self.next_line, self.next_share = "", time.monotonic() + LINE_EVERY, 0.0

    def update(self, task: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` items of a task are finished."""
        count = f"{task} {done:,}{f' of {total:,}' if total else ''}"
        if self.live:
            if task != self.task:
                self.task = task
                self.bar.reset(total)
            self.bar.set_description_str(printable(count if self.lines else task))
            self.bar.update(done - self.bar.n)
        elif self.lines and not self.silent and time.monotonic() > self.next_line:
            self.next_line = time.monotonic() + LINE_EVERY
            tell(count)

    def show(self, share: float, text: str) -> None:
        """Show the share of a training that is done, 0 to 1, and a text."""
        if self.live:
            self.bar.total, self.bar.n = 1.0, share
            self.bar.set_description_str(printable(text))
        elif share >= self.next_share and not self.silent:
            self.next_share = share + LINE_SHARE
            tell(f"{share:4.0%}  {text}")

    def say(self, text: str) -> None:
        """Print a line without breaking the bar: to the output of a training, or else beside the bar."""
        if not self.silent:
            stream = sys.stdout if self.lines else sys.stderr
            self.bar.clear()
            with tqdm.external_write_mode(file=stream):  # beside bars of the user's own program too
                say(text, stream)
            self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def duration(seconds: float) -> str:
    """Write seconds as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
