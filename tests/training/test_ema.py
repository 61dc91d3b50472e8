"""The average of the weights."""

import math

import pytest
import torch
from torch import nn

from tiny import TINY, train_folder
from unnoise import registry
from unnoise.checkpoint import load
from unnoise.training.ema import EMA


def test_ema_follows_its_half_life():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, halflife=100, ramp=math.inf)
    nn.init.ones_(network.weight)
    for _ in range(10):
        ema.update(10, seen=1000)
    assert ema.network.weight.item() == pytest.approx(0.5)  # 100 images are one half-life


def test_ema_warms_up():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, halflife=1e9, ramp=0.1)
    nn.init.ones_(network.weight)
    ema.update(10, seen=100)
    assert ema.network.weight.item() == pytest.approx(0.5)  # the half-life is 10 so far


def test_ema_of_zero_is_the_network_itself():
    network = nn.Linear(1, 1)
    assert EMA(network, 0.0).network is network


def test_the_schedule_is_no_part_of_the_weights_and_survives_averaging(gray, tmp_path):
    """A schedule among the averaged tensors gives black images (denoising-diffusion-pytorch, issue 136)."""
    run = load(train_folder(gray, images="200", out=str(tmp_path / "run"), **TINY))
    assert not list(run.model.buffers())
    fresh = registry.schedule.get(run.card.schedule)()
    torch.testing.assert_close(run.model.schedule.alpha, fresh.alpha, rtol=0, atol=0)


def test_ema_counts_images_by_itself():
    """As in a loop of your own; the same average as with the count given."""
    averages = []
    for given in (None, 0):
        network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(network.weight)
        ema, seen = EMA(network, halflife=100), given
        nn.init.ones_(network.weight)
        for _ in range(10):
            seen = None if given is None else seen + 10
            ema.update(10, seen)
        averages.append(ema.network.weight.item())
    assert averages[0] == averages[1] > 0
