"""`unnoise compare`: one table of several runs, and warnings about what cannot be compared."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from unnoise.card import Run
from unnoise.checkpoint import RunLike, as_run, weights_hash
from unnoise.errors import InputError
from unnoise.evaluation.image_sets import IN_TURN
from unnoise.evaluation.judges import opposite_orders
from unnoise.evaluation.paired import SUFFIX, Pairs, read_contributions
from unnoise.evaluation.references import HELD_OUT
from unnoise.evaluation.score_table import SAMPLING_FACTS, table_rows
from unnoise.options import with_names_of_today
from unnoise.reporting.differences import Measured, difference_rows
from unnoise.run_folder import EVALUATIONS, MODEL, evaluation_files, own_file, reading_records

Row = tuple[str, ...]  # a name, then a cell for each run
COMPARED_SETTINGS = (*SAMPLING_FACTS, "guidance_interval", "clip")  # sampling settings, printed if they differ


class Scored(NamedTuple):
    """The scores of a run under one condition: how its images were drawn, and a cell for each score."""

    settings: dict[str, Any]
    cells: dict[str, str]
    pairs: Pairs  # what each image contributes to KID
    scores: dict[str, Any]  # as they are stored


def compare_runs(runs: Sequence[RunLike]) -> list[str]:
    """Return the lines of a table with a column for each run.

    The rows are the training settings that differ, the cost, and the scores that were measured under the same
    conditions in all runs.
    """
    if len(runs) < 2:
        raise InputError("compare takes two runs or more")
    opened = [as_run(run) for run in runs]
    scores, warnings = score_rows(opened)
    rows = [("", *map(run_name, opened)), *setting_rows(opened), *cost_rows(opened), *scores]
    if len({run.card.data.get("fingerprint") for run in opened}) > 1:
        warnings.insert(
            0, "the runs were trained on different data, so their losses and scores measure different tasks"
        )
    return [*align_columns(rows), *(f"warning: {text}" for text in warnings)]


def setting_rows(runs: Sequence[Run]) -> list[Row]:
    """Return a row for each training setting that differs."""
    configs = [{**with_names_of_today(run.card.training.get("config", {})), "out": None} for run in runs]
    if len({run.card.data.get("fingerprint") for run in runs}) == 1:  # the same images by another path
        configs = [{**config, "data": None} for config in configs]
    names = list(dict.fromkeys(name for config in configs for name in config))
    return rows_that_differ(names, configs)


def rows_that_differ(names: Sequence[str], columns: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each name whose values are not the same in all columns."""
    rows = [(name, *(str(values.get(name)) for values in columns)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def cost_rows(runs: Sequence[Run]) -> list[Row]:
    """Return the size and the length of each training."""
    trainings = [run.card.training for run in runs]
    return [
        ("parameters", *(f"{sum(p.numel() for p in run.model.parameters()):,}" for run in runs)),
        ("images seen", *(f"{training.get('images', 0):,}" for training in trainings)),
        ("seconds", *(f"{training.get('seconds', 0):,.0f}" for training in trainings)),
    ]


def score_rows(runs: Sequence[Run]) -> tuple[list[Row], list[str]]:
    """Return the last scores under each condition that all runs share, and a warning for each that they do not."""
    found = [last_scores(run) for run in runs]
    shared = [condition for condition in found[0] if all(condition in scores for scores in found)]
    rows, warnings = list[Row](), list[str]()
    for condition in shared:
        measured = [scores[condition] for scores in found]
        rows.append((condition, *("" for _ in runs)))
        rows += rows_that_differ(COMPARED_SETTINGS, [scored.settings for scored in measured])
        names = dict.fromkeys(name for scored in measured for name in scored.cells)
        rows += [(name, *(scored.cells.get(name, "") for scored in measured)) for name in names]
        warnings += order_warnings([run_name(run) for run in runs], measured)
        each = [
            Measured(run_name(run), scored.settings, "kid x 1000" in scored.cells, scored.pairs)
            for run, scored in zip(runs, measured, strict=True)
        ]
        differences, doubts = difference_rows(each)
        rows, warnings = [*rows, *differences], [*warnings, *doubts]
    for run, scores in zip(runs, found, strict=True):
        name = run_name(run)
        if not scores:
            warnings.append(f"{name} has no scores; measure them with: unnoise eval {run.name}")
        alone = [condition for condition in scores if condition not in shared]
        warnings += [f"only {name} has scores of {condition}; the table leaves them out" for condition in alone]
    return rows, warnings


def run_name(run: Run) -> str:
    """Return the name of the run folder, with the file if it is not the usual model file."""
    return run.folder.name if run.file.name == MODEL else f"{run.folder.name}/{run.file.name}"


def last_scores(run: Run) -> dict[str, Scored]:
    """Return the last scores of these weights under each condition: number of images, data, feature extractor."""
    found, weights = {}, weights_hash(run)
    with reading_records(run.folder):
        for path, result in evaluation_files(run.folder):
            scores = result.get("scores")
            if scores and scores["of"].get("weights") == weights:
                measured, against, features = scores["of"], scores["against"], scores["features"]
                condition = f"{measured['n']:,} images against {against['n']:,} of {against['name']} "
                condition += HELD_OUT + " " if against.get("which") == HELD_OUT else ""
                condition += f"{against['fingerprint'][:8]} by {features['network']} {features['weights'][:8]}"
                if rule := measured.get("labels", IN_TURN if run.card.classes else ""):
                    condition += f", classes {rule}"  # version 0.1.0 drew every class in turn
                file = own_file(run.folder, EVALUATIONS, path.with_suffix(SUFFIX).name)
                found[condition] = Scored(measured, score_cells(scores), read_contributions(file, measured), scores)
    return found


def score_cells(scores: dict[str, Any]) -> dict[str, str]:
    """Return a cell of text for each score by each judge; the second judge is named."""
    cells = {name: f"{value} ({to})" for name, value, to, _ in table_rows(scores["values"])}
    if second := scores.get("second"):
        judge = f"{second['features']['network']} {second['features']['weights'][:8]}"
        cells |= {f"{name} by {judge}": f"{value} ({to})" for name, value, to, _ in table_rows(second["values"])}
    return cells


def order_warnings(names: Sequence[str], measured: Sequence[Scored]) -> list[str]:
    """Return a warning for each two runs that the judges order in opposite ways: see `opposite_orders`."""
    pairs = combinations(zip(names, measured, strict=True), 2)
    return [
        f"the judges order {one} and {other} in opposite ways by KID, and both intervals are apart: look at the images"
        for (one, a), (other, b) in pairs
        if opposite_orders(a.scores, b.scores)
    ]


def align_columns(rows: Sequence[Row]) -> list[str]:
    """Return rows as text with columns as wide as their cells; a row with one cell alone may be longer."""
    columns = [[row[i] for row in rows if i or any(row[1:])] for i in range(len(rows[0]))]
    widths = [max(map(len, column)) for column in columns]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
