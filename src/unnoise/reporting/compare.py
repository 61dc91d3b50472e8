"""`unnoise compare`: runs side by side, and what can't be set side by side."""

from collections.abc import Sequence
from typing import Any

from unnoise.card import Run
from unnoise.checkpoint import load, weights_hash
from unnoise.errors import InputError
from unnoise.evaluation.evaluate import TOLD, shown
from unnoise.run_folder import MODEL, evaluations

BESIDE = (*TOLD, "guidance_interval", "clip")  # told, where they differ


def compare(places: Sequence[str]) -> list[str]:
    """A table: a column for each run, the settings that differ, the cost, and scores measured on the same terms."""
    if len(places) < 2:
        raise InputError("compare takes two runs or more")
    runs = [load(place, "cpu") for place in places]
    rows = [("", *map(name_of, runs)), *settings(runs), *costs(runs)]
    lines, notes = scores(runs)
    rows += lines
    if len({run.card.data.get("fingerprint") for run in runs}) > 1:
        notes.insert(0, "the runs were trained on different data: their losses and scores are of different tasks")
    return [*aligned(rows), *(f"warning: {note}" for note in notes)]


def settings(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Those of the training that differ."""
    configs = [{**run.card.training.get("config", {}), "out": None} for run in runs]
    names = list(dict.fromkeys(name for config in configs for name in config))
    every = [(name, *(str(config.get(name)) for config in configs)) for name in names]
    return [row for row in every if len(set(row[1:])) > 1]


def costs(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    training = [run.card.training for run in runs]
    return [
        ("parameters", *(f"{sum(p.numel() for p in run.model.parameters()):,}" for run in runs)),
        ("images seen", *(f"{made.get('images', 0):,}" for made in training)),
        ("seconds", *(f"{made.get('seconds', 0):,.0f}" for made in training)),
    ]


def scores(runs: Sequence[Run]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The last scores of each run by the terms they share; a note for each that stands alone."""
    found = [by_terms(run) for run in runs]
    everywhere = [terms for terms in found[0] if all(terms in others for others in found)]
    rows, notes = list[tuple[str, ...]](), list[str]()
    for terms in everywhere:
        results = [others[terms] for others in found]
        rows.append((terms, *("" for _ in runs)))
        ways = [{name: result["of"].get(name) for name in BESIDE} for result in results]
        rows += [
            (name, *(str(way[name]) for way in ways)) for name in BESIDE if len({str(way[name]) for way in ways}) > 1
        ]
        cells = [{name: f"{value} ({interval})" for name, value, interval, _ in shown(r["values"])} for r in results]
        rows += [(name, *(cell.get(name, "") for cell in cells)) for name in cells[0]]
    for run, others in zip(runs, found, strict=True):
        name = name_of(run)
        if not others:
            notes.append(f"{name} has no scores: unnoise eval {run.path}")
        notes += [
            f"only {name} was scored on {terms}: not set beside others" for terms in others if terms not in everywhere
        ]
    return rows, notes


def name_of(run: Run) -> str:
    return run.folder.name if run.file.name == MODEL else f"{run.folder.name}/{run.file.name}"


def by_terms(run: Run) -> dict[str, Any]:
    """The last result of these weights for each set of terms: number of pictures, data, network that looks at them."""
    found, weights = {}, weights_hash(run)
    for result in evaluations(run.folder):
        scored = result.get("scores")
        if scored and scored["of"].get("weights") == weights:
            of, against, about = scored["of"], scored["against"], scored["features"]
            terms = f"{of['n']:,} pictures against {against['n']:,} of {against['name']} {against['fingerprint'][:8]}"
            found[f"{terms} by {about['network']} {about['weights'][:8]}"] = scored
    return found


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they need to be; a row of one cell may be longer."""
    columns = [[row[i] for row in rows if i or any(row[1:])] for i in range(len(rows[0]))]
    widths = [max(map(len, column)) for column in columns]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
