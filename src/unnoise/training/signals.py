"""Ctrl-C and SIGTERM ask the training to save and end; a second signal ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(Exception):  # noqa: N818  # not an error: everything was saved
    """A signal stopped the training, and its state is on the disk."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"{signal.Signals(number).name}; the run is saved in {folder}: the same command resumes it")
        self.signal, self.folder = number, folder


class Stop:
    """Hold the signal that was received, or None."""

    signal: int | None = None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM in this context, and restore the handlers that were there."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return

    def handle(number: int, _: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
