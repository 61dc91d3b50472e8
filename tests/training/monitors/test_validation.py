"""The loss on held-out images."""

import math
import re

import numpy as np
import pytest
import torch

from unnoise import registry
from unnoise.card import Card
from unnoise.checkpoint import build_model
from unnoise.data.cache import open_data
from unnoise.data.dataset import split_held_out
from unnoise.samplers.draw import seeded_noise
from unnoise.training.clock import Clock
from unnoise.training.monitors.validation import BANDS, ValidationMonitor, fixed_subset


def held_out(gray, objective="simple", batch=64):
    data, held = split_held_out(open_data(str(gray)), 8)
    card = Card("unet:widths=8,groups=4,head=4,zero_init=false", "linear", "eps", (1, 8, 8), "L")
    return build_model(card), ValidationMonitor(registry.objective.get(objective), data, held, batch, count=8)


def test_held_out_loss_is_that_of_its_images_at_fixed_noise_and_levels(gray):
    """By hand; the same again, in other batches, and with the network left in its mode."""
    model, measure = held_out(gray)
    losses = measure.losses(model.train(), measure.held)
    assert model.backbone.training
    assert losses.shape == (BANDS, 8)
    for again in (measure.losses(model, measure.held), held_out(gray, batch=3)[1].losses(model, measure.held)):
        torch.testing.assert_close(again, losses, rtol=1e-5, atol=1e-6)
    i, band = 5, 2
    x0 = torch.from_numpy(measure.held.read(np.array([i]))).float() / 127.5 - 1
    noise = seeded_noise([i])
    *_, eps = [noise(x0) for _ in range(band + 1)]
    level = model.schedule.level(torch.tensor([math.floor((band + (i + 0.5) / 8) / BANDS * 1000)]))
    x_t = level.alpha.float() * x0 + level.sigma.float() * eps
    with torch.no_grad():
        expected = (model.eval().output(x_t, level) - eps).square().mean()
    assert losses[band, i] == pytest.approx(float(expected), rel=1e-4)


def test_overfitting_is_told_once_it_is_one(gray, monkeypatch):
    model, measure = held_out(gray)
    truth = {"held": 1.0, "trained": 1.0}

    def losses(_, dataset):
        name = "held" if dataset is measure.held else "trained"
        return truth[name] + 0.01 * torch.randn(BANDS, 8, dtype=torch.float64)

    monkeypatch.setattr(measure, "losses", losses)
    for held, trained, told in [(1.0, 1.0, False), (0.5, 0.5, False), (0.5, 0.4, False), (0.6, 0.3, True)]:
        truth.update(held=held, trained=trained)
        warning = measure.measure(model)
        assert (warning is not None) == told, (held, trained)
    assert "overfitting: the loss on held-out images is 0.6" in warning
    assert len(measure.rows) == 4
    assert "on held-out images" in str(measure)


def test_held_out_loss_is_of_all_kinds_and_as_much_as_there_is_time_for(gray):
    """Not the first images, which in a folder of classes are of one; and fewer where the network is slow."""
    data = open_data(str(gray))
    many = data.part(np.arange(20).repeat(50))
    rows = fixed_subset(many).rows
    assert len(rows) == 256
    assert set(rows.tolist()) == set(range(20))
    assert np.array_equal(fixed_subset(many).rows, rows)
    counts = []
    for seen in (100, 3_000, 1_000_000):
        clock = Clock(600.0, None)
        clock.start()
        clock.started -= 60
        clock.seen = seen
        measure = ValidationMonitor(registry.objective.get("simple"), fixed_subset(many), fixed_subset(many), 64)
        measure.plan(clock)
        counts.append(measure.count)
    assert counts[0] == 8
    assert counts[0] < counts[1] < counts[2] == 256


def test_the_held_out_loss_is_told_with_an_interval_of_95_percent(gray):
    """It is 2.36 standard errors to each side, the quantile of Student for 8 images."""
    model, measure = held_out(gray)
    measure.measure(model)
    mean, error = sum(measure.rows[-1]["held_out"]) / BANDS, measure.rows[-1]["held_out_error"]
    numbers = re.match(r"(\d\.\d+), (\d\.\d+) to (\d\.\d+) \(95 %\), on held-out images", str(measure))
    expected = (mean, mean - 2.365 * error, mean + 2.365 * error)
    assert [float(number) for number in numbers.groups()] == pytest.approx(expected, abs=1e-3)
