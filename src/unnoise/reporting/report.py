"""`unnoise report`: one page that holds everything about a run, to be read on any screen or printed."""

import base64
import html
import io
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from unnoise.card import Run
from unnoise.checkpoint import load
from unnoise.config import TrainConfig
from unnoise.errors import InputError
from unnoise.evaluation.evaluate import TOLD, shown
from unnoise.files import read_json_lines, replacing
from unnoise.run_folder import FINAL, METRICS, MODEL, SAMPLES, evaluations

BLUE, ORANGE, GRAY = "#1f4e8c", "#d1661d", "#b8c4d6"
FILM = 8  # previews shown, of any number
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.scroll { overflow-x: auto; } .scroll td { white-space: nowrap; padding-right: 1rem; }
pre { white-space: pre-wrap; background: var(--soft); padding: .7rem; border-radius: .4rem; }
img, svg { max-width: 100%; height: auto; display: block; } figure { margin: 0 0 1rem; }
.plot { background: #fff; border-radius: .4rem; padding: .3rem; } figcaption { font-size: .9rem; opacity: .8; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { white-space: nowrap; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.film { display: flex; gap: .6rem; overflow-x: auto; scroll-snap-type: x mandatory; }
.film figure { flex: 0 0 min(15rem, 80%); scroll-snap-align: start; }
.film img { width: 100%; image-rendering: pixelated; }
.pixels { image-rendering: pixelated; width: min(100%, 40rem); } .warn { color: #b3261e; }
@media (prefers-color-scheme: dark) { .warn { color: #ff8a80; } }
@media print { body { max-width: none; padding: 0; font-size: 11px; } .film { flex-wrap: wrap; overflow: visible; }
  .film figure { flex-basis: 22%; } h2 { break-after: avoid; } figure, tr, .scroll { break-inside: avoid; } }
"""


class Rows(NamedTuple):
    """The rows of metrics.jsonl, by what they hold."""

    steps: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    quality: list[dict[str, Any]]
    summary: dict[str, Any]


def report(place: str, out: str | None = None) -> Path:
    """Write the page of a run; returns where it lies."""
    run = load(Path(place).resolve(), "cpu")
    if run.file.name != MODEL or not (run.folder / METRICS).is_file():
        raise InputError(f"{place} is no run folder: a report needs its metrics.jsonl beside the model")
    folder, path = run.folder, Path(out) if out else run.folder / "report.html"
    rows = read(folder / METRICS)
    body = "\n".join(
        part
        for section in (
            head(run),
            pictures(folder),
            curves(rows),
            scores(folder),
            audit(folder),
            costs(rows, folder),
            how(run),
        )
        for part in section
    )
    page = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(folder.name)}</title>'
    page += f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
    with replacing(path) as temporary:
        temporary.write_text(f"{page}<body>\n{body}\n</body></html>\n", encoding="utf-8")
    return path


def read(path: Path) -> Rows:
    """Those that can be read; the last one may have been cut off."""
    found = Rows([], [], [], {})
    for row in read_json_lines(path):
        if "held_out" in row:
            found.held_out.append(row)
        elif "kid" in row:
            found.quality.append(row)
        elif "loss" in row and "seconds" in row:
            found.steps.append(row)
        elif "training_seconds" in row:
            found.summary.update(row)
    return found


def head(run: Run) -> Iterator[str]:
    card, training = run.card, run.card.training
    c, h, w = card.shape
    data, size = card.data, sum(p.numel() for p in run.model.parameters()) / 1e6
    minutes, seconds = divmod(round(training.get("seconds", 0)), 60)
    yield f"<h1>{escape(run.folder.name)}</h1>"
    yield f"<p>{size:.1f} M parameters, trained on {training.get('images', 0):,} pictures of {escape(data['name'])} "
    kind = escape(card.mode or f"{c} channels")
    yield f"({data['count']:,} images, {w}x{h}, {kind}; {data.get('held_out', 0):,} held out) "
    yield f"in {minutes}:{seconds:02d}.</p>"
    yield f"<pre>{escape(command(training.get('config', {})))}</pre>"


def command(config: dict[str, Any]) -> str:
    """What to type to make this run again: every setting that is not the default."""
    words = ["unnoise", "train", str(config.get("data", ""))]
    for f in fields(TrainConfig):
        value = config.get(f.name)
        if f.name in ("data", "out", "fresh") or value is None or (f.default is not MISSING and value == f.default):
            continue
        flag = f.name.replace("_", "-")
        words += (
            ([f"--{flag}"] if value else [f"--no-{flag}"]) if isinstance(value, bool) else [f"--{flag}", str(value)]
        )
    return shlex.join(words)


def pictures(folder: Path) -> Iterator[str]:
    """The last grid, and how it came to be."""
    final = folder / SAMPLES / FINAL
    previews = sorted(folder.glob("samples/[0-9]*.png"))
    if final.is_file():
        yield f'<h2>Pictures</h2><figure><img class="pixels" alt="samples" src="{embedded(final)}"></figure>'
    if previews:
        step = max(1, -(-len(previews) // FILM))
        yield '<h2>On the way</h2><div class="film">'
        for path in previews[::-1][::step][::-1]:
            yield f'<figure><img alt="preview" src="{embedded(path)}">'
            yield f"<figcaption>{int(path.stem):,} images</figcaption></figure>"
        yield "</div>"


def curves(rows: Rows) -> Iterator[str]:
    """Loss, on training and held-out images, and the latter by bands."""
    if not rows.steps:
        return
    yield "<h2>Loss</h2>"
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(*columns(rows.steps, "images", "loss"), color=GRAY, linewidth=0.9, label="training steps")
    if rows.held_out:
        seen = [row["images"] for row in rows.held_out]
        for name, colour, label in (
            ("trained", BLUE, "on training images"),
            ("held_out", ORANGE, "on held-out images"),
        ):
            axis.plot(seen, [mean(row[name]) for row in rows.held_out], "o-", color=colour, label=f"average {label}")
    finish(axis, "images seen", "loss")
    axis.legend(frameon=False)
    yield drawing(figure, "Loss against images seen. The averaged weights are measured at fixed noise and levels.")
    if len(rows.held_out) > 1:
        bands = len(rows.held_out[0]["held_out"])
        figure = Figure(figsize=(7, 4.6), layout="constrained")
        for band, axis in enumerate(figure.subplots(2, -(-bands // 2), sharex=True).flat):
            for name, colour in (("trained", BLUE), ("held_out", ORANGE)):
                axis.plot(seen, [row[name][band] for row in rows.held_out], "o-", color=colour, markersize=3)
            finish(axis, "", "", scale="linear")
            axis.set_title(("cleanest", "second", "third", "noisiest")[band] + " quarter of the levels", fontsize=9)
        yield drawing(figure, "The same by noise level: held-out images orange, training images blue.")
    if len(rows.quality) > 1:
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        axis = figure.subplots()
        seen, value, error = columns(rows.quality, "images", "kid", "kid_error")
        axis.errorbar(seen, [1000 * v for v in value], yerr=[1960 * e for e in error], fmt="o-", color=BLUE, capsize=3)
        finish(axis, "images seen", "KID x 1000", scale="linear")
        count = rows.quality[-1]["pictures"]
        yield f"<h2>Quality on the way</h2>{drawing(figure, f'KID of {int(count)} pictures and its interval of 95 %.')}"


def scores(folder: Path) -> Iterator[str]:
    """Every evaluation of the run, the newest first."""
    found = [result["scores"] for result in evaluations(folder) if "scores" in result][::-1]
    yield "<h2>Scores</h2>"
    if not found:
        yield f"<p>Not measured yet: <code>unnoise eval {escape(str(folder))}</code></p>"
    for result in found:
        of, against, about = result["of"], result["against"], result["features"]
        names = ("score", "value", "95 % interval", "real pictures get")
        lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"]
        lines += [
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in shown(result["values"])
        ]
        yield f'<div class="scroll"><table>{"".join(lines)}</table></div>'
        drawn = ", ".join(f"{key} {of[key]}" for key in TOLD if key in of)
        text = f"{of['n']:,} pictures ({drawn}) of the weights {of['weights'][:16]} against {against['n']:,} of "
        text += f"{against['of']:,} of {against['name']} ({against['fingerprint'][:16]}); features {about['network']} "
        yield f"<p>{escape(text)}({escape(about['weights'][:16])}), {escape(about['resize'])}.</p>"
        yield from (f'<p class="warn">{escape(text)}</p>' for text in result["warnings"])
    for result in evaluations(folder)[::-1]:
        if bits := result.get("bpd"):
            value = bits["bound"]
            text = f"Bits per dimension: {value['mean']:.4f} ± {value['standard_error']:.4f}, the bound over "
            text += f"{bits['n']} pictures of {bits['data']['name']}, {bits['settings']['levels']} levels, "
            yield f"<p>{escape(text)}variance {escape(bits['settings']['variance'])}.</p>"


def audit(folder: Path) -> Iterator[str]:
    found = [result["memorization"] for result in evaluations(folder) if "memorization" in result]
    yield "<h2>Are they copies?</h2>"
    if not found:
        yield f"<p>Not audited yet: <code>unnoise eval {escape(str(folder))} --metrics memorization</code></p>"
        return
    last, sheet = found[-1], folder / "memorization.png"
    low, high = last["interval"]
    yield f"<p>{last['flagged']:.2%} of {last['n']:,} pictures ({low:.2%} to {high:.2%}) are nearer to one training "
    yield f"image than new ones are; of new ones {last['false_alarms']:.1%} would be at most, on average (calibrated "
    yield f"on {escape(last['calibrated_on'])}).</p>"
    if sheet.is_file():
        yield f'<figure><img class="pixels" alt="nearest pairs" src="{embedded(sheet)}">'
        yield "<figcaption>The nearest pairs: each drawn picture left of its training image.</figcaption></figure>"


def costs(rows: Rows, folder: Path) -> Iterator[str]:
    """Time and memory."""
    if rows.steps:
        figure = Figure(figsize=(7, 2.4), layout="constrained")
        axis = figure.subplots()
        minutes = [row["seconds"] / 60 for row in rows.steps]
        axis.plot(minutes, [row["images_per_second"] for row in rows.steps], color=BLUE, linewidth=0.9)
        finish(axis, "minutes", "images/s", scale="linear")
        axis.set_ylim(bottom=0)
        yield f"<h2>Time and memory</h2>{drawing(figure, 'Pace of the training.')}"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    facts = {"disk": f"{size / 2**20:,.0f} MB"}
    if last := rows.summary:
        total = last["training_seconds"] or 1
        facts = {
            "pace": f"{last['mean_images_per_second']:.0f} images/s",
            "previews": f"{last['preview_seconds']:.1f} s, {last['preview_seconds'] / total:.1%} of the time",
            "measuring": f"{last.get('measuring_seconds', 0):.1f} s, {last.get('measuring_seconds', 0) / total:.1%}",
            "peak memory": f"{last['peak_bytes'] / 2**20:,.0f} MB",
            **facts,
        }
    yield listed(facts)


def how(run: Run) -> Iterator[str]:
    card, config = run.card, run.card.training.get("config", {})
    yield "<h2>Settings</h2>"
    facts = {
        "unnoise": version("unnoise"),
        "fingerprint of the data": card.data["fingerprint"],
        "network": card.backbone,
    }
    yield listed({**facts, **{key: str(value) for key, value in config.items() if value is not None}})


def listed(facts: dict[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts.items())
    return f"<table>{rows}</table>"


def columns(rows: Sequence[dict[str, Any]], *names: str) -> tuple[list[Any], ...]:
    return tuple([row[name] for row in rows] for name in names)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def finish(axis: Any, x: str, y: str, scale: str = "log") -> None:
    axis.set(xlabel=x, ylabel=y, yscale=scale)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k
    axis.grid(visible=True, which="both", alpha=0.25)


def drawing(figure: Figure, caption: str) -> str:
    """A figure as part of the page."""
    file = io.StringIO()
    figure.savefig(file, format="svg")
    svg = file.getvalue()
    return f'<figure><div class="plot">{svg[svg.index("<svg") :]}</div><figcaption>{caption}</figcaption></figure>'


def embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def escape(text: str) -> str:
    return html.escape(str(text))
