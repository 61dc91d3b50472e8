"""A stopwatch decides neither weights nor images, and time that the budget does not count is said."""

import pytest
import torch

from tiny import TINY, train_folder
from unnoise import progress
from unnoise.cli import main
from unnoise.progress import Progress
from unnoise.samplers import precision
from unnoise.training import plan, train
from unnoise.training.state import read_state, take_apart

pytestmark = pytest.mark.usefixtures("unchecked")


def test_the_same_command_gives_the_same_weights_and_files_on_a_slow_machine(gray, tmp_path, monkeypatch):
    """Every measured time is a lie: a nanosecond, then a minute."""
    weights, images = [], []
    settings = {name: value for name, value in TINY.items() if name != "precision"}
    for seconds in (1e-9, 60.0):
        monkeypatch.setattr(plan.Rehearsal, "step", lambda *_, seconds=seconds: (seconds, seconds))
        monkeypatch.setattr(precision, "measure_seconds", lambda *_, seconds=seconds: seconds)
        run = train_folder(gray, images="24", out=str(tmp_path / f"run{seconds}"), **settings)
        assert main(["sample", str(run), "-n", "3", "--steps", "2", "--out", str(tmp_path / f"drawn{seconds}")]) == 0
        weights.append(take_apart(read_state(run)[0])[0])
        images.append([path.read_bytes() for path in sorted((tmp_path / f"drawn{seconds}").glob("0*.png"))])
    assert len(images[0]) == 3
    assert images[0] == images[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_time_before_the_budget_is_said_once(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "LINE_EVERY", 1e9)
    report = train.told_before_the_budget(Progress(lines=True))
    for done in range(0, 5001, 500):
        report("decoding", done, 5000)
        now[0] += 3.0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "5,000 images are made ready first, which takes about 0:30 and is not part of the budget" in said


def test_a_length_in_images_counts_no_time(gray, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "told_before_the_budget", None)
    train_folder(gray, images="8", out=str(tmp_path / "run"), **TINY)


def test_classes_that_are_not_used_are_not_listed(tmp_path, capsys):
    for classes in (False, True):
        out = str(tmp_path / f"run{classes}")
        train_folder("faces:count=40", size="16", images="8", classes=classes, out=out, **TINY)
        said = capsys.readouterr().out
        assert ("found classes: " in said) is classes
        assert ("classes are not used; --classes learns them" in said) is not classes
