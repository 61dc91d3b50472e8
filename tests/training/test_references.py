"""The references of a training are images of its training set."""

import numpy as np
import pytest
import torch

from unnoise import registry
from unnoise.data.cache import open_data
from unnoise.diffusion.times import Uniform
from unnoise.images import to_float
from unnoise.recipes import train_config
from unnoise.training import references
from unnoise.training.batches import prepare, read_batch
from unnoise.training.references import choose_references

CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array(["a", "b"] * 10))
    return open_data(str(tmp_path / "data.npz"))


def chosen(dataset, **settings):
    return choose_references(dataset, train_config(None, settings), CPU)


def test_all_images_are_references_if_there_are_few(dataset):
    found = chosen(dataset)
    assert list(found.numbers) == list(range(20))
    assert torch.equal(found.target.flat, to_float(torch.from_numpy(dataset.read(np.arange(20)))).flatten(1))
    assert found.target.labels is None
    assert chosen(dataset, classes=True).target.labels.tolist() == [0, 1] * 10


def test_their_number_can_be_chosen_and_memory_limits_it(dataset, monkeypatch):
    assert chosen(dataset, references=0) is None
    assert chosen(dataset, stream=True) is None
    assert len(chosen(dataset, stream=True, references=3).numbers) == 3
    some = chosen(dataset, references=7).numbers
    assert list(some) == sorted(set(some))
    assert len(some) == 7
    assert list(chosen(dataset, references=7).numbers) == list(some)
    assert list(chosen(dataset, references=7, seed=1).numbers) != list(some)
    monkeypatch.setattr(references, "MOST_VALUES", 5 * 64)
    assert len(chosen(dataset).numbers) == 5


def test_half_of_them_are_mirrored_if_images_are(dataset):
    plain, flipped = (chosen(dataset, flip=flip).target.flat.view(20, 1, 8, 8) for flip in (False, True))
    assert torch.equal(flipped[1::2], plain[1::2])
    assert torch.equal(flipped[::2], plain[::2].flip(3))


def test_an_image_is_counted_once_whatever_its_place(dataset):
    """The image is given as the last reference; if it is one of the others too, that one is left out."""
    config = train_config(None, {"references": 7})
    found = choose_references(dataset, config, CPU)
    numbers = np.array([found.numbers[3], next(i for i in range(20) if i not in found.numbers), 19, 0])
    batch = prepare(read_batch(dataset, numbers), Uniform(registry.schedule.get("cosine")()), config, 0)
    level = registry.schedule.get("cosine")().level(torch.full((4,), 900))
    batch = batch._replace(t=level)
    places = [list(found.numbers).index(i) if i in found.numbers else -1 for i in numbers]
    assert places[:2] == [3, -1]
    expected = found.target(batch, torch.tensor(places)).mean
    assert torch.equal(found.average(batch, numbers).mean, expected)
    assert not torch.equal(found.target(batch).mean[0], expected[0])
