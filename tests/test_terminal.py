"""What reaches the terminal: one line for one message, whatever the names in it and whatever became of the terminal."""

import errno
import io
import os
import sys

import numpy as np
import pytest

from tiny import TINY, smooth
from unnoise import cli
from unnoise.progress import Progress
from unnoise.terminal import LONGEST, LostOutputError, printable, say, show
from unnoise.training import train as training

HOSTILE = {
    "colour": "\x1b[31mred\x1b[0m",
    "title of the window": "\x1b]0;title\x07",
    "newline": "cat\nunnoise: all is well",
    "carriage return": "cat\rdog",
    "tab": "a\tb",
    "backspaces": "cat\b\b\bdog",
    "C1 control": "a\x9b31mb",
    "end of a line": "a\u2028b",
    "bidi override": "gpj.\u202egnp.exe",
    "bidi isolate": "a\u2066b\u2069",
    "no width": "ca\u200bt",
    "tags": "a\U000e0041b",
    "bytes that are no text": os.fsdecode(b"caf\xe9"),
    "half a pair": "a\ud83db",
    "zero": "a\0b",
}
HARMLESS = {
    "Chinese": "犬 猫",
    "emoji": "😀 👩\u200d👧",
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "accent of its own": "cafe\u0301",
    "wide blank": "a\u3000b",
    "narrow blank": "Screenshot 1.00\u202fPM",
    "format": "%s{}",
    "flag": "-x.png",
    "blanks around": " a ",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_becomes_one_harmless_line(text):
    shown = printable(text)
    assert shown.count("\\") >= 1
    assert shown.replace("\u200d", "").isprintable()
    assert len(shown.splitlines()) == 1
    shown.encode()  # it is text


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_a_harmless_text_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
@pytest.mark.parametrize("text", [*HOSTILE.values(), *HARMLESS.values()], ids=[*HOSTILE, *HARMLESS])
def test_every_text_can_be_written_in_every_encoding(encoding, text):
    for write in (lambda out: say(text, out), lambda out: Progress.say(Progress(lines=True), text)):
        stream = io.TextIOWrapper(written := io.BytesIO(), encoding=encoding, newline="")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            write(stream)
        assert written.getvalue().count(b"\n") == 1
        assert not set(written.getvalue()[:-1]) & {*range(32), 127}


def test_a_very_long_name_does_not_fill_the_screen(capsys):
    say("x" * 10 * LONGEST, sys.stdout)
    assert len(capsys.readouterr().out) < LONGEST + 100


class Gone(io.StringIO):
    """A stream that a full disk, a closed pipe or a closed window is behind."""

    encoding = "utf-8"

    def __init__(self, number: int, terminal: bool) -> None:
        super().__init__()
        self.number, self.terminal, self.tried = number, terminal, 0

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.tried += 1
        raise OSError(self.number, os.strerror(self.number))

    def flush(self):
        self.write("")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


GONE = {
    "full disk": lambda: Gone(errno.ENOSPC, False),
    "closed pipe": lambda: Gone(errno.EPIPE, False),
    "closed window": lambda: Gone(errno.EIO, True),
    "closed stream": closed,
    "no stream": lambda: None,
}


@pytest.fixture
def data(tmp_path):
    np.save(tmp_path / "data.npy", smooth(12, 8, seed=0))
    return tmp_path / "data.npy"


@pytest.mark.parametrize("stream", GONE.values(), ids=GONE)
@pytest.mark.parametrize("lines", [False, True])
def test_no_way_to_report_progress_ends_the_work(stream, lines, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream())
    progress = Progress(lines=lines)
    progress.next_line = 0.0
    progress.update("a task", 1, 2)
    progress.update("another task", 1, None)
    progress.show(0.5, "a text")
    progress.say("a line")
    progress.close()
    assert not isinstance(sys.stderr, Gone) or sys.stderr.tried + sys.stdout.tried > 0


@pytest.mark.parametrize("stream", ["full disk", "closed window"])
def test_a_training_goes_on_when_nobody_can_be_told(stream, data, tmp_path, monkeypatch):
    def warn_and_loop(job, stop, loop=training.loop):
        job.trainer.notes.append("a warning")
        loop(job, stop)

    monkeypatch.setattr(training, "loop", warn_and_loop)
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, GONE[stream]())
    assert cli.main(["train", str(data), "--images", "16", "--out", str(tmp_path / "run"), *flags]) == 0
    assert sys.stdout.tried > 3
    assert (tmp_path / "run" / "samples" / "final.png").is_file()
    assert cli.main(["sample", str(tmp_path / "run"), "-n", "1", "--out", str(tmp_path / "images")]) == 0


def test_a_result_that_cannot_be_printed_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Gone(errno.ENOSPC, False))
    assert cli.main(["list", "samplers"]) == 1
    assert capsys.readouterr().err == f"unnoise: the result cannot be printed: {os.strerror(errno.ENOSPC)}\n"


def test_nobody_reads_a_result(monkeypatch, capsys):
    """As in `unnoise list samplers | head -1`: the end is silent."""
    monkeypatch.setattr(sys, "stdout", Gone(errno.EPIPE, False))
    assert cli.main(["list", "samplers"]) == 1
    assert capsys.readouterr().err == ""
    with pytest.raises(LostOutputError):
        show(["a"])
