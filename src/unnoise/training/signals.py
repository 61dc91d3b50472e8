"""Ctrl-C and SIGTERM ask the loop to stop and save; the second time they stop it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(Exception):  # noqa: N818  # not an error: everything was saved
    """Training was stopped by a signal, and its state is on the disk."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(
            f"{signal.Signals(number).name}; the run is saved in {folder}, and the same command goes on with it"
        )
        self.signal, self.folder = number, folder


class Stop:
    """Which signal was received, if any."""

    signal: int | None = None


@contextmanager
def stop_signals() -> Iterator[Stop]:
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
