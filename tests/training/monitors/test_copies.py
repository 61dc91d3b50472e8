"""The look for copies during a training: what it keeps, when it ends the training, and how the run goes on."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import unnoise
from tiny import TINY, smooth
from unnoise import registry
from unnoise.checkpoint import read_model
from unnoise.config import Sampling
from unnoise.data.cache import open_data
from unnoise.data.dataset import split_held_out
from unnoise.diffusion.model import Diffusion
from unnoise.errors import NothingLeftError
from unnoise.images import to_float
from unnoise.run_folder import MODEL, WITHOUT_COPIES
from unnoise.training.checks import Zero
from unnoise.training.clock import Clock
from unnoise.training.monitors import copies, monitor
from unnoise.training.monitors.copies import EARLIEST, MOST_TRAINED, CopiesMonitor
from unnoise.training.signals import Stop
from unnoise.verification.verify import verify

IMAGES, OTHERS = smooth(240, 16, seed=0), smooth(200, 16, seed=1)


def as_drawn(images):
    return to_float(torch.from_numpy(np.moveaxis(images, 3, 1)))


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Training and held-out images, in the folder the test runs in."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return split_held_out(open_data(IMAGES))


def looked(parts, drawn, monkeypatch, *, allowed=False):
    """Return the outcome of a look at these drawn images."""
    monkeypatch.setattr(copies, "draw_images", lambda *_: as_drawn(drawn))
    look = CopiesMonitor(*parts, Sampling(), allowed=allowed)
    clock = Clock(600.0, None, seen=EARLIEST * len(parts[0]), before=300.0)
    assert look.due(clock)
    model = Diffusion(Zero(outputs=3), registry.schedule.get("cosine")(), registry.target.get("x0"), (3, 16, 16))
    return look.run(model, clock, Stop())


def test_new_images_are_kept_and_copies_end_the_training(parts, monkeypatch):
    new = looked(parts, OTHERS, monkeypatch)
    assert new.keep
    assert not new.end
    assert not new.messages
    assert new.rows[0]["copies"] < 0.05
    assert new.rows[0]["copies_of_new"] < 0.05
    half = np.concatenate([OTHERS[:100], IMAGES[:100]])
    copied = looked(parts, half, monkeypatch)
    assert copied.end
    assert not copied.keep
    assert 0.35 < copied.rows[0]["copies"] < 0.6, "a tenth of the images was held out"
    assert "drawn images are nearer to one training image than new images are" in copied.messages[0]
    allowed = looked(parts, half, monkeypatch, allowed=True)
    assert not allowed.end
    assert allowed.messages


def test_a_few_copies_are_neither_kept_nor_the_end(parts, monkeypatch):
    trained = parts[0].numbers(np.arange(8))
    found = looked(parts, np.concatenate([OTHERS[:192], IMAGES[trained]]), monkeypatch)
    assert found.rows[0]["copies"] > found.rows[0]["copies_of_new"]
    assert not found.keep
    assert not found.end


def test_only_few_images_that_were_seen_often_are_looked_at(parts):
    trained, held = parts
    look = CopiesMonitor(trained, held, Sampling(), allowed=False)
    seen = EARLIEST * len(trained)
    assert look.due(Clock(600.0, None, seen=seen, before=300.0))
    assert not look.due(Clock(600.0, None, seen=seen - 1, before=300.0))
    many = replace(trained, rows=np.zeros(MOST_TRAINED + 1, np.int64))
    assert not CopiesMonitor(many, held, Sampling(), allowed=False).due(Clock(600.0, None, seen=10**9, before=300.0))


def test_a_run_that_began_to_copy_ends_with_the_weights_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(monitor, "FIRST", 0.0)
    monkeypatch.setattr(monitor, "GROWTH", 1.0)
    for name, value in (("EARLIEST", 0), ("COPIES_SHARE", 1e9)):
        monkeypatch.setattr(copies, name, value)
    looks = list[int]()

    def draw(*_):
        looks.append(1)
        return as_drawn(OTHERS if len(looks) <= 3 else IMAGES)

    monkeypatch.setattr(copies, "draw_images", draw)
    np.save("images.npy", IMAGES)
    settings = TINY | {"data": "images.npy", "images": "400", "objective": "simple", "out": "run", "flip": False}
    run = unnoise.train(**settings)
    assert len(looks) == 4
    assert (run.card.training["images"], run.card.training["weights_of_images"]) == (32, 24)
    told = capsys.readouterr().out
    assert "ended     with the weights of 24 images, which draw no copies; --allow-copies trains on" in told
    (_, kept), (_, final) = (read_model(tmp_path / "run" / name) for name in (WITHOUT_COPIES, MODEL))
    assert all(torch.equal(final[name], tensor) for name, tensor in kept.items())
    with pytest.raises(NothingLeftError, match="it drew copies of its training images; --allow-copies resumes it"):
        unnoise.train(**settings)
    assert not verify("run").differing
    run = unnoise.train(**settings, allow_copies=True)
    assert run.card.training["images"] == 400
    assert "weights_of_images" not in run.card.training


@pytest.mark.parametrize(
    ("settings", "found"), [({"flip": True}, True), ({"augment": 0.1}, True), ({"flip": False}, False)]
)
def test_mirrored_copies_are_seen_if_mirrored_images_are_trained_on(tmp_path, monkeypatch, capsys, settings, found):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(copies, "EARLIEST", 0)
    monkeypatch.setattr(copies, "draw_images", lambda *_: as_drawn(IMAGES[:, :, ::-1].copy()))
    unnoise.train(**TINY | {"data": IMAGES, "images": "64", "objective": "simple", "out": "run"} | settings)
    told = re.search(r"copies    (\d+)% of", capsys.readouterr().out)
    assert (told is not None and int(told[1]) >= 80) == found
