"""Images that look otherwise in a mirror are distinguished from those that do not."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from tiny import smooth
from unnoise import open_data
from unnoise.evaluation.mirrored import ALIKE, LEAST, describe_mirrored, distinguished_share, share_by

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))


def text(*, anywhere):
    """Return a page of letters, at one place or anywhere."""
    page = Image.new("L", (64, 64), "white")
    begin = RNG.integers(-20, 0, 2) if anywhere else (3, 3)
    for y in range(begin[1], 64, 15):
        letters = "".join(RNG.choice([*"abcdefgh klmno rstuvwxyz"], 20))
        ImageDraw.Draw(page).text((begin[0], y), letters, "black", ImageFont.load_default(size=14))
    return np.asarray(page)


@pytest.mark.parametrize("anywhere", [False, True])
def test_text_is_distinguished_from_its_mirror_image(anywhere):
    share = distinguished_share(open_data(np.stack([text(anywhere=anywhere) for _ in range(200)])))
    assert share > ALIKE
    assert describe_mirrored(share)[0].endswith("they look different")


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_without_a_direction_are_not_distinguished(channels):
    images = np.concatenate([smooth(200, 32, seed) for seed in range(2)], axis=3)[..., :channels]
    share = distinguished_share(open_data(images))
    assert 0.35 < share < ALIKE
    assert describe_mirrored(share)[0].endswith("they look alike")


def test_few_images_say_nothing():
    assert distinguished_share(open_data(smooth(LEAST - 1, 16, 0))) is None
    assert describe_mirrored(None) == []


def test_a_share_is_of_images_that_taught_nothing():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(300, 100, generator=generator, dtype=torch.float64)
    assert share_by(noise) == pytest.approx(0.5, abs=0.1)
    shifted = noise.clone()
    shifted[:, 0] += 1.0  # of a normal distribution, 84 % lie above 0
    assert share_by(shifted[:, :1]) == pytest.approx(0.84, abs=0.05)
    assert share_by(torch.zeros(50, 8, dtype=torch.float64)) == 0.5
