"""`unnoise report`: collect the facts of a run and write them as one page; the HTML is in report.html.jinja."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.card import Run
from unnoise.checkpoint import RunLike, as_run
from unnoise.config import TrainConfig
from unnoise.errors import InputError
from unnoise.evaluation.ladder import describe_ladder
from unnoise.evaluation.score_table import SAMPLING_FACTS, format_judges, judged_rows
from unnoise.evaluation.scores import symmetric
from unnoise.files import check_writable, replacing, user_path
from unnoise.options import with_names_of_today
from unnoise.progress import Say, mute
from unnoise.reporting.calls import quality_against_calls
from unnoise.reporting.curves import TrainingLog, draw_curves, plot_speed, read_log
from unnoise.reporting.doctor_section import describe_doctor
from unnoise.reporting.render import EmbeddedImages, render
from unnoise.run_folder import (
    FINAL,
    METRICS,
    MODEL,
    SAMPLES,
    evaluations,
    evaluations_beside,
    own_file,
    reading_records,
)

PAGE, TEMPLATE = "report.html", "reporting/report.html.jinja"
MAX_PREVIEWS = 8  # the page shows at most this many, evenly spaced


class Preview(NamedTuple):
    """A grid that was drawn during training: the images seen until then, and its file as a data URI."""

    images: int
    source: str


def write_report(run: RunLike, out: str | Path | None = None, say: Say = mute) -> Path:
    """Write the page of a run, by default as report.html in its folder; return the path of the page.

    Args:
        run: The run.
        out: The file to write.
        say: Called with a warning for each image that is not shown.
    """
    opened = as_run(run)
    if opened.file.name != MODEL or own_file(opened.folder, METRICS) is None:
        raise InputError(f"{opened.name} is no run folder: a report needs its {METRICS} beside the model")
    path = user_path(out) if out else opened.folder / PAGE
    check_writable(path, "--out")
    with reading_records(opened.folder):
        facts = collect_facts(opened)
        page = render(TEMPLATE, facts)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    for text in facts["left_out"]:
        say(f"warning: {text}")
    return path


def collect_facts(run: Run) -> dict[str, Any]:
    """Return everything that the page shows: texts, numbers, plots and images."""
    folder = run.folder.resolve()
    log, previews = read_log(folder / METRICS), preview_files(folder)
    embedded, results = EmbeddedImages(folder), evaluations(folder)
    every = max(1, -(-len(previews) // MAX_PREVIEWS))
    return {
        "name": folder.name,
        "folder": str(folder),
        **describe_training(run),
        "samples": embedded.uri(SAMPLES, FINAL),
        "previews": [*filter(None, (open_preview(embedded, path) for path in previews[::-1][::every][::-1]))],
        **draw_curves(log),
        **score_facts(results),
        "calls": quality_against_calls(results, evaluations_beside(folder)),
        "nearest_pairs": embedded.uri("memorization.png"),
        "speed_plots": [plot_speed(log)] if log.steps else [],
        "cost": describe_cost(log, folder),
        "settings": describe_settings(run),
        "left_out": embedded.left_out,
    }


def score_facts(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the page shows of the results of `unnoise eval`, which are given from the oldest on."""
    last_first = results[::-1]
    return {
        "scores": [describe_scores(result["scores"]) for result in last_first if "scores" in result],
        "bounds": [describe_bits(result["bpd"]) for result in last_first if result.get("bpd")],
        "memorization": next((result["memorization"] for result in last_first if "memorization" in result), None),
        "doctor": next((describe_doctor(result["doctor"]) for result in last_first if "doctor" in result), None),
    }


def describe_training(run: Run) -> dict[str, Any]:
    """Return the size of the network, the data, and the length of the training."""
    card, (channels, height, width) = run.card, run.card.shape
    minutes, seconds = divmod(round(card.training.get("seconds", 0)), 60)
    return {
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "images_seen": card.training.get("images", 0),
        "duration": f"{minutes}:{seconds:02d}",
        "data": {"held_out": 0, **card.data},
        "format": f"{width}x{height}, {card.mode or f'{channels} channels'}",
        "command": training_command(card.training.get("config", {})),
    }


def training_command(config: Mapping[str, Any]) -> str:
    """Return the command that trains this run again: it names every setting that is not the default."""
    config = with_names_of_today(config)
    words = ["unnoise", "train", str(config.get("data", ""))]
    for f in fields(TrainConfig):
        value = config.get(f.name)
        if f.name in ("data", "out", "fresh") or value is None or (f.default is not MISSING and value == f.default):
            continue
        flag = f.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)


def preview_files(folder: Path) -> list[Path]:
    """Return the grids that were drawn during training, the oldest first; each is named by the images seen."""
    return sorted(path for path in (folder / SAMPLES).glob("[0-9]*.png") if path.stem.isdecimal())


def open_preview(embedded: EmbeddedImages, path: Path) -> Preview | None:
    """Read one of the preview files; return None if it cannot be shown."""
    source = embedded.uri(SAMPLES, path.name)
    return Preview(int(path.stem), source) if source else None


def describe_scores(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return one evaluation as the page shows it: the rows of its table, and how the scores were measured."""
    measured = result["of"]
    return {
        "rows": judged_rows(result),
        "damage": describe_ladder(result["ladder"]) if "ladder" in result else "",
        "sampling": ", ".join(f"{key} {measured[key]}" for key in SAMPLING_FACTS if key in measured),
        "measured": measured,
        "against": result["against"],
        "judges": format_judges(result),
        "warnings": result["warnings"],
    }


def describe_bits(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bits per dimension with their interval, which version 0.1.0 did not store."""
    low, high = symmetric(result["bound"]["mean"], result["bound"]["standard_error"] ** 2, result["n"]).interval
    return {**result, "low": low, "high": high}


def describe_disk(folder: Path, until: float = math.inf) -> str:
    """Return the size of the files of a run that are not newer than this time; the page itself does not count."""
    files = (path.lstat() for path in folder.rglob("*") if path != folder / PAGE)
    return f"{sum(file.st_size for file in files if file.st_mtime <= until) / 2**20:,.0f} MB"


def describe_cost(log: TrainingLog, folder: Path) -> dict[str, str]:
    """Return speed, time beside the training, memory and disk."""
    disk = {"disk": describe_disk(folder)}
    if not (summary := log.summary):
        return disk
    total, previews = summary["training_seconds"] or 1, summary["preview_seconds"]
    measuring = summary.get("measuring_seconds", 0)
    return {
        "speed": f"{summary['mean_images_per_second']:.0f} images/s",
        "previews": f"{previews:.1f} s, {previews / total:.1%} of the time",
        "measurements": f"{measuring:.1f} s, {measuring / total:.1%} of the time",
        "peak memory": f"{summary['peak_bytes'] / 2**20:,.0f} MB",
        **disk,
    }


def describe_settings(run: Run) -> dict[str, str]:
    """Return the version, the data's fingerprint, the network, and every setting of the training."""
    card = run.card
    facts = {"unnoise": version("unnoise"), "data fingerprint": card.data["fingerprint"], "network": card.backbone}
    config = card.training.get("config", {})
    return {**facts, **{key: str(value) for key, value in config.items() if value is not None}}
