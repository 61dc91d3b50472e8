"""What a training measured and drew comes again from its weights."""

import numpy as np
import pytest
from PIL import Image

from unnoise.checkpoint import load
from unnoise.config import TrainConfig
from unnoise.progress import mute, silent
from unnoise.verification import records, verify, weights
from verification_helpers import change_row, named


def trained(run):
    """Return an opened run and what its measurements need."""
    opened = load(run)
    config = records.training_config(opened)
    how = weights.how_computed(opened, config)
    return opened, weights.Trained(config, *verify.open_data_quietly(config), *how)


@pytest.mark.parametrize("keys", [("held_out", 2), ("trained", 0), ("held_out_error",)])
def test_a_changed_held_out_loss_is_named(run, keys):
    assert not named(weights.held_out_checks(*trained(run), mute))
    images = change_row(run, "held_out", keys, 1.0001)
    place = "".join(f"[{key}]" if isinstance(key, int) else key for key in keys)
    found = named(weights.held_out_checks(*trained(run), mute))
    assert found == {("metrics.jsonl held-out loss", f"{images} images.{place}")}


def test_a_changed_pixel_of_the_last_grid_is_named(run):
    assert not named(weights.grid_checks(*trained(run), mute))
    pixels = np.array(Image.open(run / "samples" / "final.png"))
    pixels[20, 20, 1] ^= 1
    Image.fromarray(pixels).save(run / "samples" / "final.png")
    (found,) = (check for check in weights.grid_checks(*trained(run), mute) if check.part == weights.GRID)
    assert found.verdict == "differs"
    assert "by 1 at most" in found.why


def test_a_grid_of_another_size_is_named(run):
    Image.new("RGB", (50, 50)).save(run / "samples" / "final.png")
    assert named(weights.grid_checks(*trained(run), mute)) == {(weights.GRID, "size")}


@pytest.mark.slow
@pytest.mark.parametrize("keys", [("kid",), ("kid_error",), ("kid_interval", 1)])
def test_a_changed_kid_is_named(scored_run, keys):
    assert not named(weights.kid_checks(*trained(scored_run), silent, mute))
    images = change_row(scored_run, "kid", keys)
    place = "".join(f"[{key}]" if isinstance(key, int) else key for key in keys)
    found = named(weights.kid_checks(*trained(scored_run), silent, mute))
    assert ("metrics.jsonl KID", f"{images} images.{place}") in found


@pytest.mark.slow
def test_best_weights_that_are_not_of_the_lowest_kid_are_named(scored_run):
    (scored_run / "best.safetensors").write_bytes((scored_run / "model.safetensors").read_bytes())
    change_row(scored_run, "kid", ("kid",), 2.0)
    found = named(weights.kid_checks(*trained(scored_run), silent, mute))
    assert (weights.BEST, "images seen of the lowest KID") in found


@pytest.mark.parametrize(("stated", "expected"), [(3, 3), (2**31, 8), ("many", 8), (-1, 8), (None, 8)])
def test_images_are_measured_as_many_at_a_time_as_in_the_training(run, monkeypatch, stated, expected):
    """The size of a part changes rounding."""
    monkeypatch.setattr(weights, "state_facts", lambda _: {"parts": {"trainer": {"at_once": stated}}})
    assert weights.images_at_once(load(run), TrainConfig(batch=8)) == expected
