"""Every fault of the table is planted as strongly as it is found, and images without it have its clean number."""

import pytest
import torch

from tiny import smooth
from unnoise.evaluation.damage import blur, jpeg, noise
from unnoise.evaluation.faults import FAULTS
from unnoise.evaluation.spectrum import make_blocks

CLEAN = {"brightness": 0, "tint": 0}  # the number of equal sets; of the other faults it is 1


@pytest.fixture(scope="module")
def images():
    """Return 48 images of colour with some noise: upper halves are darker, and there is more red than blue."""
    pixels = torch.from_numpy(smooth(48, 32, 0)).permute(0, 3, 1, 2).float() / 2 + 64
    pixels += 5 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    pixels += torch.linspace(-30, 30, 32)[:, None] + torch.tensor([25, 10, -25])[:, None, None]
    pixels[..., :8] += 20
    return pixels.round().clamp(0, 255).byte()


def shifted(pixels, steps):
    return (pixels + torch.as_tensor(steps).double()).round().clamp(0, 255).byte()


def grid(pixels):
    place = torch.arange(32)
    return shifted(pixels, 8 * (1 - 2 * ((place[:, None] + place[None]) % 2)))


PLANTED = {
    "grid": grid,
    "jpeg": lambda x: jpeg(x, 15),
    "blocks 2": lambda x: make_blocks(x, 2, (1, 0), 0.6),
    "blocks 4": lambda x: make_blocks(x, 4, (2, 3), 0.6),
    "blocks 8": lambda x: make_blocks(x, 8, (5, 0), 0.6),
    "haze": lambda x: blur(x, 0.6),
    "grain": lambda x: noise(x, 0.05),
    "brightness": lambda x: shifted(x, -20),
    "tint": lambda x: shifted(x, [[[20.0]], [[-10]], [[-10]]]),
    "contrast": lambda x: shifted(0.6 * x.double(), 51),
    "colourfulness": lambda x: x.double().mean(1, keepdim=True).lerp(x.double(), 0.5).round().byte(),
    "orientation": lambda x: x.rot90(1, (-2, -1)).contiguous(),
    "channels": lambda x: x[:, [2, 0, 1]],
}


def test_every_fault_is_tested():
    assert PLANTED.keys() == FAULTS.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_planted_as_strongly_as_it_is_found(images, name):
    fault, made = FAULTS[name], PLANTED[name](images)
    drawn, real = (fault.statistic(some).mean(dim=0) for some in (made, images))
    number, clean = fault.number(drawn, real), CLEAN.get(name, 1)
    assert fault.number(real, real) == pytest.approx(clean if fault.span else 0)
    assert (number - clean) * (fault.side or number - clean) > 0.1, "it is found, to its own side"
    planted = fault.plant(images, drawn, real)
    if fault.span is None:
        assert torch.equal(planted, made)
    else:
        found = fault.number(fault.statistic(planted).mean(dim=0), real)
        assert found == pytest.approx(number, rel=0.05)
        assert (planted.int() - made.int()).abs().double().mean() < (images.int() - made.int()).abs().double().mean()


@pytest.mark.parametrize("name", ["blocks 8", "brightness", "contrast"])
def test_images_without_the_fault_stay(images, name):
    """The search ends at the strength that changes nothing."""
    fault = FAULTS[name]
    real = fault.statistic(images).mean(dim=0)
    assert (fault.plant(images, real, real).int() - images.int()).abs().max() <= 1
