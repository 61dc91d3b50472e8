"""Grids that are drawn while a model trains."""

import math

import torch

from unnoise.training.clock import Clock
from unnoise.training.monitors.drawing import affordable
from unnoise.training.monitors.previews import PreviewMonitor, plain_faults


def test_previews_keep_to_their_share(tmp_path):
    previews = PreviewMonitor(tmp_path, "L", usual=0.0)
    clock = Clock(600.0, None)
    clock.start()
    clock.started -= 30
    clock.seen = 4500
    assert not previews.due(clock)
    clock.started -= 15
    assert previews.due(clock)
    clock.seen = 0
    assert not previews.due(clock)  # before the pace is known
    clock.seen = 4500
    previews.budget.spent = previews.budget.last = 10.0  # two of them in 60 s would be far more than 5 %
    clock.started -= 60
    assert not previews.due(clock)


def test_previews_name_what_is_wrong():
    assert "not finite" in plain_faults(torch.full((1, 1, 8, 8), math.nan))[0]
    assert "one colour" in plain_faults(torch.zeros(1, 1, 8, 8))[0]
    assert "ends of its range" in plain_faults(torch.ones(2, 1, 8, 8).copysign(torch.randn(2, 1, 8, 8)))[0]
    assert not plain_faults(torch.rand(4, 3, 8, 8) * 1.8 - 0.9)
    assert not plain_faults(
        torch.ones(2, 1, 8, 8).copysign(torch.randn(2, 1, 8, 8)), usual=0.95
    )  # the data is line art


def test_a_slow_network_shows_fewer_images():
    assert affordable(6750.0, 10) == 64
    assert affordable(115.0, 10) == 9  # 2.25 seconds of the notebook's network on two cores
    assert affordable(6.75, 10) == 1
