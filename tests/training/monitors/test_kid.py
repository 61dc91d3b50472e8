"""KID at marks of a training."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny import TINY, train_folder
from unnoise import registry
from unnoise.card import Card
from unnoise.checkpoint import build_model, load
from unnoise.config import Sampling
from unnoise.data.cache import open_data
from unnoise.data.dataset import split_held_out
from unnoise.evaluation.metrics import kid
from unnoise.evaluation.scores import symmetric
from unnoise.images import to_uint8
from unnoise.samplers.base import Step
from unnoise.training.clock import Clock
from unnoise.training.monitors.drawing import draw_images
from unnoise.training.monitors.kid import MARKS, KidMonitor
from unnoise.training.signals import Stop

pytestmark = pytest.mark.usefixtures("unchecked")


def at_pace(clock, images_per_second):
    """Let a clock have seen as many images as that takes."""
    clock.seen = round(images_per_second * clock.elapsed)
    return clock


@pytest.fixture
def scored(gray, monkeypatch):
    """What is measured, on a run whose network draws nothing of note, for 100 pictures at five marks."""
    data = open_data(str(gray))
    clock, now = Clock(1000.0, None), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock.start()
    now[0] = 100.0
    monkeypatch.setattr("unnoise.training.monitors.kid.LEAST_DRAWN", 10)
    model = build_model(Card("unet:widths=8,groups=4,head=4", "linear", "eps", (1, 8, 8), "L"))
    monkeypatch.setattr("unnoise.training.monitors.kid.extraction_seconds", lambda _: 0.01)

    def draw(count, seconds=math.inf):
        return draw_images(model, count, Sampling("ddim", steps=2), Stop(), seconds)

    return KidMonitor(data, Sampling("ddim", steps=2)), draw, clock, now


def test_kid_is_planned_within_its_share_and_told_beforehand(scored):
    quality, _, clock, _ = scored
    assert quality.due(clock)
    text = quality.plan(at_pace(clock, 10.0))
    assert 10 <= quality.count <= 1000
    assert "images at 10%, 20%, 40%, 70%, 100% of the training" in text
    slow = KidMonitor(quality.dataset, Sampling("ddim", steps=500))
    assert slow.settings.steps == 20, "it is there to tell weights apart"
    assert "10 images take more than 4% of the time" in slow.plan(at_pace(clock, 1.0))
    assert not slow.due(clock)
    few = KidMonitor(quality.dataset.part(np.arange(9)), Sampling("ddim", steps=2))
    assert "it needs 10 training images or more" in few.plan(at_pace(clock, 10.0))
    wide = KidMonitor(replace(quality.dataset, shape=(5, 8, 8)), Sampling("ddim", steps=2))
    assert "of 1 to 4 channels" in wide.plan(at_pace(clock, 10.0))
    for images_per_second in (3.0, 5.0):
        plan = KidMonitor(quality.dataset, Sampling("ddim", steps=20))
        plan.plan(at_pace(clock, images_per_second))
        cost = plan.count * (20 / (3 * images_per_second) + 0.01) * len(MARKS) + 20 * 0.01
        assert cost <= 0.04 * 1000
    one, two = (KidMonitor(quality.dataset, Sampling(name, steps=20)) for name in ("ddim", "heun"))
    for plan in (one, two):
        plan.plan(at_pace(clock, 8.0))
    assert two.count <= one.count / 2 + 1, "heun asks the network twice a step"


def test_kid_on_the_way_is_that_of_the_same_pictures(scored, gray):
    quality, draw, clock, _ = scored
    quality.plan(at_pace(clock, 10.0))
    quality.count = 20
    assert quality.measure(draw, clock) is None
    look = registry.features.get("efficientnet")()
    with torch.inference_mode():
        drawn = to_uint8(draw(20))
        expected = kid(*(look(pixels)[0] for pixels in (drawn, torch.from_numpy(np.load(gray))[:, None])))
    assert quality.rows[0]["kid"] == pytest.approx(expected.value, rel=1e-3)
    assert quality.rows[0]["pictures"] == 20
    assert quality.best
    assert not quality.due(clock), "until the next mark"


def test_kid_compares_with_held_out_images_if_there_are_enough(scored, gray, monkeypatch):
    """Copies of training images would score better than real ones."""
    _, draw, clock, _ = scored
    data, held = split_held_out(open_data(str(gray)), 10)
    model = build_model(Card("unet:widths=8,groups=4,head=4", "linear", "eps", (1, 8, 8), "L"))
    found = []
    for enough, which, images in ((10, "held-out images", held), (11, "training images", data)):
        monkeypatch.setattr("unnoise.evaluation.references.ENOUGH", enough)
        monitor = KidMonitor(data, Sampling("ddim", steps=2), held)
        assert f", against {which}" in monitor.run(model, at_pace(clock, 10.0), Stop()).messages[0]
        drawn = to_uint8(draw(monitor.count))
        extract = registry.features.get("efficientnet")()
        real = torch.from_numpy(images.read(np.arange(len(images))))
        expected = kid(extract(drawn)[0], extract(real)[0]).value
        assert monitor.rows[0]["kid"] == pytest.approx(expected, abs=1e-3)
        found.append(expected)
    assert abs(found[0] - found[1]) > 0.002


def test_kid_keeps_to_its_share_on_a_machine_that_became_busy(scored):
    """40 of 1000 seconds: the first takes 35, so the rest is for the last; drawing that takes more is cut off."""
    quality, draw, clock, now = scored
    quality.plan(at_pace(clock, 10.0))
    planned = quality.count

    def slow(count, seconds):
        assert seconds == pytest.approx(40)
        now[0] += 35
        return draw(count)

    quality.measure(slow, clock)
    assert "again only at the end" in quality.measure(slow, clock)
    assert quality.spent == 35
    assert 10 <= quality.count < planned
    assert quality.count * quality.each <= 5
    assert not quality.due(clock)
    now[0] = 1000.0
    assert quality.due(clock), "the end"
    quality.measure(draw, clock)
    assert [row["pictures"] for row in quality.rows] == [planned, quality.count]

    spent = KidMonitor(quality.dataset, quality.settings)
    now[0] = 100.0
    spent.plan(at_pace(clock, 10.0))
    spent.spent, spent.last = 39.99, 30.0
    assert "its share of the time is spent" in spent.measure(slow, clock)
    assert not spent.due(clock)

    never = KidMonitor(quality.dataset, quality.settings)
    never.plan(at_pace(clock, 10.0))

    def busy(count, seconds):
        now[0] += 41
        return draw(count, seconds - 41)

    assert "longer than planned" in never.measure(busy, clock)
    assert not never.rows
    assert not never.due(clock)


def test_the_best_is_the_lowest_and_standing_still_is_told(scored, monkeypatch):
    quality, draw, clock, now = scored
    quality.plan(at_pace(clock, 10.0))
    found = []
    for mark, value in zip((100, 200, 400, 2500, 4700), (0.5, 0.3, 0.4, 0.32, 0.31), strict=True):
        now[0] = mark
        monkeypatch.setattr("unnoise.training.monitors.kid.kid", lambda *_, value=value: symmetric(value, 0.0004))
        found.append((quality.measure(draw, clock), quality.best))
    assert [best for _, best in found] == [True, True, False, False, False]
    assert [note is not None for note, _ in found] == [False, False, False, False, True]
    assert "has stayed within its interval for 36:40" in found[-1][0]


def test_kid_is_told_with_its_interval(scored):
    quality, _, clock, _ = scored
    model = build_model(Card("unet:widths=8,groups=4,head=4", "linear", "eps", (1, 8, 8), "L"))
    _, said = quality.run(model, at_pace(clock, 10.0), Stop()).messages
    (row,) = quality.rows
    value, low, high = (f"{1000 * number:.1f}" for number in (row["kid"], *row["kid_interval"]))
    assert float(low) < float(value) < float(high)
    assert said == f"KID       {value}, {low} to {high} (95 %; x 1000, {row['pictures']} images)"


def test_what_was_not_scored_is_never_the_best(scored, monkeypatch):
    """Drawing that a signal cut short, pictures that are no numbers, a full disk: no row, and nothing to keep."""
    quality, draw, clock, _ = scored
    quality.plan(at_pace(clock, 10.0))
    quality.measure(draw, clock)
    assert quality.best
    for made in (None, torch.full((4, 1, 8, 8), math.nan)):
        assert quality.measure(lambda *_, made=made: made, clock) is None
        assert not quality.best
    assert len(quality.rows) == 1

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unnoise.training.monitors.kid.kid", full)
    assert "No space left" in quality.measure(draw, clock)
    assert not quality.best
    assert not quality.due(clock)


def test_a_run_with_time_for_it_logs_kid_and_keeps_the_best(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("unnoise.training.monitors.kid.LEAST_DRAWN", 4)
    monkeypatch.setattr("unnoise.training.monitors.kid.KID_SHARE", 20.0)
    monkeypatch.setattr("unnoise.training.monitors.kid.MOST_DRAWN", 30)
    run = train_folder(gray, images="400", out=str(tmp_path / "run"), **TINY)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = [row for row in rows if "kid" in row]
    assert len(scores) == len(MARKS)
    assert [row["images"] for row in scores] == sorted(row["images"] for row in scores)
    best = load(run / "best.safetensors", "cpu").card.training["images"]
    assert best == min(scores, key=lambda row: row["kid"])["images"]
    assert "images at 10%, 20%" in capsys.readouterr().out


def test_classes_are_drawn_in_the_proportions_of_the_data(gray, monkeypatch):
    """And the plan says so."""
    labels = ["a"] * 19 + ["b"]
    np.savez("two.npz", images=np.load(gray), labels=np.array(labels))
    data, seen = open_data("two.npz"), []

    def note(model, seeds, how, labels, *_):
        seen.extend(labels.tolist())
        return iter([Step(torch.zeros(len(seeds), 1, 8, 8), None, None)])

    monkeypatch.setattr("unnoise.training.monitors.drawing.draw", note)
    monkeypatch.setattr("unnoise.training.monitors.kid.LEAST_DRAWN", 10)
    monkeypatch.setattr("unnoise.training.monitors.kid.extraction_seconds", lambda _: 0.0)
    card = Card("unet:widths=8,groups=4,head=4", "linear", "eps", (1, 8, 8), "L", classes=data.classes)
    clock = Clock(1000.0, None)
    clock.start()
    monkeypatch.setattr(Clock, "progress", 0.1)
    monkeypatch.setattr(Clock, "pace", 1000.0)
    monkeypatch.setattr(Clock, "left", 900.0)
    monitor = KidMonitor(data, Sampling("ddim", steps=2))
    outcome = monitor.run(build_model(card), clock, Stop())
    assert ", against training images, classes in the proportions of the data" in outcome.messages[0]
    assert abs(seen.count(1) - len(seen) / 20) <= 2
