"""The card is made anew from the data, and the files of a run are compared with each other."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from unnoise.checkpoint import load
from unnoise.verification import records, verify
from verification_helpers import change_card, change_row, named, walk


def log_checks(run):
    """Return the checks of metrics.jsonl."""
    opened = load(run)
    return [*records.log_checks(opened, records.training_config(opened), 64)]


@pytest.mark.parametrize("keys", [("data", "count"), ("data", "held_out"), ("data", "fingerprint"),
                                  ("data", "class_counts", 1), ("classes", 0), ("mode",), ("target",)])  # fmt: skip
def test_a_changed_value_of_the_card_is_named(run, keys):
    opened = load(run)
    config = records.training_config(opened)
    data = verify.open_data_quietly(config)
    assert not named(records.data_checks(opened, config, *data))
    text = {"mode": "L", "target": "v"}
    if keys[0] in text:
        changed = opened.card.__class__(**{**vars(opened.card), keys[0]: text[keys[0]]})
        checks = records.data_checks(opened.__class__(opened.model, changed, opened.path), config, *data)
        assert named(checks) == {("card", keys[0])}
        return
    change_card(run, keys)
    assert len(named(records.data_checks(load(run), config, *data))) == 1


@pytest.mark.parametrize("keys", [("training", "images"), ("training", "seconds"), ("training", "loss", 0, 1)])
def test_a_changed_value_of_the_training_in_the_card_is_named(run, keys):
    assert not named(log_checks(run))
    change_card(run, keys)
    assert named(log_checks(run))


def test_settings_that_differ_from_the_card_are_named(run):
    stated = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(stated | {"lr": 0.005, "seed": 3}))
    assert named(records.config_checks(load(run))) == {("config.yaml", "lr"), ("config.yaml", "seed")}


@pytest.mark.parametrize(("key", "times"), [("lr", 1.01), ("images_per_second", 3.0), ("loss", 1.01)])
def test_a_changed_row_of_the_log_is_named(run, key, times):
    """The pace follows from the seconds, which are rounded to 0.01; the training loss is in the card too."""
    images = change_row(run, "lr", (key,), times)
    found = named(log_checks(run))
    assert len(found) == 1
    assert key == "loss" or ("metrics.jsonl steps", f"{images} images.{key}") in found


@pytest.mark.parametrize(
    "key", ["training_seconds", "mean_images_per_second", "preview_seconds", "measuring_seconds", "skipped_steps"]
)
def test_a_changed_number_of_the_summary_is_named(run, key):
    change_row(run, "training_seconds", (key,))
    found = named(log_checks(run))
    assert ("metrics.jsonl summary", key) in found


def test_a_changed_pixel_of_the_plot_is_named(run):
    opened = load(run)
    assert not named(records.loss_plot_check(opened))
    with Image.open(run / "loss.png") as image:
        pixels, about = np.array(image), image.info
    pixels[9, 9] ^= 1
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", about["Software"])
    Image.fromarray(pixels).save(run / "loss.png", pnginfo=text)
    assert named(records.loss_plot_check(opened)) == {("loss.png", "pixels")}


def test_every_number_of_the_card_belongs_to_a_check(run):
    """A number that is added to the card later is compared too, since the card is made anew as a whole."""
    opened = load(run)
    config = records.training_config(opened)
    checks = [*records.data_checks(opened, config, *verify.open_data_quietly(config))]
    stated = json.loads(json.dumps(vars(opened.card) | {"training": {}, "sampling": {}}, default=dict))
    assert len(checks) >= len([*walk(stated)])
