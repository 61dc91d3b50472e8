"""Scores of one set against another: every metric, the floor, and the warnings."""

import math

import pytest

from unnoise.config import EvalConfig
from unnoise.errors import InputError
from unnoise.evaluation.comparison import format_scores
from unnoise.evaluation.evaluate import run_evaluation
from unnoise.evaluation.features import Extractor


def test_images_like_the_data_score_near_the_floor_and_others_far_above(world):
    found = {
        name: run_evaluation(EvalConfig(str(world / name), str(world / "like"), metrics="kid,fid"))["scores"]["values"]
        for name in ("train", "gray", "constant")
    }
    alike, floor = found["train"]["kid"], found["train"]["kid"]["floor"]
    assert abs(alike["value"]) < 4 * max(alike["standard_error"], floor["standard_error"])
    for name in ("gray", "constant"):
        assert found[name]["kid"]["value"] > 5 * abs(alike["value"])
        assert found[name]["fid"]["value"] > 2 * found["train"]["fid"]["value"]


def test_every_metric_by_name(world):
    names = "kid,fid,fid_infinity,precision_recall,density_coverage,inception_score,colour"
    found = run_evaluation(EvalConfig(str(world / "train"), data=str(world / "like"), metrics=names))["scores"]
    known = {"kid", "fid", "fid_infinity", "precision", "recall", "density", "coverage", "inception_score"}
    assert set(found["values"]) == known
    assert [name for name, score in found["values"].items() if not math.isfinite(score["value"])] == ["fid_infinity"]
    assert len(found["warnings"]) == 2  # fid and fid_infinity need more images
    assert len(format_scores(found)) == len(known) + 6


def test_no_inception_score_by_a_network_that_knows_no_classes(world):
    config = EvalConfig(
        str(world / "train"),
        str(world / "like"),
        metrics="inception_score",
        features=lambda: Extractor(lambda _: None, 8, 0, {}),
    )
    with pytest.raises(InputError, match="needs a feature extractor that knows classes"):
        run_evaluation(config)


def test_what_spoils_a_score_is_a_warning(world):
    def warned(a, b, **more):
        return " ".join(
            run_evaluation(EvalConfig(str(world / a), str(world / b), metrics="kid", **more))["scores"]["warnings"]
        )

    assert "two sizes, 24x24 and 16x16" in warned("large", "like")
    assert "1 and 3 channels" in warned("gray", "like")
    assert "all images are the same" in warned("constant", "like")
    assert "colour drift: std of channel 0" in warned("constant", "like")
    assert warned("train", "like") == ""
