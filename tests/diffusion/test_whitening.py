"""The whitening of an error: closed forms of its weights, and what it leaves as it is."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unnoise import registry
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.whitening import whiten
from unnoise.errors import InputError

pytestmark = pytest.mark.usefixtures("float64")


def wave(rows, columns, size=16):
    """Return an image of one frequency."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.cos(2 * math.pi * (rows * y + columns * x) / size)[None, None]


def gain(image, share):
    return float(whiten(image, share).square().sum() / image.square().sum())


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (0, 3), (2, 2), (-2, 1), (8, 0), (0, 8), (8, 8)])
def test_the_power_of_a_wave_is_weighted_by_its_frequency_and_the_grid(share, rows, columns):
    relative = gain(wave(rows, columns), share) / gain(wave(0, 0), share)
    (a, b), (c, d) = ([wave(math.pi * k / 16) ** 32 for k in (rows, columns)] for wave in (math.sin, math.cos))
    grid = a * b + a * d + c * b
    assert grid == pytest.approx(float(8 in (rows, columns)), abs=0.01)
    assert relative == pytest.approx((1 + 6 * grid) * (1 + math.hypot(rows, columns)) ** (2 * share))


@pytest.mark.parametrize("size", [(16, 16), (15, 22)])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_an_error_with_the_spectrum_of_natural_images_keeps_its_power(size, share):
    rows, columns = (min(size) * torch.fft.fftfreq(n) for n in size)
    spectrum = (1 + torch.hypot(rows[:, None], columns)) ** -1
    phases = torch.fft.fft2(torch.randn(1, 3, *size))
    image = torch.fft.ifft2(phases / phases.abs() * spectrum).real
    assert gain(image, share) == pytest.approx(1)


def test_a_share_of_zero_changes_nothing():
    image = torch.randn(2, 3, 8, 8)
    assert whiten(image, 0.0) is image


def test_an_error_in_low_precision_is_weighed_in_float32():
    image = torch.randn(2, 3, 8, 8).bfloat16()
    assert_close(whiten(image, 0.5), whiten(image.float(), 0.5), rtol=0, atol=0)


class Fixed(nn.Module):
    """A network that returns one image for all."""

    def __init__(self, output):
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x, time, label):
        return self.output.expand(len(x), -1, -1, -1)


def test_the_best_prediction_is_still_the_mean():
    """The gradient at the mean of the images is zero with any whitening, as it is for the plain squared error."""
    table, images = registry.schedule.get("cosine")(), torch.randn(5, 1, 8, 8)
    levels = (table.level(torch.tensor([300] * 5)), table.level(torch.tensor([299] * 5)))
    model = Diffusion(Fixed(images.mean(dim=0)), table, registry.target.get("x0"), (1, 8, 8))
    loss = registry.objective.get("capped_v:white=0.7")(model, add_noise(images, torch.randn_like(images), levels))
    loss.mean().backward()
    assert loss.min() > 0
    assert model.backbone.output.grad.abs().max() < 1e-12


def test_in_much_noise_the_error_is_not_whitened():
    table, images = registry.schedule.get("cosine")(), torch.randn(2, 1, 8, 8)
    levels = tuple(table.level(torch.tensor([300, 800]) - i) for i in range(2))
    model = Diffusion(Fixed(torch.randn(1, 8, 8)), table, registry.target.get("x0"), (1, 8, 8))
    batch = add_noise(images, torch.randn_like(images), levels)
    white, plain = (registry.objective.get(f"capped_v:white={share}")(model, batch) for share in (0.7, 0))
    assert white[0] != plain[0]
    assert white[1] == plain[1]


@pytest.mark.parametrize("share", ["-0.1", "1.1"])
def test_the_share_is_from_0_to_1(share):
    table, image = registry.schedule.get("cosine")(), torch.zeros(1, 1, 8, 8)
    model = Diffusion(Fixed(image[0]), table, registry.target.get("x0"), (1, 8, 8))
    batch = add_noise(image, image, (table.level(torch.tensor([5])), table.level(torch.tensor([4]))))
    with pytest.raises(InputError, match="white is 0 to 1"):
        registry.objective.get(f"capped_v:white={share}")(model, batch)
