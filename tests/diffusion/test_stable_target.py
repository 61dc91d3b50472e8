"""The mean of the references is the ideal denoiser, and a squared error teaches the same from it, with less noise."""

import pytest
import torch
from torch.testing import assert_close

from process_helpers import images, schedule
from unnoise import registry
from unnoise.diffusion.ideal import ideal
from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.stable_target import ABOVE, StableTarget

SHAPE = (3, 4, 4)


def at(*times):
    t, s = (schedule("cosine").level(torch.tensor(times) - i) for i in range(2))
    return t, s


def noised(x0, *times, label=None):
    return add_noise(x0, images(len(x0), *SHAPE).to(x0), at(*times), label)


@pytest.mark.usefixtures("float64")
def test_the_mean_over_the_whole_set_is_the_ideal_guess():
    points = 0.4 * images(12, *SHAPE).double()
    batch = noised(points[:4], 720, 800, 900, 999)
    stable = StableTarget(points)(batch, torch.arange(4))
    for i, time in enumerate((720, 800, 900, 999)):
        expected = ideal(points)(batch.x_t[i : i + 1], schedule("cosine").level(time)).x0
        assert_close(stable.mean[i : i + 1], expected)
    weights = torch.linalg.lstsq(points.flatten(1).T, stable.mean.flatten(1).T).solution
    assert (weights.amax(dim=0) < 0.95).any()  # not one of the points alone


@pytest.mark.usefixtures("float64")
def test_an_image_that_is_no_reference_is_one_of_its_own():
    points = 0.4 * images(12, *SHAPE).double()
    batch = noised(points[:2], 800, 900)
    for place in (None, torch.tensor([-1, -1])):
        stable = StableTarget(points[2:])(batch, place)
        for i, time in enumerate((800, 900)):
            known = torch.cat([points[i : i + 1], points[2:]])
            expected = ideal(known)(batch.x_t[i : i + 1], schedule("cosine").level(time)).x0
            assert_close(stable.mean[i : i + 1], expected)


def test_below_the_ratio_the_target_is_the_image():
    points = images(12, *SHAPE)
    batch = noised(points[:4], 1, 300, 480, 720)
    low = batch.t.ratio.flatten() <= ABOVE
    assert 0 < low.sum() < 4
    stable = StableTarget(points)(batch)
    assert torch.equal(stable.mean[low], batch.x0[low])
    assert not torch.isclose(stable.mean[~low], batch.x0[~low]).all()
    assert torch.equal(stable.x0, batch.x0)
    clean = noised(points[:2], 1, 300)
    assert StableTarget(points)(clean) is clean


@pytest.mark.usefixtures("float64")
def test_references_have_the_class_of_the_image():
    points, labels = 0.4 * images(12, *SHAPE).double(), torch.arange(12) % 3
    batch = noised(points[:3], 900, 900, 900, label=torch.tensor([0, 1, -1]))
    stable = StableTarget(points, labels)(batch, torch.arange(3))
    for i, known in enumerate((points[labels == 0], points[labels == 1], points)):
        assert_close(stable.mean[i : i + 1], ideal(known)(batch.x_t[i : i + 1], schedule("cosine").level(900)).x0)


def test_images_that_lost_their_class_are_no_images_that_never_had_one():
    """They are not equally likely where there are both, so the image is its own target."""
    points, labels = images(6, *SHAPE), torch.tensor([0, 0, 1, 1, -1, -1])
    batch = noised(points[3:5], 900, 900, label=torch.tensor([1, -1]))
    stable = StableTarget(points, labels)(batch, torch.tensor([3, 4]))
    assert not torch.isclose(stable.mean[0], batch.x0[0]).all()
    assert torch.equal(stable.mean[1], batch.x0[1])


def test_pure_noise_comes_from_any_image_alike():
    points, one = images(5, *SHAPE), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    level = Level(torch.tensor([999.0], dtype=torch.float64), 0 * one, one)
    batch = add_noise(points[:1], images(1, *SHAPE), (level, level))
    assert_close(StableTarget(points)(batch, torch.tensor([0])).mean[0], points.mean(dim=0))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("target", registry.target.names())
@pytest.mark.parametrize(
    "objective",
    ["simple", "weighted", "capped_v", "capped_v:white=0.5", "min_snr", "min_snr_gamma", "soft_min_snr", "p2"],
)
def test_a_squared_error_teaches_the_same_from_the_mean(objective, target):
    """The gradient from the mean is the mean of the gradients from each image, by how likely it is given x_t."""
    points = 0.4 * images(3, *SHAPE).double()
    batch = noised(points[:1], 760)
    level, table = batch.t, schedule("cosine")
    apart = (batch.x_t - level.alpha * points).square().sum(dim=(1, 2, 3))
    likely = (-apart / (2 * level.sigma.square().flatten())).softmax(dim=0)
    assert likely.max() < 0.99
    model = Diffusion(Learned(), table, registry.target.get(target), SHAPE)

    def gradient(given):
        (found,) = torch.autograd.grad(registry.objective.get(objective)(model, given).sum(), [model.backbone.output])
        return found

    eps = [(batch.x_t - level.alpha * x0) / level.sigma for x0 in points]
    each = [gradient(batch._replace(x0=x0[None], eps=noise)) for x0, noise in zip(points, eps, strict=True)]
    expected = sum(p * one for p, one in zip(likely, each, strict=True))
    assert_close(gradient(StableTarget(points)(batch, torch.tensor([0]))), expected)
    assert not torch.isclose(each[0], expected).all()


class Learned(torch.nn.Module):
    """A network whose output is a parameter."""

    def __init__(self):
        super().__init__()
        self.output = torch.nn.Parameter(0.1 * images(1, *SHAPE).double())

    def forward(self, x, time, label=None):
        return self.output
