"""The loop stops when numbers are not finite."""

import math
from pathlib import Path

import pytest
import torch

from tiny import TINY, At, train_folder
from unnoise.checkpoint import load
from unnoise.diffusion.objective import simple
from unnoise.errors import InputError
from unnoise.training.clock import Clock
from unnoise.training.log import Log


def never_finite(model, batch):
    return math.nan * simple(model, batch)


def test_training_that_never_is_finite_stops_with_a_diagnosis(gray, tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.training.loop.PATIENCE", 5)
    with pytest.raises(InputError, match=r"not finite.*--lr"):
        train_folder(gray, images="2k", out=tmp_path / "run", objective=never_finite, **TINY)


def test_a_monitor_that_memory_is_not_enough_for_is_a_warning(gray, tmp_path, capsys):
    def too_large(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    run = train_folder(gray, images="24", out=tmp_path / "run", monitors=[At(2, too_large)], **TINY)
    assert "warning: at: CUDA out of memory" in capsys.readouterr().out
    assert load(run).card.training["images"] >= 24

    def broken(_):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train_folder(gray, images="24", out=tmp_path / "other", monitors=[At(2, broken)], **TINY)


def test_plots_in_between_have_a_share_of_the_time(monkeypatch):
    """After the first one, each waits until those before are a hundredth of the training."""
    now, plotted, log = [0.0], [], Log(None)
    monkeypatch.setattr("unnoise.training.log.PLOT_SHARE", 0.01)
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def plot(_, path):
        now[0] += 1.0
        plotted.append(path.name)

    monkeypatch.setattr(Log, "plot", plot)
    for elapsed in (10.0, 50.0, 100.0, 150.0, 200.0):
        log.plot_in_between(Path(f"{elapsed:g}"), Clock(1000.0, None, before=elapsed))
    assert plotted == ["10", "100", "200"]
