"""Scores of one set against another: every metric, the floor, and the warnings."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tiny import smooth
from unnoise.config import EvalConfig
from unnoise.errors import InputError
from unnoise.evaluation.comparison import few_images_warnings
from unnoise.evaluation.evaluate import run_evaluation
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.score_table import format_scores
from unnoise.evaluation.statistics import Statistics

pytestmark = pytest.mark.usefixtures("unchecked")


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
    assert len(format_scores(found)) == len(known) + 8


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


def test_large_images_are_compared_at_their_own_size(tmp_path, monkeypatch):
    """At 64 px, where blocks of 2x2 pixels are gone, images of blocks looked better than real ones."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)

    def real(count):
        noise = random.normal(0, 20, (count, 128, 128, 3))
        return (smooth(count, 128, count) + noise).clip(0, 255).astype(np.uint8)

    data, others = real(50), real(51)
    blocks = data.reshape(50, 64, 2, 64, 2, 3).mean((2, 4)).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    for name, images in (("data", data), ("others", others), ("blocks", blocks)):
        np.save(tmp_path / f"{name}.npy", images)

    def score(name, metrics="fid,kid", **more):
        given = str(tmp_path / f"{name}.npy"), str(tmp_path / "data.npy")
        config = EvalConfig(*given, metrics=metrics, second="none", **more)
        return run_evaluation(config, say=lambda _: None)["scores"]

    found, real_scores = score("blocks"), score("others")["values"]
    assert found["values"]["fid"]["value"] > 3 * real_scores["fid"]["value"]
    assert found["values"]["kid"]["interval"][0] > 3 * real_scores["kid"]["interval"][1]
    assert found["of"]["size"] == found["against"]["size"] == "128x128"
    assert found["features"]["network"] == "efficientnet-lite0:size=128"
    assert any("50 images, 128x128, sha256" in line for line in format_scores(found))
    small = score("blocks", "kid", size="32x32")
    assert small["of"]["size"] == small["against"]["size"] == "32x32"
    assert small["features"]["network"] == "efficientnet-lite0:size=64"


def test_what_equal_sets_get_is_an_interval_as_wide_as_that_of_a_score(world):
    """KID of sets that are like the data has about the interval of equal sets, not one of half the width."""
    config = EvalConfig(str(world / "train"), str(world / "like"), metrics="kid")
    found = run_evaluation(config, say=lambda _: None)["scores"]
    head, row, *_ = format_scores(found)
    assert re.split("  +", head)[:4] == ["score", "value", "95 % interval", "equal sets get"]
    _, _, own, equal = re.split("  +", row)[:4]
    (low, high), (least, most) = (map(float, text.split(" to ")) for text in (own, equal))
    assert least == -most
    assert (high - low) / (most - least) == pytest.approx(1, abs=0.3)


def test_a_missing_interval_of_fid_is_told_for_each_judge():
    """1,000 images are 3 for each of 320 features, and not for each of 352."""
    some = [Statistics.empty(d, 0, 3) for d in (320, 352)]
    judges = [(replace(each, count=each.count + 50),) * 2 for each in some]
    (told,) = few_images_warnings(["fid"], judges)
    assert "fid of 1,000 images has no interval: it needs 1,056, 3 for each of the 352 features of the second" in told
    assert few_images_warnings(["fid"], judges[:1]) == few_images_warnings(["kid"], judges) == []


def test_images_of_many_sizes_every_crop_and_every_unreadable_file_are_told(world, tmp_path):
    for i, side in enumerate([(90, 90)] * 30 + [(120, 90)] * 30):
        Image.fromarray(smooth(1, 120, i)[0, : side[1], : side[0]]).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    said = []
    found = run_evaluation(EvalConfig(str(tmp_path), str(world / "large"), metrics="kid"), say=said.append)["scores"]
    assert found["of"]["size"] == "90x90"
    assert any("two sizes, 90x90 and 24x24: the scores measure that too; --size 24x24" in w for w in found["warnings"])
    assert any("center-cropped 30 images" in line for line in said)
    assert any("bad.png" in line for line in said)
    one = run_evaluation(EvalConfig(str(tmp_path), str(world / "large"), metrics="kid", size="24"))["scores"]
    assert not any("two sizes" in text for text in one["warnings"])


def test_a_run_has_a_size_of_its_own(world):
    with pytest.raises(InputError, match="draws 16x16; leave it out"):
        run_evaluation(EvalConfig(str(world / "run"), size="64"))
