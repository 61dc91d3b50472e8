"""Errors for users: one line that says what was given, what is allowed, the nearest match, and the fix."""

from collections.abc import Iterable
from difflib import get_close_matches

MAX_SHOWN = 200  # characters of a value that an error repeats
MAX_KNOWN = 2_000  # of the names that are allowed


class InputError(ValueError):
    """A value or file that the user gave cannot be used; the message is one line that names the fix."""

    status = 2  # exit status of the command


class UnreadError(InputError):
    """Data that was read before cannot be read any more."""


class NothingLeftError(InputError):
    """Everything that was asked for is there already: for the user a message, for a script no failure."""

    status = 0


class ToldElsewhereError(InputError):
    """The main process has found this error and prints it; the others stay silent."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def unknown(kind: str, given: str, allowed: Iterable[str]) -> InputError:
    """Return an error like `unknown sampler 'ddin'; did you mean 'ddim'? Known: ddim, ddpm, dpmpp_2m`."""
    names = sorted(allowed)
    near = get_close_matches(given[:MAX_SHOWN], names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(
        f"unknown {kind} {shorten(given)!r}; {hint}Known: {shorten(', '.join(names), MAX_KNOWN) or 'none'}"
    )


def shorten(text: str, most: int = MAX_SHOWN) -> str:
    """Return a text that may come from a file, with an end that is cut off if it is long."""
    return text if len(text) <= most else f"{text[:most]}..."
