"""What is said of few images: before a training, and by `unnoise data`."""

import numpy as np
import pytest

from tiny import smooth
from unnoise import open_data
from unnoise.data.audit import audit_data, count_different
from unnoise.progress import silent
from unnoise.training.expected import LAW, USUAL, expected_of_data
from unnoise.training.few_images import ENOUGH, MOST, safe_images, warn_of_few

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
    lines = [line for line in expected_of_data(audit_data(data, silent)) if line.startswith("few ")]
    assert len(warned) == len(lines) == bool(says)
    for line in (*warned, *lines):
        assert says in line
        assert line.endswith(f"give {ENOUGH} or more that differ")


def test_many_images_are_not_looked_through():
    many = open_data(np.zeros((MOST + 1, 8, 8), np.uint8))
    assert count_different(many) == 1
    assert not warn_of_few(many)


@pytest.mark.parametrize("count", [400, 5_000])
def test_the_data_command_says_what_to_expect(count):
    audit = {"files": count + 3, "broken": {"count": 3}, "becomes": ["RGB", 3, 32, 40], "duplicates": {}}
    images = safe_images(count - count // 10) if count < MOST else USUAL
    *limit, expected = expected_of_data(audit | {"duplicates": {"different": count}})
    assert expected == f"expected  KID x 1000 of {LAW.at(32, images)}, after {images:,.0f} images"
    assert (
        limit
        == [f"limit     a training by --budget ends after {images:,.0f} images, before copies begin"][count > MOST :]
    )
    for becomes in (["", 4, 32, 32], ["RGB", 3, 512, 512]):
        assert expected_of_data(audit | {"becomes": becomes, "duplicates": {"different": count}}) == limit
