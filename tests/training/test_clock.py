"""The length of a training."""

import pytest

from unnoise.config import TrainConfig
from unnoise.training.clock import Clock
from unnoise.training.few_images import CHANGED, LEAST, MOST, copy_horizon, safe_images


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2D", 172800)])
def test_budgets(text, seconds):
    assert Clock.from_config(TrainConfig(budget=text), 10).seconds == seconds


@pytest.mark.parametrize(("text", "images"), [("500", 500), ("50k", 50_000), ("2M", 2_000_000)])
def test_images(text, images):
    assert Clock.from_config(TrainConfig(images=text), 10).images == images


def test_epochs_count_images():
    clock = Clock.from_config(TrainConfig(epochs=3), 10)
    clock.seen = 15
    assert clock.progress == pytest.approx(0.5)


def test_a_training_ends_at_what_comes_first():
    clock = Clock(100.0, 1000.0, seen=600, before=50.0)
    assert clock.progress == pytest.approx(0.6)
    assert clock.share_done(600, 70.0) == pytest.approx(0.7)
    assert clock.share_done(2000, 0.0) == 1


@pytest.mark.parametrize("count", [LEAST, 200, MOST])
def test_a_budget_ends_before_copies_of_few_images_begin(count):
    clock = Clock.from_config(TrainConfig(budget="8h"), count)
    assert (clock.seconds, clock.images) == (8 * 3600, safe_images(count))
    assert Clock.from_config(TrainConfig(budget="8h", allow_copies=True), count).images is None


def test_the_horizon_is_in_proportion_to_the_images():
    assert copy_horizon(400) == copy_horizon(200, 2.0) == 2 * copy_horizon(200) > 0
    for settings, factor in (({"flip": True}, CHANGED), ({"augment": 0.1}, CHANGED)):
        assert Clock.from_config(TrainConfig(**settings), 200).images == factor * safe_images(200)


@pytest.mark.parametrize("count", [0, LEAST - 1, MOST + 1])
def test_no_horizon_where_none_was_measured(count):
    assert Clock.from_config(TrainConfig(budget="8h"), count).images is None


def test_a_length_in_images_is_taken_as_it_is():
    assert Clock.from_config(TrainConfig(images="500k"), 200).images == 500_000
