"""Trackers get the rows of the log."""

import json
from typing import ClassVar

import numpy as np
import pytest

from tiny import TINY, train_folder
from unnoise.errors import InputError
from unnoise.training import tracker


class Told:
    """A tracker that writes down what it is told."""

    requires_logging_directory = True
    rows: ClassVar[list] = []
    trouble: ClassVar[int] = 10**9

    def __init__(self, project, folder):
        assert project == "unnoise"
        assert (folder / "state.safetensors").exists()  # there is a run to be told of

    def start(self):
        self.rows.clear()

    def store_init_configuration(self, settings):
        assert settings["batch"] == "8"

    def log(self, numbers, step):
        if len(self.rows) >= self.trouble:
            raise OSError(28, "No space left on device")
        self.rows.append((step, numbers))

    def finish(self):
        self.rows.append("finished")


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(tracker, "tracker_class", lambda _: Told)
    monkeypatch.setattr(tracker, "available_trackers", lambda: ["tensorboard"])
    return Told


def test_a_tracker_is_told_what_the_log_is(gray, tmp_path, told):
    run = train_folder(gray, epochs=2, out=str(tmp_path / "run"), tracker="tensorboard", **TINY)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    *told_rows, end = told.rows
    assert end == "finished"
    assert [step for step, _ in told_rows] == [row["images"] for row in rows]
    for (_, numbers), row in zip(told_rows, rows, strict=True):
        wanted = {"epoch_loss" if name == "loss" and "epoch" in row else name: value for name, value in row.items()}
        wanted = {name: np.mean(value) for name, value in wanted.items() if name != "images"}
        assert numbers == pytest.approx(wanted)
    assert {"loss", "held_out", "epoch_loss", "training_seconds"} <= {name for _, row in told_rows for name in row}


def test_trouble_of_a_tracker_ends_no_training(gray, tmp_path, told, monkeypatch, capsys):
    monkeypatch.setattr(told, "trouble", 1)
    run = train_folder(gray, epochs=2, out=str(tmp_path / "run"), tracker="tensorboard", **TINY)
    assert len(told.rows) == 1
    assert "training_seconds" in (run / "metrics.jsonl").read_text()
    assert capsys.readouterr().out.count("tensorboard gets no more rows") == 1


def test_rows_that_are_taken_back_are_not_told_again(told):
    elsewhere = tracker.Tracker.__new__(tracker.Tracker)
    elsewhere.name, elsewhere.say, elsewhere.seen, elsewhere.tracker = "tensorboard", print, 0, told.__new__(told)
    told.rows.clear()
    for seen in (8, 16, 8, 16, 24):
        elsewhere.log({"images": seen, "loss": 1.0})
    assert [step for step, _ in told.rows] == [8, 16, 16, 24]


def test_tensorboard_can_read_what_it_is_told(gray, tmp_path):
    run = train_folder(gray, images="24", out=str(tmp_path / "run"), tracker="tensorboard", **TINY)
    assert [*(run / "unnoise").glob("*tfevents*")]


@pytest.mark.parametrize(
    ("name", "said"), [("tensorbord", "did you mean 'tensorboard'"), ("wandb", "pip install wandb")]
)
def test_trackers_that_are_not_there_are_refused(name, said, told):
    with pytest.raises(InputError, match=said):
        train_folder("faces", tracker=name)
