"""Transforms of images: what they do, that networks are conditioned on them, and that samples show none."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, nn

import unnoise
from tiny import TINY
from unnoise import registry
from unnoise.config import TrainConfig
from unnoise.data.cache import open_data
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import noised
from unnoise.diffusion.stable_target import StableTarget
from unnoise.diffusion.times import Uniform
from unnoise.errors import InputError
from unnoise.training import loop
from unnoise.training.augmentation import (
    NUMBERS,
    SCALE,
    SHIFT,
    UNTIL,
    draw_transforms,
    transform_images,
    with_transforms,
)
from unnoise.training.batches import prepare, read_batch

NAMES = "mirrored", "flipped", "size", "cos", "sin", "along", "across", "right", "down"


def told(n=1, **numbers):
    """Return the numbers of the same transform for n images."""
    transform = torch.zeros(n, NUMBERS)
    for name, number in numbers.items():
        transform[:, NAMES.index(name)] = number
    return transform


def turned(degrees):
    angle = math.radians(degrees)
    return told(cos=math.cos(angle) - 1, sin=math.sin(angle))


def blob(height, width, deviations=(4.0, 4.0)):
    """Return a white spot on black with these standard deviations along y and x."""
    y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    spot = torch.exp(-((y / deviations[0]) ** 2)[:, None] / 2 - ((x / deviations[1]) ** 2)[None] / 2)
    return 2 * spot[None, None] - 1


def moments(image):
    """Return the mean and the covariance of a spot, in pixels along (x, y)."""
    light = ((image[0, 0].double() + 1) / 2).clamp(min=0)
    height, width = light.shape
    middle = [(torch.arange(side) - (side - 1) / 2).double() for side in (height, width)]
    y, x = torch.meshgrid(*middle, indexing="ij")
    places, weights = torch.stack([x.flatten(), y.flatten()]), light.flatten() / light.sum()
    return places @ weights, torch.cov(places, aweights=weights, correction=0)


def test_zeros_change_nothing_and_flips_are_exact_mirrors():
    x = torch.rand(3, 3, 8, 12) * 2 - 1
    assert transform_images(x, told(3)) is x
    one = told(3)
    one[1] = told(mirrored=1)
    moved = transform_images(x, one)
    assert torch.equal(moved[[0, 2]], x[[0, 2]])
    torch.testing.assert_close(moved[1], x[1].flip(2), atol=2e-5, rtol=0)
    torch.testing.assert_close(transform_images(x, told(3, flipped=1)), x.flip(2), atol=2e-5, rtol=0)


def test_a_quarter_turn_is_that_of_rot90():
    x = torch.rand(1, 3, 9, 9) * 2 - 1
    torch.testing.assert_close(transform_images(x, turned(90)), x.rot90(-1, (2, 3)), atol=2e-5, rtol=0)


def test_a_shift_moves_by_a_share_of_the_image_and_mirrors_at_the_edge():
    x = torch.rand(1, 1, 16, 32) * 2 - 1
    moved = transform_images(x, told(right=1, down=-1))  # 4 of 32 pixels to the right, 2 of 16 up
    torch.testing.assert_close(moved[..., :14, 4:], x[..., 2:, :28], atol=2e-5, rtol=0)
    torch.testing.assert_close(moved[..., :14, :4], x[..., 2:, :4].flip(3), atol=2e-5, rtol=0)
    assert SHIFT == 1 / 8


@pytest.mark.parametrize(("along", "across"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.5)])
def test_size_and_stretch_are_the_exponential_of_their_matrix(along, across):
    size, (_, before) = 0.7, moments(blob(64, 96))
    after = moments(transform_images(blob(64, 96), told(size=size, along=along, across=across)))[1]
    matrix = torch.tensor([[size + along, across], [across, size - along]], dtype=torch.float64)
    grown = torch.matrix_exp(SCALE * math.log(2) * matrix)
    torch.testing.assert_close(after, grown @ before @ grown.T, atol=0.3, rtol=0.01)
    area = (after.det() / before.det()).sqrt()
    assert area == pytest.approx(2 ** (2 * SCALE * size), rel=0.01), "a stretch keeps the area"


def test_a_turn_keeps_shapes_in_an_image_that_is_not_square():
    x = blob(48, 96, (3.0, 6.0))
    _, before = moments(x)
    mean, after = moments(transform_images(x, turned(90))[..., 24:72])  # beside it the mirrored spot comes in
    torch.testing.assert_close(after, before.flip(0, 1), atol=0.2, rtol=0.01)
    torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64), atol=0.02, rtol=0)


def test_each_kind_is_drawn_with_its_probability_and_is_the_same_for_the_same_seed():
    draw = partial(draw_transforms, 20_000, 0.2)
    found = draw(Generator().manual_seed(0))
    assert torch.equal(found, draw(Generator().manual_seed(0)))
    shares = (found != 0).float().mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.1, *[0.2] * 7]), atol=0.01, rtol=0)
    deviations = found.std(0) / 0.2**0.5
    torch.testing.assert_close(deviations[[2, 7, 8]], torch.ones(3), atol=0.05, rtol=0)
    assert not draw_transforms(100, 0.0, Generator()).any()


@pytest.mark.parametrize("name", ["unet:widths=8-16,layers=1", "dit:width=32,depth=1,heads=2"])
def test_a_network_is_told_and_starts_as_if_it_were_not(name):
    spec = with_transforms(name)
    assert spec == with_transforms(spec) == f"{name},transforms={NUMBERS}"
    network = registry.backbone.get(spec)(3)
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    x, time = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 500.0])
    plain = network(x, time)
    assert torch.equal(network(x, time, None, told(2)), plain)
    assert not torch.allclose(network(x, time, None, told(2, mirrored=1)), plain)
    nn.init.zeros_(network.transform.weight)
    assert torch.equal(network(x, time, None, told(2, mirrored=1)), plain)
    assert not registry.backbone.get(spec)(3).transform.weight.any()


class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x, time, label=None):
        return self.conv(x)


def test_a_network_that_cannot_be_told_is_refused():
    with pytest.raises(InputError, match="Own has no option transforms; use unet or dit, or --augment 0"):
        with_transforms(Own)


def test_a_network_that_forgets_what_it_is_told_is_refused(gray):
    """A norm with one channel in each group removes all that the embedding adds."""
    with pytest.raises(InputError, match="ignores transforms; a unet with one"):
        unnoise.train(gray, backbone="unet:widths=16,layers=1", augment=0.5, images="64", objective="simple")


def test_a_share_of_a_batch_is_transformed_as_in_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "data.npy", images)
    dataset, times = open_data(str(tmp_path / "data.npy")), Uniform(registry.schedule.get("linear")())
    config = TrainConfig(augment=0.2)
    whole = prepare(read_batch(dataset, np.arange(20)), times, config, 40)
    part = prepare(read_batch(dataset, np.arange(20), slice(5, 13)), times, config, 40)
    expected = whole.part(slice(5, 13))
    for name in ("x0", "eps", "x_t", "transform"):
        torch.testing.assert_close(getattr(part, name), getattr(expected, name), atol=1e-6, rtol=0)
    plain = prepare(read_batch(dataset, np.arange(20)), times, TrainConfig(), 40)
    assert torch.equal(plain.eps, whole.eps)
    assert torch.equal(plain.t.time, whole.t.time)
    still = ~whole.transform.any(dim=1)
    assert 0 < still.sum() < 20
    assert torch.equal(plain.x0[still], whole.x0[still])


def test_images_are_transformed_less_and_less_and_at_last_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    dataset = open_data(np.random.default_rng(0).integers(0, 256, (2_000, 8, 8), dtype=np.uint8))
    batch, times = read_batch(dataset, np.arange(2_000)), Uniform(registry.schedule.get("linear")())
    for progress, probability in ((0.0, 0.4), (0.4, 0.2), (UNTIL, 0.0), (1.0, 0.0)):
        found = prepare(batch, times, TrainConfig(augment=0.4), 0, progress=progress)
        shares = (found.transform[:, 2:] != 0).float().mean(0)
        torch.testing.assert_close(shares, torch.full((7,), probability), atol=0.04, rtol=0)


@pytest.mark.parametrize(("decay", "falls"), [("cosine", True), ("none", False)])
def test_the_probability_falls_as_the_learning_rate_does(gray, monkeypatch, decay, falls):
    seen = []
    monkeypatch.setattr(loop, "prepare", lambda *given: seen.append(given[-1]) or prepare(*given))
    unnoise.train(gray, images="64", augment=0.1, decay=decay, objective="simple", **TINY)
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert (seen[-1] > 0.8) == falls == (len({*seen}) > 1)


def test_the_mean_of_the_references_is_for_images_that_are_not_transformed():
    schedule = registry.schedule.get("cosine")()
    batch = noised(torch.rand(8, 1, 4, 4), None, schedule, generator=Generator().manual_seed(0))
    noisy = schedule.level(torch.full((8,), 900)), schedule.level(torch.full((8,), 899))
    batch = batch._replace(t=noisy[0], s=noisy[1], transform=torch.cat([told(4), told(4, right=1)]))
    found = StableTarget(torch.rand(5, 1, 4, 4))(batch)
    assert not torch.allclose(found.mean[:4], batch.x0[:4])
    assert torch.equal(found.mean[4:], batch.x0[4:])


def test_samples_show_no_transform_unless_the_network_is_told_of_one():
    """All images are bright on the left; half of those that the network sees are mirrored, and it is told."""
    rng, network = Generator().manual_seed(0), registry.backbone.get("unet:widths=16,layers=1,groups=4,transforms=9")(1)
    model = Diffusion(network, registry.schedule.get("cosine")(), registry.target.get("x0"), (1, 8, 8))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(150):
        x0 = torch.rand(32, 1, 8, 8, generator=rng) * 0.5 - torch.tensor([0.0] * 4 + [0.5] * 4)
        transform = told(32)
        transform[::2] = told(mirrored=1)
        batch = noised(transform_images(x0, transform), None, model.schedule, generator=rng)
        unnoise.objectives.simple(model.transformed(transform), batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    noise, levels = torch.randn(64, 1, 8, 8, generator=rng), model.schedule.grid(10)
    for given, brighter in ((model, 0), (model.transformed(told(64, mirrored=1)), 1)):
        *_, last = unnoise.samplers.ddim(given, noise, levels)
        halves = last.x0[..., :4].mean((1, 2, 3)), last.x0[..., 4:].mean((1, 2, 3))
        assert (halves[brighter] > halves[1 - brighter]).all()


def test_a_run_that_was_augmented_opens_again_and_draws_the_same_images(gray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = unnoise.train(**TINY, data=gray, augment=0.5, images="64", objective="simple")
    assert run.card.backbone == f"{TINY['backbone']},transforms={NUMBERS}"
    assert torch.equal(unnoise.sample(unnoise.load(Path(run)), 2, steps=3), unnoise.sample(run, 2, steps=3))
    with pytest.raises(InputError, match="no option transforms"):
        unnoise.train(**TINY | {"backbone": Own}, data=gray, augment=0.5, images="64", objective="simple")
