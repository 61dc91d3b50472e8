"""What is said of few images: before a training, and by `unnoise data`."""

import numpy as np
import pytest

import unnoise
from tiny import TINY, smooth
from unnoise import open_data
from unnoise.config import TrainConfig
from unnoise.data.audit import audit_data, count_different
from unnoise.errors import InputError
from unnoise.progress import silent
from unnoise.training import few_images
from unnoise.training.expected import LAW, USUAL, expected_of_data
from unnoise.training.few_images import CHANGED, ENOUGH, LEAST_FLIPPED, MOST, choose_flip, safe_images, warn_of_few

IMAGES = smooth(ENOUGH, 16, 0)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([0], "there is one image: the network can only learn to draw that one again"),
        ([0] * 40, "all images are alike: the network can only learn to draw that one again"),
        ([0, 1], "2 different images are few: the network learns them by heart"),
        ([0, 1] * 30, "2 different images among 60 are few"),
        ([*range(10)], "10 different images are few"),
        ([*range(50), 7], "50 different images among 51 are few: the network draws copies of them before its images"),
        ([*range(ENOUGH), 7], ""),
    ],
)
def test_images_that_are_too_few_to_learn_from_are_named(numbers, says):
    data = IMAGES[numbers]
    warned = warn_of_few(open_data(data))
    lines = [line for line in expected_of_data(audit_data(data, silent) | {"mirrored": None}) if line[:4] == "few "]
    assert len(warned) == len(lines) == bool(says)
    for line in (*warned, *lines):
        assert says in line
        assert line.endswith(f"give {ENOUGH} or more that differ")


def test_images_that_are_held_out_count_too():
    trained = open_data(IMAGES[: ENOUGH - 20])
    assert warn_of_few(trained, 20) == []
    assert len(warn_of_few(trained, 19)) == 1


def test_many_images_are_not_looked_through():
    many = open_data(np.zeros((MOST + 1, 8, 8), np.uint8))
    assert count_different(many) == 1
    assert not warn_of_few(many)


@pytest.mark.parametrize("count", [400, 5_000])
@pytest.mark.parametrize("mirrored", [None, 0.5, 0.8])
def test_the_data_command_says_what_to_expect(count, mirrored):
    audit = {"files": count + 3, "broken": {"count": 3}, "becomes": ["RGB", 3, 32, 40], "mirrored": mirrored}
    images = safe_images(count - count // 10, CHANGED if mirrored == 0.5 else 1.0) if count < MOST else USUAL
    *limit, expected = expected_of_data(audit | {"duplicates": {"different": count}})
    assert expected == f"expected  KID x 1000 of {LAW.at(32, images)}, after {images:,.0f} images"
    assert (
        limit
        == [f"limit     a training by --budget ends after {images:,.0f} images, before copies begin"][count > MOST :]
    )
    for becomes in (["", 4, 32, 32], ["RGB", 3, 512, 512]):
        assert expected_of_data(audit | {"becomes": becomes, "duplicates": {"different": count}}) == limit


def choose(images, **settings):
    """Return what is chosen for --flip, and what is said."""
    config, lines = choose_flip(TrainConfig(**settings), open_data(images))
    return config.flip, " ".join(lines)


def test_few_images_are_mirrored_if_they_look_alike_in_a_mirror():
    flip, line = choose(IMAGES)
    assert flip
    assert line.endswith("they look alike; trained on both (--no-flip: as they are)")
    bright = IMAGES // 2
    bright[:, :, :8] += 100
    flip, line = choose(bright)
    assert not flip
    assert line.startswith("mirrored  100% of the images are distinguished")
    assert line.endswith("they look different; trained on as they are (--flip: on both)")


@pytest.mark.parametrize(
    ("count", "settings", "flip"),
    [
        (LEAST_FLIPPED - 1, {}, False),
        (MOST + 1, {}, False),
        (ENOUGH, {"augment": 0.1}, False),
        (ENOUGH, {"flip": False}, False),
        (ENOUGH, {"flip": True}, True),
    ],
)
def test_the_choice_is_open_for_few_images_alone(count, settings, flip):
    assert choose(np.resize(IMAGES, (count, 16, 16, 3)), **settings) == (flip, "")


def test_a_run_that_is_resumed_keeps_its_choice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = TINY | {"data": IMAGES[:120], "objective": "simple", "held_out": 0, "out": "run"}
    assert unnoise.train(**settings, images="64").card.training["config"]["flip"] is True
    assert "trained on both" in capsys.readouterr().out
    monkeypatch.setattr(few_images, "ALIKE", 0.0)
    assert unnoise.train(**settings, images="128").card.training["config"]["flip"] is True
    assert "trained on" not in capsys.readouterr().out
    with pytest.raises(InputError, match="flip"):
        unnoise.train(**settings, images="192", flip=False)
