"""The order of images and the noise of a step."""

from pathlib import Path

import numpy as np
import torch

from tiny import TINY
from unnoise import registry
from unnoise.data.cache import DecodedImages, open_data
from unnoise.data.dataset import Dataset
from unnoise.diffusion.times import Uniform
from unnoise.recipes import train_config
from unnoise.training.batches import noise, order, prepare, read_batch


def numbered(count):
    return Dataset(DecodedImages(Path(), count, (1, 8, 8)), "x", "L", (1, 8, 8), count, (), "", ())


def test_each_epoch_is_a_permutation_and_any_position_can_be_returned_to():
    dataset = numbered(10)
    batches = order(dataset, 4, seed=1)
    first = [next(batches) for _ in range(6)]
    assert [len(batch) for batch in first] == [4, 4, 2, 4, 4, 2]
    assert sorted(np.concatenate(first[:3])) == sorted(np.concatenate(first[3:])) == list(range(10))
    assert list(np.concatenate(first[:3])) != list(np.concatenate(first[3:]))
    np.testing.assert_array_equal(next(order(dataset, 4, seed=1, seen=14)), first[4])


def test_noise_depends_on_seed_and_position_alone():
    like = torch.zeros(1, 1, 2, 3)
    whole = {key: noise(*key, range(20), like) for key in ((0, 0), (0, 8), (1, 0))}
    assert len({tuple(image.flatten().tolist()) for batch in whole.values() for image in batch}) == 60
    for rows in (range(3), range(3, 20), range(8, 16), range(19, 20)):
        assert torch.equal(noise(0, 8, rows, like), whole[0, 8][rows.start : rows.stop])
    many = noise(0, 0, range(4000), like)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


def test_a_share_of_a_batch_is_what_the_whole_batch_has_there(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array(["a", "b"] * 10))
    dataset = open_data(str(tmp_path / "data.npz"))
    config = train_config(None, {"flip": True, "classes": True, "label_dropout": 0.5})
    times = Uniform(registry.schedule.get("linear")())
    whole = prepare(read_batch(dataset, np.arange(20)), times, config, 40)
    part = prepare(read_batch(dataset, np.arange(20), slice(5, 13)), times, config, 40)
    expected = whole.part(slice(5, 13))
    for name in ("x0", "eps", "x_t", "label"):
        assert torch.equal(getattr(part, name), getattr(expected, name))
    assert torch.equal(part.t.time, expected.t.time)
    assert torch.equal(part.s.sigma, expected.s.sigma)


def test_flips_and_levels_say_nothing_of_the_noise(gray):
    """They came from one stream once, and the first pixels of the noise told whether the image was mirrored."""
    config = train_config(None, {"flip": True, **TINY})
    dataset, schedule = open_data(str(gray)), registry.schedule.get("linear")()
    pairs = []
    for seen in range(700):
        batch = prepare(read_batch(dataset, np.arange(2)), Uniform(schedule), config, seen)
        straight = prepare(read_batch(dataset, np.arange(2)), Uniform(schedule), train_config(None, TINY), seen)
        pairs.append((not torch.equal(batch.x0[0], straight.x0[0]), batch.eps[0, 0, 0].square().mean().item()))
    flipped = np.mean([power for mirrored, power in pairs if mirrored])
    kept = np.mean([power for mirrored, power in pairs if not mirrored])
    assert 0.45 < np.mean([mirrored for mirrored, _ in pairs]) < 0.55
    assert abs(flipped - kept) < 0.1  # each is 1 within 0.03
