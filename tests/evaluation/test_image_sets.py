"""Sets of images: which images they hold, and what they say about themselves."""

import shutil

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import unnoise
from tiny import smooth
from unnoise.checkpoint import as_run, load
from unnoise.config import EvalConfig
from unnoise.data.cache import open_data
from unnoise.errors import InputError
from unnoise.evaluation.image_sets import dataset_images, every_batch, open_images, run_data, run_images, run_split
from unnoise.images import to_uint8
from unnoise.samplers.ddim import ddim


def images_of(image_set, is_wanted=every_batch):
    return torch.cat([*image_set.stream(is_wanted)])


def test_a_set_of_data_holds_all_images_or_those_that_the_seed_chooses(world):
    data = open_data(world / "train")
    pixels = torch.from_numpy(data.read(range(80)))
    whole = dataset_images(data, None, 0, 32)
    assert torch.equal(images_of(whole), pixels)
    assert torch.equal(images_of(whole, lambda i: i == 1), pixels[32:64])
    assert whole.about == {"name": "train", "n": 80, "of": 80, "fingerprint": data.fingerprint, "size": "16x16"}
    part, other = (dataset_images(data, 20, seed, 32) for seed in (0, 1))
    assert torch.equal(images_of(part), pixels[np.sort(data.chosen(20, 0))])
    assert len({whole.key, part.key, other.key}) == 3
    assert dataset_images(data, None, 1, 32).key == whole.key
    with pytest.raises(InputError, match="81 images were asked for, but train has 80; ask for fewer"):
        dataset_images(data, 81, 0, 32)


def test_a_set_of_a_run_holds_the_images_that_sample_draws(world):
    run = load(world / "run")
    found = run_images(EvalConfig(seed=3, batch=8, steps=2), run, 20)
    drawn = to_uint8(unnoise.sample(run, 20, seed=3, batch=8, steps=2))
    assert torch.equal(images_of(found), drawn)
    assert torch.equal(images_of(found, lambda i: i == 2), drawn[16:])
    assert found.about["name"] == str(world / "run")
    assert found.about["steps"] == 2
    assert found.resumable


def test_only_what_is_named_by_text_is_resumable(world):
    run = load(world / "run")
    assert not run_images(EvalConfig(steps=2), as_run(run.model), 4).resumable
    assert not run_images(EvalConfig(steps=2, sampler=ddim), run, 4).resumable


def test_images_in_memory_have_the_pixels_of_files():
    x = 2 * torch.rand(6, 3, 8, 8) - 1
    x[0, 0, 0, 0] = -1.2
    assert torch.equal(torch.from_numpy(open_images(x).read(range(6))), to_uint8(x))
    pixels = smooth(6, 8, 0)
    assert np.array_equal(open_images(pixels).read(range(6)).transpose(0, 2, 3, 1), pixels)
    light = torch.rand(6, 3, 8, 8)
    assert_close(open_images(light).read(range(6)).astype(float) / 255, light.double().numpy(), rtol=0, atol=0.5 / 255)
    with pytest.raises(InputError, match="nan"):
        open_images(torch.full((6, 3, 8, 8), torch.nan))


def test_data_of_a_run_is_its_training_data_or_fitted_to_it(world):
    run = load(world / "run")
    own = run_data(EvalConfig(), run)
    assert own.fingerprint == run.card.data["fingerprint"]
    trained, held_out = run_split(own, run)
    assert len(trained) + len(held_out) == 80
    assert len(held_out) == run.card.data["held_out"]
    for given in (world / "gray", smooth(60, 24, 3, 1)):
        assert run_data(EvalConfig(data=given), run).shape == (3, 16, 16)
    with pytest.raises(InputError, match="does not say what it was trained on; name images with --data"):
        run_data(EvalConfig(), as_run(run.model))


def test_images_that_are_replaced_while_they_are_streamed_are_said(world, tmp_path):
    shutil.copytree(world / "few", tmp_path / "few")
    (tmp_path / "few" / "004.png").write_bytes((world / "few" / "004.png").read_bytes()[:60])
    said = []
    images = dataset_images(open_data(tmp_path / "few", stream=True), None, 0, 4, said.append)
    assert sum(map(len, images.stream(every_batch))) == 10
    (line,) = said
    assert line.startswith("warning: ")
    assert "004.png cannot be read" in line
