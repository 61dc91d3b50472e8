"""What is said of a training before it starts."""

import time
from contextlib import nullcontext
from datetime import datetime
from functools import partial

import pytest
import torch
from torch import nn

from unnoise import registry
from unnoise.training.length import Clock
from unnoise.training.plan import OVERHEAD, ROOM, Plan, rehearse

ADAMW = partial(registry.optimizer.get("adamw"), lr=1e-3, weight_decay=0.0)


class Slow(nn.Module):
    """A millisecond an image, and dropout, which draws random numbers."""

    def __init__(self):
        super().__init__()
        self.layer, self.dropout, self.sizes = nn.Conv2d(1, 1, 1), nn.Dropout(), []

    def forward(self, x, time_, label=None):
        time.sleep(0.001 * len(x))
        self.sizes.append(len(x))
        return self.dropout(self.layer(x))

    def __deepcopy__(self, memo):
        other = Slow()
        other.load_state_dict(self.state_dict())
        other.sizes = self.sizes  # so that the test sees them
        return other


def test_the_pace_is_that_of_full_batches():
    network = Slow()
    plan = rehearse(network, ADAMW, (1, 4, 4), 64, nullcontext)
    assert max(network.sizes) == 64
    assert 0.5 * 1000 < plan.images_per_second < (1 - OVERHEAD) * 1000


def test_large_batches_are_told_from_small_ones(monkeypatch):
    """10 MB an image at once: 100 MB before, and so 1000 + 90 for a batch of 100."""
    network, peaks = Slow(), iter([180, 260])
    monkeypatch.setattr("unnoise.training.plan.SECONDS", 0.01)
    monkeypatch.setattr("unnoise.training.plan.peak_memory", lambda: next(peaks) * 2**20)
    plan = rehearse(network, ADAMW, (1, 4, 4), 100, nullcontext)
    assert max(network.sizes) == 16
    assert 0.5 * 1000 < plan.images_per_second < 1000
    assert plan.peak_bytes == (100 + 10 * 100) * 2**20 + ROOM


def test_a_rehearsal_leaves_no_trace():
    network = Slow()
    weights, random = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    rehearse(network, ADAMW, (1, 4, 4), 8, nullcontext)
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (Clock(600.0, None), "30,000 images, each 3.0 times, in 10:00, done at 12:10"),
        (Clock(None, 3000.0), "3,000 images, each 0.3 times, in 1:00, done at 12:01"),
    ],
)
def test_a_plan_in_words(clock, words):
    text = Plan(50.0, 700 * 2**20).told(clock, 10_000, datetime(2026, 1, 1, 12, 0))  # noqa: DTZ001
    assert words in text
    assert "about 50 images/s" in text
    assert "memory up to about 700 MB" in text
    assert "memory" not in Plan(50.0, 0).told(clock, 10_000, datetime(2026, 1, 1, 12, 0))  # noqa: DTZ001
