"""A training from its data to its files."""

import json
import math

import numpy as np
import pytest
import torch
import yaml

import unnoise
from tiny import TINY, smooth, train_folder
from unnoise.checkpoint import load
from unnoise.data.cache import open_data
from unnoise.data.dataset import split_held_out
from unnoise.recipes import train_config
from unnoise.samplers.draw import NonfiniteError
from unnoise.training import few_images, loop
from unnoise.training import train as set_up
from unnoise.training.monitors.validation import BANDS
from unnoise.training.plan import WITHOUT_BUDGET, unet
from unnoise.training.state import read_state


def test_the_network_is_chosen_where_none_is_named(gray, tmp_path):
    """And written down; how fast it was tried changes no weight."""
    given = {"batch": 8, "steps": 2, "precision": "fp32", "images": "16"}
    runs = [train_folder(gray, out=tmp_path / str(i), **given) for i in range(2)]
    one, two = map(unnoise.load, runs)
    written = yaml.safe_load((runs[0] / "config.yaml").read_text())["backbone"]
    assert one.card.backbone == unet(WITHOUT_BUDGET, (1, 8, 8)) == written
    for p, q in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.slow
def test_the_model_learns_a_world_of_one_image(tmp_path, monkeypatch):
    """With one picture in the data the samples must become that picture."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    picture = np.zeros((1, 8, 8), np.uint8)
    picture[:, 2:6, 2:6] = 255
    np.save(tmp_path / "one.npy", np.repeat(picture, 8, axis=0))
    run = train_folder(
        tmp_path / "one.npy", images="6k", warmup=100, out=str(tmp_path / "run"), **(TINY | {"steps": 10})
    )
    images = unnoise.sample(run, 4)
    truth = torch.from_numpy(picture).float()[None] / 127.5 - 1
    assert (images - truth).abs().mean() < 0.1


def test_epoch_losses_are_the_mean_of_their_batches(gray, tmp_path):
    run = train_folder(gray, epochs=2, held_out=0, out=str(tmp_path / "run"), **TINY)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if "epoch" in row]
    assert [(row["epoch"], row["images"]) for row in epochs] == [(1, 20), (2, 40)]
    assert all(0 < row["loss"] < 100 for row in epochs)


def test_same_seed_same_weights_other_seed_other_weights(gray, tmp_path):
    runs = [
        load(train_folder(gray, images="64", seed=seed, out=str(tmp_path / name), **TINY)).model
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    a, b, c = (torch.cat([p.flatten() for p in model.parameters()]) for model in runs)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_run_tells_how_it_was_made_and_its_config_is_a_recipe(gray, tmp_path):
    run = train_folder(gray, images="64", lr=0.002, out=str(tmp_path / "run"), **TINY)
    card = load(run).card
    assert (card.shape, card.mode, card.data["count"], card.data["held_out"]) == ((1, 8, 8), "L", 18, 2)
    assert len(card.data["fingerprint"]) == 64
    assert card.training["config"]["lr"] == 0.002
    again = train_config(str(run / "config.yaml"), {})
    assert again.lr == 0.002
    assert again.out is None


def test_config_yaml_is_plain(gray, tmp_path):
    run = train_folder(gray, images="16", out=str(tmp_path / "run"), **TINY)
    values = yaml.safe_load((run / "config.yaml").read_text())
    assert values["images"] == "16"
    assert values["data"] == str(gray)


def test_the_last_grid_takes_its_share_of_the_time_by_what_a_call_takes(tmp_path, gray, monkeypatch):
    """Sampling may be in another precision than the training, whose pace then says nothing of it."""
    made = list[int]()
    monkeypatch.setattr(set_up, "draw_images", lambda model, count, *_: made.append(count))
    for seconds in (1e-6, 1.0, 20.0):  # that a call takes for a picture: two calls each, in 20 seconds
        monkeypatch.setattr(set_up, "seconds_per_image", lambda *_, seconds=seconds: seconds)
        train_folder(gray, images="8", out=str(tmp_path / f"{seconds}"), **TINY)
    assert made == [64, 9, 1]


def test_a_run_keeps_images_out_and_logs_the_loss_on_them(gray, tmp_path, capsys):
    run = train_folder(gray, images="200", held_out=5, out=str(tmp_path / "run"), **TINY)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (last,) = [row for row in rows if "held_out" in row]
    assert len(last["held_out"]) == len(last["trained"]) == BANDS
    assert all(math.isfinite(value) for value in last["held_out"])
    said = capsys.readouterr().out
    assert "15 images" in said
    assert "5 more are held out" in said
    assert "on held-out images" in said
    assert load(run, "cpu").card.data["held_out"] == 5
    assert load(run, "cpu").card.data["count"] == 15


def test_held_out_images_are_never_trained_on(gray, tmp_path, monkeypatch):
    seen = set()
    given = loop.prepare

    def noted(batch, *rest):
        seen.update(image.tobytes() for image in batch.pixels)
        return given(batch, *rest)

    monkeypatch.setattr(loop, "prepare", noted)
    train_folder(gray, images="200", held_out=6, out=str(tmp_path / "run"), **TINY)
    _, held = split_held_out(open_data(str(gray)), 6)
    assert len(seen) == 14
    assert not seen & {image.tobytes() for image in held.read(np.arange(6))}


def test_a_last_grid_of_no_numbers_does_not_undo_the_training(gray, tmp_path, monkeypatch, capsys):
    def overflow(*_):
        raise NonfiniteError("64 of 64 images are not finite")

    monkeypatch.setattr(set_up, "draw_images", overflow)
    run = train_folder(gray, images="16", out=tmp_path / "run", **TINY)
    assert "warning: no grid of the end: 64 of 64 images are not finite" in capsys.readouterr().out
    assert read_state(run)[0]["finished"]


def test_a_budget_that_would_copy_few_images_ends_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(few_images, "PASSES", 4)
    images = smooth(40, 8, 0)
    run = train_folder(images, budget="8h", held_out=0, out=tmp_path / "run", **TINY)
    assert "copies    begin after about 160 images: training ends before" in capsys.readouterr().out
    assert load(run).card.training["images"] == 120
    assert read_state(run)[0]["finished"]
