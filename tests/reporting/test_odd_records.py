"""Records of a run that hold what no training writes end in one line, in the report, the table and the app."""

import json
import random
import shutil

import pytest

import unnoise
from unnoise.app.training_view import training_view
from unnoise.errors import InputError
from unnoise.files import read_json_lines
from unnoise.reporting.compare import compare_runs
from unnoise.reporting.report import write_report

ODD = (None, True, "x", [], {}, [[]], {"a": 1}, -1, 1e308, 10**400, "\ud800", float("nan"), [None], [[1, 2]], ["a"])


@pytest.fixture
def run(runs, tmp_path):
    """Return a run folder of the test's own, with scores."""
    return shutil.copytree(runs / "one", tmp_path / "run")


def make_odd(value, chance):
    """Replace or remove one value, at any depth."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = chance.choice(list(keys))
    if isinstance(value[key], dict | list) and value[key] and chance.random() < 0.7:
        make_odd(value[key], chance)
    elif isinstance(value, dict) and chance.random() < 0.2:
        del value[key]
    else:
        value[key] = chance.choice(ODD)


def outcome(function, *args):
    """Return the message if a function refuses its input, or an empty text; other errors are the test's failure."""
    try:
        function(*args)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(12))
def test_odd_values_in_the_log_of_a_training(run, seed):
    chance, rows = random.Random(seed), [*read_json_lines(run / "metrics.jsonl")]
    for row in rows:
        make_odd(row, chance)
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    card = unnoise.load(run, "cpu").card
    messages = [outcome(write_report, run), outcome(training_view, run, card)]
    assert all("\n" not in text for text in messages)


@pytest.mark.parametrize("seed", range(12))
def test_odd_values_in_the_results_of_an_evaluation(runs, run, seed):
    chance, (file, *_) = random.Random(seed), sorted((run / "evaluations").glob("*.json"))
    result = json.loads(file.read_text())
    for _ in range(4):
        make_odd(result, chance)
    file.write_text(json.dumps(result))
    messages = [outcome(write_report, run), outcome(compare_runs, [run, runs / "two"])]
    assert all("\n" not in text for text in messages)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"loss": "low", "seconds": 1, "images": 5, "images_per_second": 2}, "'low' is no finite number"),
        ({"loss": 0.1, "seconds": 1, "images_per_second": 2}, "KeyError: 'images'"),
        ({"held_out": [], "trained": [1, 2], "images": 5}, "is no finite number"),
        ({"training_seconds": "long"}, "unsupported operand"),
    ],
)
def test_the_file_and_the_value_are_named(run, row, why):
    """Matplotlib draws a text as a category, so it would look like a loss."""
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl or a file in evaluations") as error:
        write_report(run)
    assert why in str(error.value)
