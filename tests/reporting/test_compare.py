"""A table of several runs, and the warnings below it."""

import re

import pytest

import unnoise
from unnoise.cli import main
from unnoise.reporting.compare import compare_runs

pytestmark = pytest.mark.usefixtures("unchecked")


def test_runs_are_columns_of_one_table(runs):
    lines = compare_runs([str(runs / "one"), str(runs / "two")])
    text = "\n".join(lines)
    assert lines[0].split() == ["one", "two"]
    assert re.search(r"^lr +0.001 +0.002$", text, re.MULTILINE)
    assert re.search(r"^steps +2 +3$", text, re.MULTILINE), "the sampling settings differ, and the table says so"
    assert "60 images against 120 of data" in text
    assert len(re.findall(r"^(?:kid x 1000|fid) +\S+ \(.*?\) +\S+ \(.*?\)$", text, re.MULTILINE)) == 2
    assert "warning" not in text
    assert "batch" not in text, "only settings that differ"


def test_the_difference_of_two_runs_has_an_interval(runs):
    lines = compare_runs([str(runs / "one"), str(runs / "two")])
    row, second = [line for line in lines if line.startswith("kid above the best")]
    assert " by efficientnet-lite2" in second
    kids = next(line for line in lines if line.startswith("kid x 1000"))
    one, two = (float(cell) for cell in re.findall(r"(\S+) \(", kids))
    value = float(re.search(r"(\S+) \(\S+ to \S+\), (?:worse|not told apart)", row)[1])
    assert value == pytest.approx(abs(one - two), abs=0.002)
    assert re.search("best|lowest", row)
    assert any(re.match(r"images needed +[0-9,]+", line) for line in lines)
    same, _ = [line for line in compare_runs([str(runs / "one")] * 2) if line.startswith("kid above the best")]
    assert same.split("1000")[1].split(maxsplit=1) == ["lowest", "0: the same images"]


def test_scores_without_contributions_say_how_to_get_the_interval(runs, capsys):
    place = runs / "two" / "evaluations" / "0001.safetensors"
    kept = place.read_bytes()
    for left in (None, kept[:-4]):  # a version that keeps none, and a file that is damaged
        place.unlink()
        if left:
            place.write_bytes(left)
        assert main(["compare", str(runs / "one"), str(runs / "two")]) == 0
        text = capsys.readouterr().out
        assert "kid above the best" not in text
        assert "the stored scores of two do not say what each image contributes; measure again" in text
        place.write_bytes(kept)


def test_the_best_weights_are_another_model(runs, capsys):
    """The best weights are compared by scores of their own, never by the scores of the last weights."""
    best = runs / "one" / "best.safetensors"
    three = unnoise.load(runs / "three", "cpu")
    best.write_bytes(three.path.read_bytes())
    text = "\n".join(compare_runs([str(runs / "one"), str(best)]))
    assert "one/best.safetensors has no scores" in text
    assert "kid x 1000" not in text
    assert main(["eval", str(best), "--data", str(runs / "data.npz"), "-n", "60", "--metrics", "kid,fid"]) == 0
    assert "kid x 1000" in "\n".join(compare_runs([str(runs / "one"), str(best)]))
    best.unlink()


def test_what_cannot_be_compared_gets_a_warning(runs, capsys):
    assert main(["compare", str(runs / "one"), str(runs / "three")]) == 0
    text = capsys.readouterr().out
    assert "trained on different data" in text
    assert "three has no scores" in text
    assert "only one has scores of 60 images" in text
    assert "kid x 1000" not in text
    assert main(["compare", str(runs / "one")]) == 2
    assert "two runs or more" in capsys.readouterr().err
