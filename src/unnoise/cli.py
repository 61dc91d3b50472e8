"""The command line: argv -> command. Flags come from the dataclasses of config.py."""

import argparse
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from unnoise import __version__, commands, terminal
from unnoise.config import (
    AppConfig,
    CacheConfig,
    CompareConfig,
    DataConfig,
    DoctorConfig,
    EditConfig,
    EvalConfig,
    InfoConfig,
    ListConfig,
    ReportConfig,
    SampleConfig,
    TrainConfig,
    TuneConfig,
    VerifyConfig,
)
from unnoise.distillation.config import DistillConfig
from unnoise.errors import InputError, ToldElsewhereError, unknown
from unnoise.exporting.config import ExportConfig
from unnoise.options import parse_value, type_hints
from unnoise.training.signals import raise_on_signals

# Read when torch is loaded: how long the threads of GNU's OpenMP stay awake waiting for each other. Its own choice, 30
# times as long, is no faster on an idle machine; beside other busy programs a step can take ten times as long with it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

PLUGIN_HELP = "Python file that registers samplers, backbones, ... of your own; may be given several times"
RECIPE_HELP = "name of a recipe, or the config.yaml of a run; flags change it"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 failed, 2 wrong input, 128 + n stopped by signal n."""
    terminal.open_missing()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd files, which the notes name
            return run_command(argv)
    finally:
        terminal.drop_unwritten()


def run_command(argv: Sequence[str] | None) -> int:
    """Run one command, and print its error in one line; return the exit status."""
    try:
        with raise_on_signals():
            given = vars(make_parser().parse_args(argv))
            command = COMMANDS[given.pop("command")]
            check_current_folder()
            for path in given.pop("plugin", ()):
                from unnoise.plugins import load_file

                load_file(path)
            run: Callable[[dict[str, Any]], int | None] = getattr(commands, command.function)
            return run(given) or 0
    except InputError as error:
        return error.status if isinstance(error, ToldElsewhereError) else say(error, error.status)
    except KeyboardInterrupt as stopped:
        return say(stopped if str(stopped) else "stopped", 128 + getattr(stopped, "signal", signal.SIGINT))
    except terminal.LostOutputError as lost:
        return say(f"the result cannot be printed: {lost}", 1) if str(lost) else 1
    except (MemoryError, RuntimeError, OSError) as error:
        if not (reason := explain(error)):
            raise
        return say(reason, 1)


def explain(error: Exception) -> str:
    """Return an error of the system in words, or "" for any other error."""
    if not isinstance(error, OSError):
        from unnoise.device import out_of_memory

        return "out of memory; choose a smaller -n, --batch or --size" if out_of_memory(error) else ""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def check_current_folder() -> None:
    """Raise InputError if the current folder was deleted: libraries cannot be loaded there, and end without a word."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError("the current folder was deleted or may not be read; change to another folder") from error


def say(error: object, status: int) -> int:
    """Print an error in one line and return the exit status."""
    terminal.say(f"unnoise: {error}", sys.stderr)
    return status


@dataclass(frozen=True)
class Command:
    """A command: its settings, its help, its function in commands.py, and the settings that are no flags."""

    config: type
    help: str
    function: str
    positional: tuple[str, ...] = ("run",)
    optional: bool = False  # True if the first of them may be left out, as the others may


KINDS = ", ".join(get_args(type_hints(ListConfig)["kind"]))
COMMANDS = {
    "train": Command(TrainConfig, "train on a folder of images, or on the built-in faces", "train", ("data",), True),
    "distill": Command(DistillConfig, "train a student of a run, which draws in few steps", "distill"),
    "sample": Command(SampleConfig, "draw images from a run", "sample"),
    "edit": Command(
        EditConfig,
        "vary, fill in, colour, upscale or sharpen an image, or interpolate between two",
        "edit",
        ("run", "picture", "other"),
    ),
    "data": Command(DataConfig, "check a dataset: what it holds, broken files, duplicates", "data", ("data",)),
    "cache": Command(CacheConfig, "list the decoded images and statistics that are kept, or remove some", "cache", ()),
    "eval": Command(EvalConfig, "measure a run, or any images against others", "evaluate", ("set", "against")),
    "doctor": Command(DoctorConfig, "name the faults of a run or of images, and what mends them", "doctor", ("set",)),
    "tune": Command(TuneConfig, "search sampler settings for a time budget and store the best in the run", "tune"),
    "report": Command(ReportConfig, "write one page with everything about a run", "report"),
    "verify": Command(VerifyConfig, "recompute every number that a run states, and say what differs", "verify"),
    "compare": Command(CompareConfig, "compare runs side by side", "compare", ("runs",)),
    "app": Command(AppConfig, "use a run in the browser, or watch it train", "app"),
    "export": Command(ExportConfig, "write a run for another library", "export"),
    "info": Command(InfoConfig, "print what a run is and how it was made", "info"),
    "list": Command(ListConfig, f"list {KINDS}", "list_entries", ("kind",)),
}


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake in one line."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Answer unknown arguments here, in the command that knows its flags, instead of handing them back."""
        parsed, extra = super().parse_known_args(args, namespace)
        if extra:
            self.error(f"unrecognized arguments: {' '.join(extra)}")
        return parsed, extra

    def error(self, message: str) -> NoReturn:
        """Raise InputError with the nearest flag."""
        known = [name for action in self._actions for name in action.option_strings]
        if wrong := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            raise unknown("flag", wrong[1], [name for name in known if name.startswith("--")])
        if extra := re.search(r"unrecognized arguments: (?!-)(.*)", message):
            raise InputError(
                f"too many arguments: {extra[1]:.100}; a shell turns *.png into the names of files: give their folder"
            )
        raise InputError(f"{message} (see '{self.prog} --help')")


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="unnoise", description="Train a diffusion model on your own images, on the machine you have.")
    parser.add_argument("--version", action="version", version=f"unnoise {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.help, description=command.help)
        add_flags(one, command)
        one.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help=PLUGIN_HELP)
        if name == "train":
            one.add_argument("--recipe", default=None, help=RECIPE_HELP)
    return parser


def add_flags(parser: Parser, command: Command) -> None:
    """Add one flag for each setting, in titled groups; only settings that are given appear in the result."""
    group: Any = parser
    for f in fields(command.config):
        if title := f.metadata.get("title"):
            group = parser.add_argument_group(title)
        if f.name not in command.positional:
            add_flag(group, f, type_hints(command.config)[f.name])
            continue
        nargs = "?" if command.optional or f.name != command.positional[0] else None
        parser.add_argument(
            f.name, nargs="+" if f.name == "runs" else nargs, **shared_settings(f), metavar=f.name.upper()
        )


def add_flag(group: Any, f: Field[Any], hint: Any) -> None:
    """Add the flag of one setting."""
    flag = f"-{f.name}" if len(f.name) == 1 else f"--{f.name.replace('_', '-')}"
    if get_origin(hint) is not Literal:  # str | None is a text that may be left out
        hint = next((arm for arm in get_args(hint) if arm is not type(None)), hint)
    if hint is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **shared_settings(f))
    else:
        words = get_args(hint) if get_origin(hint) is Literal else ()
        kind = f"{{{','.join(words)}}}" if words else {int: "INT", float: "FLOAT"}.get(hint, "TEXT")
        plain_hint = hint if words or hint in (int, float) else str
        read = partial(read_flag, plain_hint, f.default)
        group.add_argument(flag, type=read, metavar=kind, **shared_settings(f))


def shared_settings(f: Field[Any]) -> dict[str, Any]:
    """Return the help of a setting, with its default, for argparse."""
    text, default = f.metadata["help"], f.default
    shown = text if default in (None, False, "", ()) or "default" in text else f"{text} (default: {default})"
    return {"help": shown.replace("%", "%%"), "default": argparse.SUPPRESS}


def read_flag(hint: Any, example: Any, text: str) -> Any:
    """Read the value of a flag; a value of another kind is an error of argparse, which names the flag."""
    try:
        return parse_value(text, hint, "it", example)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
