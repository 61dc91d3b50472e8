"""Targets are what their papers say, and give the image and the noise back."""

import math
from itertools import product

import pytest
import torch

from process_helpers import PAIRS, SCHEDULES, TARGETS, close, f64, images, schedule
from unnoise import registry
from unnoise.diffusion.process import q_sample
from unnoise.diffusion.target import check_target, decode, encode
from unnoise.errors import InputError

REFUSED = sorted({*product(SCHEDULES, TARGETS)} - {*PAIRS})


def test_eps_is_refused_with_a_schedule_that_ends_in_pure_noise():
    assert REFUSED == [("flow", "eps"), ("zero_snr", "eps")]


@pytest.mark.parametrize(("spec", "name"), REFUSED)
def test_a_pair_from_which_no_image_follows_is_refused(spec, name):
    with pytest.raises(InputError, match="choose the target v"):
        check_target(registry.target.get(name), schedule(spec))


@pytest.mark.parametrize(("spec", "name"), PAIRS)
def test_every_other_pair_is_allowed(spec, name):
    """The rule holds for every pair of a schedule and a target, also for new ones."""
    assert check_target(registry.target.get(name), schedule(spec)) is None


@pytest.mark.parametrize(("spec", "name"), PAIRS)
@pytest.mark.parametrize("time", [0, 1, 500.5, 999, [0, 300, 999]], ids=str)
def test_target_round_trip(spec, name, time):
    """The image and the noise come back from the output of the network; also for new targets."""
    table, target = schedule(spec), registry.target.get(name)
    level = table.level(torch.tensor(time, dtype=f64) * ((table.T - 1) / 999))
    x0, eps = images(3, 2, 4, 4), images(3, 2, 4, 4)
    x_t = q_sample(x0, eps, level)
    clean, noise = decode(encode(x0, eps, level, target), x_t, level, target)
    close(clean, x0, 1e-9)
    close(noise, eps, 1e-9)


def test_targets_are_what_their_papers_say():
    level, x0, eps = schedule("cosine").level(torch.tensor([10, 900])), images(2, 1, 3, 3), images(2, 1, 3, 3)

    def encoded(name):
        return encode(x0, eps, level, registry.target.get(name))

    close(encoded("eps"), eps, 0)
    close(encoded("x0"), x0, 0)
    close(encoded("v"), level.alpha * eps - level.sigma * x0, 1e-15)
    close(encoded("flow"), eps - x0, 1e-15)
    close(encoded("v:std=0"), -x0, 1e-15)
    on_a_line = schedule("flow").level(torch.tensor([10, 900]))
    plain = on_a_line.alpha * eps - on_a_line.sigma * x0
    close(encode(x0, eps, on_a_line, registry.target.get("v")), plain, 1e-15)


@pytest.mark.parametrize("std", [-1.0, math.nan, 1e200])
def test_a_deviation_that_is_none(std):
    with pytest.raises(InputError, match=r"std is (0 to 100|a finite number)"):
        registry.target.get(f"v:std={std}")(schedule("cosine").level(0))


@pytest.mark.parametrize("std", [0.1, 0.5, 1.0])
def test_v_is_what_edm_leaves_to_its_network(std):
    """Karras et al. 2022, eq. 7 and table 1, on x_t / alpha = x0 + ratio * eps; but of unit length, and negative."""
    level, x0, eps = schedule("cosine").level(torch.tensor([3, 400, 990])), images(3, 1, 3, 3), images(3, 1, 3, 3)
    ratio = level.ratio
    kept, scale = std**2 / (ratio**2 + std**2), ratio * std / (ratio**2 + std**2).sqrt()
    wanted = (x0 - kept * (x0 + ratio * eps)) / scale
    length = ((1 - kept).square() + (kept * ratio).square()).sqrt() / scale
    close(encode(x0, eps, level, registry.target.get(f"v:std={std}")), -wanted / length, 1e-12)
