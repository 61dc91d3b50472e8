"""Lines on the terminal: no name can forge a line, and an output that is gone ends no work."""

import os
import sys
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias

UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, invisible formats, bytes that are no text, line and paragraph ends
JOINERS = "\u200c\u200d"  # formats that Persian, Hindi and emoji are written with
STDERR = 2  # the number of the last standard stream
LONGEST = 4_000  # characters of a message; a name in a file may be as long as the file
Stream: TypeAlias = Any  # a text stream, or None, which Python gives for one that is closed; streams share no class


class LostOutputError(Exception):
    """The result of a command cannot be printed; the message is the reason, or empty if nobody reads the output."""


def printable(text: object) -> str:
    """Return a text as one line that does nothing to a terminal: control characters become escapes as in Python."""
    line = str(text)
    return line if line.isprintable() else "".join(map(safe_character, line))


def safe_character(character: str) -> str:
    """Return a character, or its escape if it would control the terminal."""
    unsafe = unicodedata.category(character) in UNSAFE and character not in JOINERS
    return character.encode("unicode_escape").decode() if unsafe else character


def encodable(text: str, stream: Stream) -> str:
    """Return a text with escapes for the characters that a stream cannot encode, as on a console of Windows."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def is_terminal(stream: Stream) -> bool:
    """Return True if a person sees what is written to a stream."""
    with suppress(ValueError):  # the stream is closed
        return stream is not None and stream.isatty()
    return False


def has_width(stream: Stream) -> bool:
    """Return True if a terminal tells its width."""
    with suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(stream.fileno()).columns > 0
    return False


def say(message: object, stream: Stream) -> None:
    """Print a message in one line; if the stream is closed, full or gone, do nothing: no message is worth the work."""
    line = printable(message)
    if len(line) > LONGEST:
        line = f"{line[:LONGEST]}... ({len(line) - LONGEST:,} more characters)"
    if stream is not None:
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            print(encodable(line, stream), file=stream, flush=True)


def tell(message: object) -> None:
    """Print a message in one line to the output, if it can be printed."""
    say(message, sys.stdout)


def show(lines: Iterable[object]) -> None:
    """Print the result of a command; raise LostOutputError if it cannot be printed."""
    try:
        for line in lines:
            print(encodable(printable(line), sys.stdout))
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError as error:
        raise LostOutputError from error
    except (OSError, ValueError) as error:
        raise LostOutputError(getattr(error, "strerror", None) or str(error)) from error


def open_missing() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the next file that is opened takes the number of such a stream, and messages of C libraries end up in it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


def drop_unwritten() -> None:
    """Drop text that cannot be written, since Python would try again at its end, and end with status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
