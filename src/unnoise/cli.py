"""argv -> command. The flags are derived from the dataclasses of config.py; heavy modules load inside commands."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from unnoise import __version__
from unnoise.config import (
    AppConfig,
    DataConfig,
    EditConfig,
    EvalConfig,
    ExportConfig,
    ReportConfig,
    SampleConfig,
    TrainConfig,
    TuneConfig,
)
from unnoise.errors import InputError, ToldElsewhereError, unknown

LISTED = (
    "samplers",
    "edits",
    "posteriors",
    "schedules",
    "spacings",
    "targets",
    "objectives",
    "times",
    "optimizers",
    "backbones",
    "features",
    "data",
    "recipes",
)
SUMMARY = {
    "train": "train on a folder of images, or on the built-in faces",
    "sample": "draw pictures from a run",
    "edit": "vary, fill in, colour, enlarge or sharpen a picture, or go from one to another",
    "data": "look through a set of images: what is in it, what is broken, what is there twice",
    "eval": "measure a run, or any pictures against others",
    "tune": "find the way of sampling that suits a run and the time one has, and keep it",
    "report": "write one page that holds everything about a run",
    "compare": "set runs side by side, as far as they can be",
    "app": "play with a run in the browser, or watch it train",
    "export": "write a run for another library",
    "info": "tell what a run is and how it was made",
    "list": "list " + ", ".join(LISTED),
}


class Parser(argparse.ArgumentParser):
    """Argparse that answers a mistake in one line."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Know all arguments: what a command does not know is answered by that command, which knows its flags."""
        parsed, extra = super().parse_known_args(args, namespace)
        if extra:
            self.error(f"unrecognized arguments: {' '.join(extra)}")
        return parsed, extra

    def error(self, message: str) -> NoReturn:
        known = [name for action in self._actions for name in action.option_strings]
        if wrong := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            raise unknown("flag", wrong[1], [name for name in known if name.startswith("--")])
        raise InputError(f"{message} (see '{self.prog} --help')")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 asked for what can't be, 128 + n by signal n."""
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "train": train,
        "sample": sample,
        "edit": edit,
        "data": data,
        "eval": evaluate,
        "tune": tune,
        "report": report,
        "compare": compare,
        "app": app,
        "export": export,
        "info": info,
        "list": list_,
    }
    try:
        arguments = make_parser().parse_args(argv)
        return commands[arguments.command](arguments)
    except InputError as error:
        return 2 if isinstance(error, ToldElsewhereError) else say(error, 2)
    except KeyboardInterrupt:
        return say("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; nothing to tell it
        return 1
    except (MemoryError, RuntimeError) as error:
        from unnoise.device import out_of_memory

        if not out_of_memory(error):
            raise
        return say("out of memory; choose a smaller -n, --batch or --size", 1)
    except OSError as error:
        return say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)


def say(error: object, status: int) -> int:
    print(f"unnoise: {error}", file=sys.stderr)
    return status


def make_parser() -> Parser:
    parser = Parser(
        prog="unnoise", description="Train a diffusion model on your own pictures, on the machine you have."
    )
    parser.add_argument("--version", action="version", version=f"unnoise {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    one = {name: commands.add_parser(name, help=text, description=text) for name, text in SUMMARY.items()}
    one["train"].add_argument("--recipe", default=None, help="a named recipe or a run's config.yaml; flags change it")
    add_flags(one["train"], TrainConfig, positional="data", optional=True)
    add_flags(one["sample"], SampleConfig, positional="run", optional=False)
    add_flags(one["edit"], EditConfig, positional="run", optional=False, then=("picture", "other"))
    add_flags(one["data"], DataConfig, positional="data", optional=False)
    add_flags(one["eval"], EvalConfig, positional="set", optional=False, then=("against",))
    add_flags(one["tune"], TuneConfig, positional="run", optional=False)
    add_flags(one["report"], ReportConfig, positional="run", optional=False)
    add_flags(one["app"], AppConfig, positional="run", optional=False)
    add_flags(one["export"], ExportConfig, positional="run", optional=False)
    one["compare"].add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    one["info"].add_argument("run", metavar="RUN", help="run folder or its model.safetensors")
    one["list"].add_argument("kind", metavar="KIND", help=", ".join(LISTED))
    return parser


def add_flags(parser: Parser, config: type, *, positional: str, optional: bool, then: Sequence[str] = ()) -> None:
    """One flag for each field; only what was given appears in the result."""
    hints = get_type_hints(config)
    for f in fields(config):
        text, default = f.metadata.get("help", ""), f.default if f.default is not MISSING else None
        shown = text if default in (None, "") or "default" in text else f"{text} (default: {default})"
        shared: dict[str, Any] = {"help": shown.replace("%", "%%"), "default": argparse.SUPPRESS}
        if f.name in (positional, *then):
            nargs = "?" if optional or f.name in then else None
            parser.add_argument(f.name, nargs=nargs, metavar=f.name.upper(), **shared)
            continue
        flag = f"-{f.name}" if len(f.name) == 1 else f"--{f.name.replace('_', '-')}"
        hint = hints[f.name]
        if get_origin(hint) is not Literal:  # str | None is a str that may be left out
            hint = next((arm for arm in get_args(hint) if arm is not type(None)), hint)
        if get_origin(hint) is Literal:
            parser.add_argument(flag, choices=get_args(hint), **shared)
        elif hint is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **shared)
        else:
            parser.add_argument(flag, type=hint, metavar=hint.__name__.upper(), **shared)


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name not in ("command", "recipe")}


def train(arguments: argparse.Namespace) -> int:
    from unnoise.recipes import train_config
    from unnoise.training.signals import Interrupted
    from unnoise.training.train import train as run

    try:
        run(train_config(arguments.recipe, given(arguments)))
    except Interrupted as stopped:
        return 128 + stopped.signal
    return 0


def sample(arguments: argparse.Namespace) -> int:
    from unnoise import distributed
    from unnoise.progress import Progress
    from unnoise.sampling import grid_path, sample_to_folder

    config = SampleConfig(**given(arguments))
    with closing(Progress(" steps", silent=not distributed.is_main())) as progress:
        folder = sample_to_folder(config, progress.update, progress.say)
    if distributed.is_main():
        print(f"{config.n} pictures in {folder}, together in {grid_path(folder)}")
    return 0


def edit(arguments: argparse.Namespace) -> int:
    from unnoise.editing.edit import edit_to_folder
    from unnoise.progress import Progress

    config = EditConfig(**given(arguments))
    with closing(Progress(" steps")) as progress:
        folder, together = edit_to_folder(config, progress.update)
    print(f"{config.n} pictures in {folder}, together in {together}")
    return 0


def data(arguments: argparse.Namespace) -> int:
    from unnoise.data.audit import audit_data, format_audit
    from unnoise.progress import Progress

    config = DataConfig(**given(arguments))
    with closing(Progress()) as progress:
        found = audit_data(config.data, progress.update)
    to_json(config.json, found)
    print("\n".join(format_audit(found)))
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    from unnoise import distributed
    from unnoise.evaluation import evaluate as score
    from unnoise.evaluation import likelihood as bits
    from unnoise.evaluation import memorization
    from unnoise.progress import Progress

    config = EvalConfig(**given(arguments))
    with closing(Progress(silent=not distributed.is_main())) as progress:
        found = score.evaluate(config, progress.update, progress.say)
    if not distributed.is_main():
        return 0
    to_json(config.json, found)
    for part, table in (("bpd", bits.table), ("scores", score.table), ("memorization", memorization.table)):
        if part in found:
            print("\n".join(table(found[part])))
    return 0


def tune(arguments: argparse.Namespace) -> int:
    from unnoise.evaluation import tune as trials
    from unnoise.progress import Progress

    config = TuneConfig(**given(arguments))
    with closing(Progress()) as progress:
        found = trials.tune(config, progress.update, progress.say)
    to_json(config.json, found)
    print("\n".join(trials.table(found)))
    return 0


def to_json(path: str | None, found: dict[str, Any]) -> None:
    """To the file that --json names, if it does."""
    from unnoise.files import write_json

    if path:
        write_json(Path(path), found)


def report(arguments: argparse.Namespace) -> int:
    from unnoise.reporting.report import report as write

    config = ReportConfig(**given(arguments))
    print(f"report    {write(config.run, config.out)}")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    from unnoise.reporting.compare import compare as beside

    print("\n".join(beside(arguments.runs)))
    return 0


def app(arguments: argparse.Namespace) -> int:
    from unnoise.app.server import serve

    serve(AppConfig(**given(arguments)))
    return 0


def export(arguments: argparse.Namespace) -> int:
    from unnoise.checkpoint import load
    from unnoise.interop.diffusers_write import to_diffusers

    config = ExportConfig(**given(arguments))
    print(f"pipeline  {to_diffusers(load(config.run, 'cpu'), config.out)}")
    return 0


def info(arguments: argparse.Namespace) -> int:
    from unnoise.checkpoint import load

    run = load(arguments.run, "cpu")
    card, how, data, training = run.card, run.card.sampling, run.card.data, run.card.training
    c, h, w = card.shape
    rows = {
        "file": run.path,
        "pictures": f"{w}x{h}, {card.mode or f'{c} channels'}",
        "classes": ", ".join(card.classes) or "none",
        "network": f"{card.backbone} ({sum(p.numel() for p in run.model.parameters()):,} parameters)",
        "schedule": card.schedule,
        "target": card.target,
        "sampling": f"{how.sampler}, {how.steps} steps, {how.spacing}{', x0 clipped' if how.clip else ''}"
        + (f", guidance {how.guidance:g}" if how.guidance != 1 else ""),
        "data": f"{data['name']}: {data['count']:,} images, sha256 {data['fingerprint'][:16]}"
        if data
        else "not recorded",
        "trained": f"{training.get('images', 0):,} images in {training.get('seconds', 0):.0f} s",
        "loss": f"{training['loss'][-1][1]:.4f} at the end" if training.get("loss") else "not recorded",
    }
    for name, value in rows.items():
        print(f"{name:10}{value}")
    return 0


def list_(arguments: argparse.Namespace) -> int:
    from unnoise import recipes as recipe
    from unnoise import registry

    kind = arguments.kind
    if kind not in LISTED:
        raise unknown("list", kind, LISTED)
    if kind == "recipes":
        print("\n".join(recipe.names()))
        return 0
    for name, options, source in getattr(
        registry, {"data": "dataset"}.get(kind, kind if hasattr(registry, kind) else kind.rstrip("s"))
    ).describe():
        print(f"{name}{':' if options else ''}{options}\n    {source}")
    return 0
