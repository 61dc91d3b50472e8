"""One training step."""

import math

import numpy as np
import pytest
import torch

from tiny import TINY, train_folder
from unnoise.card import Card
from unnoise.checkpoint import build_model
from unnoise.data.cache import open_data
from unnoise.diffusion.objective import simple
from unnoise.diffusion.times import Uniform
from unnoise.errors import InputError
from unnoise.recipes import train_config
from unnoise.training.batches import prepare, read_batch
from unnoise.training.clock import Clock
from unnoise.training.precision import plain_network
from unnoise.training.trainer import Trainer


def test_a_loss_that_is_not_finite_changes_nothing(gray):
    config = train_config(None, {"data": str(gray), "images": "100", **TINY})
    dataset = open_data(str(gray))
    card = Card(TINY["backbone"], config.schedule, config.target, dataset.shape, "L")
    run = Trainer(config, build_model(card), "fp32", Clock.from_config(config, len(dataset)), 100)
    batch = prepare(read_batch(dataset, np.arange(8)), Uniform(run.model.schedule), config, 0)
    run.clock.seen = 8
    assert run.step(batch) is not None
    before = [p.clone() for p in (*run.model.parameters(), *run.ema.network.parameters())]
    poisoned = batch._replace(x_t=batch.x_t.clone().index_put((torch.tensor(0),) * 4, torch.tensor(math.nan)))
    assert run.step(poisoned) is None
    after = [*run.model.parameters(), *run.ema.network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert run.step(batch) is not None  # and the training continues


def test_several_processes_do_not_try_a_step_again(gray, monkeypatch):
    """The others wait for the gradients of this step, and would take those of the next one for them."""
    config = train_config(None, {"data": str(gray), "images": "100", **TINY})
    dataset = open_data(str(gray))
    model = build_model(Card(TINY["backbone"], config.schedule, config.target, dataset.shape, "L"))
    run = Trainer(config, model, "fp32", Clock.from_config(config, len(dataset)), 100)
    batch = prepare(read_batch(dataset, np.arange(8)), Uniform(model.schedule), config, 0)

    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    run.objective = short
    monkeypatch.setattr("unnoise.distributed.world_size", lambda: 2)
    with pytest.raises(InputError, match="choose a --batch below 8"):
        run.backward(batch, 1.0)
    assert run.at_once == 100


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_network_is_laid_out_for_its_precision(gray, tmp_path, precision):
    """In memory, from the first step to the last."""
    if torch.cuda.is_available():
        pytest.skip("of a processor")
    seen = set()

    def watched(model, batch):
        seen.add(plain_network(model).down[0].res.conv1.weight.is_contiguous())
        return simple(model, batch)

    train_folder(gray, images="24", out=tmp_path / "run", objective=watched, **TINY | {"precision": precision})
    assert seen == {precision == "bf16"}
