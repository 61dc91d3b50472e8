"""`unnoise verify`: an honest run agrees in every value, and nothing is written into it."""

import json
import re

import pytest

import unnoise
from unnoise.cli import main
from unnoise.files import read_json_lines
from verification_helpers import agreeing, named


def test_every_value_of_an_honest_run_agrees_and_nothing_is_written(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found = unnoise.verify(run)
    assert named(found.checks) == set(), str(found)
    assert agreeing(found.checks).keys() >= {
        "card",
        "config.yaml",
        "loss.png",
        "report.html",
        "metrics.jsonl held-out loss",
        "samples/final.png",
        "evaluations/0001.json bpd",
    }
    assert re.search(r"^\d+ values agree, 0 differ, \d+ cannot be recomputed$", str(found).splitlines()[-1])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.slow
def test_a_run_with_all_measurements_agrees(scored_run):
    found = unnoise.verify(scored_run)
    assert named(found.checks) == set(), str(found)
    parts = {"metrics.jsonl KID", "best.safetensors", "evaluations/0001.json scores", "memorization.png"}
    assert agreeing(found.checks).keys() >= parts


def test_the_command_returns_1_for_a_difference_and_writes_all_checks(run, capsys):
    (run / "report.html").unlink()
    assert main(["verify", str(run / "model.safetensors"), "--quick"]) == 0
    assert "--quick leaves it out" in capsys.readouterr().out
    (run / "config.yaml").write_text("lr: 1")
    assert main(["verify", str(run), "--quick", "--json", str(run / "checks.json")]) == 1
    assert "differs: config.yaml lr: 1, recomputed 0.003" in capsys.readouterr().out
    assert json.loads((run / "checks.json").read_text())["checks"]
    assert main(["verify", str(run / "samples")]) == 2


def test_odd_records_end_in_one_line(run, capsys):
    rows = [*read_json_lines(run / "metrics.jsonl")]
    rows[-1]["training_seconds"] = "long"
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["verify", str(run), "--quick"]) == 2
    assert re.fullmatch(r"unnoise: .*holds values that no training writes.*\n", capsys.readouterr().err)


def test_data_that_is_gone_is_said_and_is_no_difference(run, honest):
    (run / "report.html").unlink()
    (honest.parent / "data.npz").rename(honest.parent / "away.npz")
    try:
        found = unnoise.verify(run)
    finally:
        (honest.parent / "away.npz").rename(honest.parent / "data.npz")
    assert named(found.checks) == set()
    assert "is not on this machine" in str(found)
