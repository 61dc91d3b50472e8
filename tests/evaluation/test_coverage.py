"""The simulation of `eval --check`: intervals that hold the truth are told from intervals that do not."""

import numpy as np
import pytest
import torch

from unnoise.evaluation import coverage
from unnoise.evaluation.coverage import format_coverage, moved_to, repeat, simulate, summarize
from unnoise.evaluation.scores import Score
from unnoise.progress import mute, silent


@pytest.fixture
def pool():
    """Return the features of 400 real images, [400, 8]."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(400, 8))).float()


def test_sets_have_no_image_in_common_and_their_sizes(pool, monkeypatch):
    numbered, seen = torch.arange(400.0)[:, None], []
    monkeypatch.setattr(coverage, "score", lambda a, b, _: seen.append((a.kept, b.kept)))
    assert len([*repeat(numbered, 100, 200, lambda x: x, [], 3)]) == 3
    for a, b in seen:
        assert (len(a), len(b)) == (100, 200)
        assert len(torch.cat([a, b]).unique()) == 300


def test_a_share_counts_the_intervals_that_hold_the_mean():
    draws = [{"kid": (Score(value, 1.0, (value - 1, value + 1)), None)} for value in (0.0, 0.0, 3.0)]
    (moved,), (equal,) = ([*summarize(draws, equal=equal)] for equal in (False, True))
    assert (moved["mean"], moved["holds"]) == (1.0, 2 / 3)  # both ends count
    assert equal["holds"] == 2 / 3
    draws = [{"kid": (Score(value, 1.0, (value - 0.5, value + 0.5)), None)} for value in (0.0, 0.0, 3.0)]
    assert next(summarize(draws, equal=False))["holds"] == 0


def test_moved_features_have_the_mean_and_spread_of_drawn_ones(pool):
    drawn = 3 * pool[:100] + 2
    moved = moved_to(drawn, pool)(pool)
    torch.testing.assert_close(moved.mean(0), drawn.mean(0))
    torch.testing.assert_close(moved.std(0), drawn.std(0))


def test_the_kid_of_gaussian_features_is_covered(pool, monkeypatch):
    monkeypatch.setattr(coverage, "MOST", 60)
    said = []
    found = simulate(pool[:60] + 0.3, pool, 60, ["kid", "fid", "colour"], silent, said.append)
    assert (found["n"], found["reference"], found["repeats"]) == (60, 60, 60)
    assert "60 repetitions, which takes about" in said[0]
    for kind in ("equal", "moved"):
        low, high = found["scores"]["kid"][kind]["holds"]["interval"]
        assert high > 0.93, kind
        assert low > 0.75, kind
    assert "sets of 60 and 60 images, drawn from 400 real ones" in format_coverage(found)[0]


def test_fewer_images_are_said_and_too_few_are_left_out(pool, monkeypatch):
    monkeypatch.setattr(coverage, "MOST", 20)
    found = simulate(pool, pool, 400, ["kid"], silent, mute)
    assert (found["n"], found["reference"], found["fewer_than"]) == (200, 200, [400, 400])
    assert "not enough real images" in format_coverage(found)[-1]
    left = simulate(pool, pool[:60], 400, ["kid"], silent, mute)
    assert "too few" in format_coverage(left)[0]
