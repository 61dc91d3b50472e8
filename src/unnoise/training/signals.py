"""Signals ask a training to save and end, and end any other work cleanly.

They come from Ctrl-C, from a scheduler, or from the system when a window is closed or a connection is lost.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
ASKING = [signal.Signals[name] for name in NAMES if name in signal.Signals.__members__]  # Windows has fewer
FROM_A_KEYBOARD = ("SIGINT", "SIGBREAK")
AGAIN = 2.0  # seconds; torchrun repeats a signal to its processes, and a closed window sends SIGHUP twice

Handler = Callable[[int, FrameType | None], object]


class Interrupted(Exception):  # noqa: N818  # not an error: everything was saved
    """A signal stopped the training, and its state is on the disk."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"{signal.Signals(number).name}; the run is saved in {folder}: the same command resumes it")
        self.signal, self.folder = number, folder


class Stopped(KeyboardInterrupt):
    """A signal ends the work where it is."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class Stop:
    """Hold the signal that was received, or None; Ctrl-C pressed again, AGAIN seconds later, ends the work at once.

    In a process of `torchrun`, the second Ctrl-C may be the launcher's repetition, however late it comes.
    """

    signal: int | None = None
    pressed = math.inf  # the time of the first Ctrl-C

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Take in a signal."""
        if self.signal is None:
            self.signal = number
        if signal.Signals(number).name in FROM_A_KEYBOARD and "TORCHELASTIC_RUN_ID" not in os.environ:
            self.pressed = min(self.pressed, time.monotonic())
            if time.monotonic() - self.pressed > AGAIN:
                raise Stopped(number)


class Raise:
    """Raise Stopped at a signal, but not at its repetitions: they would end the cleaning up."""

    last = -math.inf

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Take in a signal."""
        if time.monotonic() - self.last > AGAIN:
            self.last = time.monotonic()
            raise Stopped(number)


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch the signals that ask for an end in this context, and restore the handlers that were there."""
    with handled_by(stop := Stop()):
        yield stop


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise Stopped in this context at a signal that would end the process, so that nothing half done is left."""
    with handled_by(Raise()):
        yield


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Set a handler in this context for all signals that may be taken."""
    in_main = threading.current_thread() is threading.main_thread()  # only the main thread may set handlers
    before = {number: signal.signal(number, handler) for number in ASKING if in_main and may_be_taken(number)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def may_be_taken(number: int) -> bool:
    """Return False for a signal that is ignored, as nohup asks, or that the user's own program handles.

    SIGINT and SIGTERM are taken from the user's own program too.
    """
    now = signal.getsignal(number)
    default = now in (signal.SIG_DFL, signal.default_int_handler) or isinstance(now, Raise)
    return default or (callable(now) and number in (signal.SIGINT, signal.SIGTERM))
