"""The length of a training."""

import pytest

from unnoise.config import TrainConfig
from unnoise.training.clock import Clock


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
