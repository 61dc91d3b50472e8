"""Grids, blocks, haze and grain have exact numbers on images whose spectrum is known."""

import pytest
import torch

from tiny import smooth
from unnoise.evaluation import spectrum
from unnoise.evaluation.colours import gray_shift, moments, spread_ratio
from unnoise.evaluation.orientation import best_name, thumbnails, turn_distances
from unnoise.evaluation.spectrum import (
    grid_numbers,
    grid_power,
    high_power,
    make_blocks,
    power,
    ring_power,
    seam_power,
    seams,
)


def board(steps, side=16):
    place = torch.arange(side)
    return steps * (1 - 2 * ((place[:, None] + place[None]) % 2))


@pytest.fixture(scope="module")
def images():
    pixels = torch.from_numpy(smooth(64, 16, 0)).permute(0, 3, 1, 2).float()
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    return (64 + pixels / 2 + 4 * noise).round().clamp(0, 255).byte()


def mean(statistic, pixels):
    return statistic(pixels).mean(dim=0)


def test_a_checkerboard_has_its_power_at_one_point():
    found = power((128 + board(10)).byte()[None, None])[0]
    assert found[8, 8] == pytest.approx(16 * 16 * 10**2)
    assert found.sum() == pytest.approx(float(found[8, 8]))


def test_the_grid_number_of_a_checkerboard_is_the_power_that_it_adds(images):
    real = mean(grid_power, images)
    gridded = (images + board(6)).clamp(0, 255).byte()
    added = (real[2] + 16 * 16 * 6**2) / real[2]
    assert float(grid_numbers(mean(grid_power, gridded), real)[2]) == pytest.approx(float(added), rel=0.2)
    assert grid_numbers(real, real).tolist() == pytest.approx([1, 1, 1])


def test_white_noise_has_equal_power_in_all_rings():
    noise = torch.randn(400, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = mean(ring_power, (128 + 20 * noise).round().clamp(0, 255).byte())[: spectrum.BANDS]
    assert found.tolist() == pytest.approx([400.0] * spectrum.BANDS, rel=0.1)


def test_contrast_is_neither_haze_nor_grain_nor_brightness(images):
    faded = (128 + (images.double() - 128) / 2).round().byte()
    ours, theirs = mean(moments, faded), mean(moments, images)
    assert spread_ratio(ours, theirs, 0) == pytest.approx(0.5, abs=0.01)
    assert high_power(mean(ring_power, faded), mean(ring_power, images)) == pytest.approx(1, abs=0.05)
    assert gray_shift(mean(moments, (images + 5).byte()), theirs) == pytest.approx(5 / 2.55)


@pytest.mark.parametrize("period", [2, 4, 8])
def test_blocks_are_found_with_their_period_and_phase(images, period):
    phases = (period - 1, period // 2 - 1)
    number, found = seams(mean(seam_power, make_blocks(images, period, phases, 0.6)), mean(seam_power, images), period)
    assert number > 2
    assert found == phases
    assert seams(mean(seam_power, images), mean(seam_power, images), period)[0] == pytest.approx(1)


def test_a_turn_is_named():
    images = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    images[:, :, :5, :8] = 200
    for name in ("upside down", "mirrored", "turned by 90 degrees to the left"):
        turned = {"upside down": images.flip(-2), "mirrored": images.flip(-1)}.get(name, images.rot90(1, (-2, -1)))
        assert best_name(turn_distances(mean(thumbnails, turned), mean(thumbnails, images))) == name
