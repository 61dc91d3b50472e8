"""All commands with hostile names of files, classes, runs and values, on consoles that can show few characters."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise import cli

TINY = ["--backbone", "unet:widths=8,layers=1,groups=4,head=8", "--batch=8", "--steps=2", "--precision=fp32"]
HOSTILE = os.fsdecode("x\x1b[31m\n\t\u202e犬😀".encode())  # in a C locale the bytes are no text for Python
CLASSES = [
    b"\x1b]0;title\x07",
    b"a\nunnoise: all is well",
    b"a\tb",
    "gpj.\u202egnp".encode(),
    "犬".encode(),
    "😀".encode(),
    b"caf\xe9",
    b"caf\xea",
    b"-x",
    b"%s{}",
    b"[bold]$HOME",
    b"n" * 250,
]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows allows no such names")


def write_images(folder: bytes, pixels) -> None:
    """Write two images and a broken file into a folder for each class; all have the name of the class."""
    for number, name in enumerate(CLASSES):
        (Path(os.fsdecode(folder)) / os.fsdecode(name)).mkdir(parents=True)
        for i in range(2):
            with open(folder + b"/%b/%d%b.png" % (name, i, name[:200]), "wb") as file:  # noqa: PTH123  # bytes
                Image.fromarray(pixels[2 * number + i]).save(file, format="PNG")
        Path(os.fsdecode(folder + b"/%b/broken%b.png" % (name, name[:200]))).write_bytes(b"no image")


def commands(top: Path) -> list[tuple[int, list[str]]]:
    """Return commands with the exit status that each one must have."""
    data, run, other = str(top / f"{HOSTILE}data"), str(top / f"{HOSTILE}run"), str(top / f"{HOSTILE}.txt")
    picture = str(top / os.fsdecode(b"p\x1b\xe9.png"))
    Path(other).write_text("no image, no Python")
    pixels = np.random.default_rng(0).integers(0, 256, (2 * len(CLASSES), 8, 8), dtype=np.uint8)
    write_images(os.fsencode(data), pixels)
    Image.fromarray(pixels[0]).save(picture)
    train = ["train", data, "--images=8", "--held-out=0", *TINY]
    return [
        (0, ["data", data, "--json", f"{run}.json"]),
        (0, [*train, "--classes", "--out", run]),
        (0, [*train, "--classes", "--out", run]),
        (2, [*train, "--out", run]),
        (0, ["info", run]),
        (0, ["sample", run, "-n1", "--label", "犬", "--out", f"{run}-images"]),
        (2, ["sample", run, "-n1", "--label", HOSTILE]),
        (0, ["edit", run, picture, "-n1"]),
        (0, ["eval", run, "--metrics=bpd", "--levels=2", "--no-ode", "-n8", "--json", f"{run}-eval.json"]),
        (2, ["eval", run, data, "-n8"]),
        (0, ["report", run]),
        (0, ["compare", run, run]),
        *((2, [name, f"{run}\x1b"]) for name in ("info", "sample", "report", "compare", "export", "tune", "app")),
        *((2, [name, other]) for name in ("info", "train", "data", "eval", "export")),
        (2, ["train", data, "--out", other]),
        (2, ["train", data, "--init", other]),
        (2, ["train", data, "--recipe", other]),
        (2, ["train", data, "--out", picture.removesuffix(".png")]),
        *((2, ["train", data, flag, HOSTILE]) for flag in ("--size", "--batch", "--sampler", "--fit", "--budget")),
        (2, ["train", data, f"--{HOSTILE}"]),
        (2, ["list", "data", "--plugin", other]),
        (2, ["list", HOSTILE]),
        (2, [HOSTILE]),
    ]


def run_all(top: Path, encoding: str) -> None:
    """Run all commands, and assert that each one prints lines without control characters, and no traceback."""
    for status, command in commands(top):
        streams = {}
        with pytest.MonkeyPatch.context() as patch:
            for name, policy in (("stdout", "strict"), ("stderr", "backslashreplace")):
                streams[name] = io.TextIOWrapper(io.BytesIO(), encoding, policy, write_through=True)
                patch.setattr(sys, name, streams[name])
            found = cli.main(command)
        out, err = (stream.buffer.getvalue() for stream in streams.values())
        assert found == status, (command, err)
        assert not set(out + err) & {*range(32), 127} - {10}, command
        assert "\u202e" not in (out + err).decode(encoding)
        assert status == 0 or err.count(b"\nunnoise: ") + err.startswith(b"unnoise: ") == 1, command


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_no_name_breaks_a_command_or_forges_a_line(tmp_path, monkeypatch, encoding):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    run_all(tmp_path, encoding)
    found = json.loads((tmp_path / f"{HOSTILE}run.json").read_text())
    assert found["classes"]["a\nunnoise: all is well"] == 2  # JSON keeps the name as it is
    assert {r"caf\xe9", r"caf\xea"} < {*found["classes"]}  # bytes that are no text stay apart


@pytest.mark.slow
def test_no_name_breaks_a_command_in_a_c_locale(tmp_path):
    code = "from pathlib import Path; from test_hostile_names import run_all; run_all(Path(), 'ascii')"
    environment = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "UNNOISE_CACHE": str(tmp_path / "cache"),
    }
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | environment, check=True)
