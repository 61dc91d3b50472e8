"""Datasets: the held-out split, and what torch sees."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from image_files import channels_first, noise, put
from unnoise.data import Dataset
from unnoise.data.dataset import default_held_out, split_held_out
from unnoise.errors import InputError


@pytest.mark.parametrize(
    ("count", "held"), [(5, 0), (50, 5), (640, 64), (3000, 64), (10_000, 200), (60_000, 1200), (200_000, 2048)]
)
def test_how_many_are_held_out(count, held):
    assert default_held_out(count) == held


def test_a_split_is_the_same_for_the_same_data_and_loses_nothing(load, tmp_path):
    np.save(tmp_path / "forty.npy", np.arange(40, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2))
    data = load(tmp_path / "forty.npy")
    trained, held = split_held_out(data)
    assert (len(trained), len(held)) == (36, 4)
    values = [part.read(np.arange(len(part)))[:, 0, 0, 0].tolist() for part in (trained, held)]
    assert sorted(values[0] + values[1]) == list(range(40))
    assert split_held_out(data)[1].read(np.arange(4))[:, 0, 0, 0].tolist() == values[1]
    assert trained.part(np.array([2, 0])).read(np.array([0, 1]))[:, 0, 0, 0].tolist() == [values[0][2], values[0][0]]
    assert [len(part) for part in split_held_out(data, 0)] == [40, 0]
    for wrong in (-1, 40):
        with pytest.raises(InputError, match="takes 0 to 39"):
            split_held_out(data, wrong)


# The dataset as torch sees it


COUNT = 6
IMAGES = noise(COUNT, 12, 10, 3)
LABELS = ["ant", "ant", "cat", "cat", "dog", "dog"]
NUMBERS = [0, 0, 1, 1, 2, 2]


def scaled(image):
    return torch.from_numpy(channels_first(image)) / 127.5 - 1


@pytest.fixture
def data(load) -> Dataset:
    return load([*zip(IMAGES, LABELS, strict=True)])


def test_items_are_images_and_labels(load, data):
    for index in (0, 3, -1, np.int64(2), torch.tensor(1)):
        x0, label = data[index]
        assert (x0.dtype, x0.shape, type(label)) == (torch.float32, (3, 12, 10), int)
        torch.testing.assert_close(x0, scaled(IMAGES[index]), rtol=0, atol=1e-6)
        assert label == NUMBERS[index]
    assert len([*data]) == COUNT
    assert load(IMAGES)[0][1] == -1


def test_indices_behave_as_those_of_a_sequence(data):
    for wrong in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError, match=f"image {wrong} of a dataset of {COUNT}"):
            data[wrong]
    for wrong in ("0", 1.0, None):
        with pytest.raises(TypeError):
            data[wrong]
    assert [label for _, label in data[1:4]] == NUMBERS[1:4]
    assert len(data[:0]) == 0


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stream", [False, True])
def test_batches_of_a_loader(root, load, workers, stream):
    for i, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        put(root, f"{label}/{i}.png", image)
    data = load(root, stream=stream)
    loader = DataLoader(data, 4, num_workers=workers, multiprocessing_context="fork" if workers else None)
    batches = [*loader]
    assert [len(x0) for x0, _ in batches] == [4, 2]
    x0, label = (torch.cat(parts) for parts in zip(*batches, strict=True))
    again = pickle.loads(pickle.dumps(data))  # as it is sent to workers that are not forked
    torch.testing.assert_close(again[-1], data[-1])
    assert (x0.shape, x0.dtype, label.dtype) == ((COUNT, 3, 12, 10), torch.float32, torch.int64)
    assert label.tolist() == NUMBERS
    torch.testing.assert_close(x0, torch.stack([*map(scaled, IMAGES)]), rtol=0, atol=1e-6)
