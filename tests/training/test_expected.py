"""The KID that a training expects: the law, when it is said, and that `unnoise eval` compares with it."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from tiny import TINY, At, smooth, train_folder
from unnoise import evaluate, load, open_data
from unnoise.config import EvalConfig, TrainConfig
from unnoise.evaluation.expectation import EXPECTED, Expected, expected_of
from unnoise.evaluation.score_table import format_scores
from unnoise.training.expected import LAW, expected_kid
from unnoise.training.few_images import safe_images
from unnoise.training.plan import unet
from unnoise.training.signals import Interrupted

pytestmark = pytest.mark.usefixtures("unchecked")

SET = open_data(smooth(1_000, 32, 0))
DEFAULT = TrainConfig(backbone=unet(64, (3, 32, 32)), lr=3e-3)
GOOD, BAD = Expected(90.0, 50.0, 200.0, 50_000.0), Expected(0.02, 0.01, 0.04, 50_000.0)


def test_more_images_are_better_and_large_ones_are_harder():
    few, many, large = LAW.at(32, 20_000), LAW.at(32, 100_000), LAW.at(64, 20_000)
    assert many.kid < few.kid < large.kid
    assert few.low < few.kid < few.high


@pytest.mark.parametrize(
    ("changed", "images", "known"),
    [
        ({}, 50_000, True),
        ({"seed": 3, "budget": "20m", "held_out": 100}, 50_000, True),
        ({}, 5_000, False),
        ({}, 5_000_000, False),
        ({"objective": "simple"}, 50_000, False),
        ({"lr": 1e-3}, 50_000, False),
        ({"steps": 5}, 50_000, False),
        ({"backbone": "unet:widths=64"}, 50_000, False),
        ({"classes": True}, 50_000, False),
        ({"stream": True}, 50_000, False),
    ],
)
def test_a_kid_is_expected_where_it_was_measured(changed, images, known):
    found = expected_kid(replace(DEFAULT, **changed), SET, images)
    assert found == (LAW.at(32, images) if known else None)


def test_few_images_may_be_copied_so_nothing_is_expected_after_copies_begin():
    few = open_data(smooth(400, 32, 0))
    assert expected_kid(DEFAULT, few, safe_images(400)) == LAW.at(32, safe_images(400))
    assert expected_kid(DEFAULT, few, safe_images(400) + 1) is None


@pytest.mark.parametrize(("expected", "verdict"), [(GOOD, "better"), (BAD, "worse")])
def test_what_is_expected_is_said_first_and_compared_later(tmp_path, monkeypatch, capsys, expected, verdict):
    monkeypatch.setattr("unnoise.training.train.expected_kid", lambda *_: expected)
    np.save(tmp_path / "images.npy", smooth(120, 16, 0))
    settings = {name: value for name, value in TINY.items() if name != "steps"}
    run = load(train_folder(str(tmp_path / "images.npy"), out=str(tmp_path / "run"), images="32", **settings))
    assert f"expected  KID x 1000 of {expected}; " in capsys.readouterr().out
    found = evaluate(run, metrics="kid", n=50, second="none").details["scores"]
    said = [line for line in format_scores(found) if line.startswith("expected")]
    assert said == [f"expected  KID x 1000 of {expected}, after 50,000 images: {verdict}"]
    assert expected_of(run, EvalConfig(run)) == expected
    assert expected_of(run, EvalConfig(run, steps=5)) is None
    assert expected_of(run, EvalConfig(run, data="photos")) is None


def test_nothing_is_expected_of_other_settings(tmp_path):
    run = load(train_folder(smooth(120, 16, 0), out=str(tmp_path / "run"), images="32", **TINY))
    assert EXPECTED not in run.card.training
    assert expected_of(run, EvalConfig(run)) is None


def test_nothing_is_expected_of_a_training_that_was_stopped_early(tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.training.train.expected_kid", lambda *_: BAD)
    stop = At(2, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    settings = TINY | {"images": "48", "out": str(tmp_path / "run")}
    with pytest.raises(Interrupted):
        train_folder(smooth(120, 16, 0), monitors=[stop], **settings)
    assert EXPECTED not in load(str(tmp_path / "run")).card.training
    assert EXPECTED in load(train_folder(smooth(120, 16, 0), **settings)).card.training
