"""Intervals against closed forms and simulations."""

import math

import pytest
import torch
from scipy.stats import t as student_t

from unnoise.evaluation.neighbours import density_coverage, precision_recall
from unnoise.evaluation.scores import group_variance, growing, share_score, student, symmetric, wilson


@pytest.mark.parametrize("groups", [8, 20, 300])
def test_the_quantile_is_students(groups):
    assert student(groups) == pytest.approx(student_t.ppf(0.975, groups - 1), abs=0.002)


def test_a_share_stays_within_its_range():
    """For independent images it is the interval of Wilson; a larger variance is that of fewer images."""
    for count in (0, 1, 50, 99, 100):
        share = count / 100
        score = share_score(share, 100, share * (1 - share) / 100)
        assert score.interval == pytest.approx(wilson(share, 100, student()))
        assert 0 <= score.interval[0] <= share <= score.interval[1] + 1e-12 <= 1 + 1e-12
    assert share_score(0.5, 100, 0.25 / 25).interval == pytest.approx(wilson(0.5, 25, student()))


def test_a_distance_at_zero_has_the_noise_of_equal_sets():
    value, error, (low, high) = growing(0.0, 4.0, 0.0)
    assert (value, error) == (0, 2)
    assert (low, high) == pytest.approx((-2 * student(), 2 * student()))


def test_both_ends_of_a_distance_are_as_far_away_as_they_say():
    """At each end, the value is the quantile of the errors away that belong to this distance."""
    for end in growing(9.0, 1.0, 3.0).interval:
        assert abs(9 - end) == pytest.approx(student() * math.sqrt(1 + 3 * end / 9))


def test_what_groups_cause_is_told_from_what_images_scatter():
    """The changes of 200 images: of each group its own, and scatter, which is no variance of the groups."""
    groups = torch.randn(20, 1, dtype=torch.float64)
    scatter = torch.randn(20, 200, dtype=torch.float64)
    expected = 19 / 20 * float((groups - groups.mean()).square().sum())
    assert group_variance(groups.expand(20, 200)) == pytest.approx(expected)
    assert group_variance(groups + 3 * scatter) == pytest.approx(expected, rel=0.5)
    found = [group_variance(torch.randn(20, 200, dtype=torch.float64)) for _ in range(200)]
    assert sum(found) / 200 < 0.03  # without the subtraction it would be 0.095


def test_too_few_groups_have_no_interval():
    assert all(map(math.isnan, symmetric(1.0, math.nan).interval))


def test_intervals_of_neighbours_hold_their_mean():
    """Before, they were those of independent images, and held it in 60 to 90 % of the draws."""
    draws = [
        (*precision_recall(x, y), *density_coverage(x, y))
        for x, y in (torch.randn(2, 100, 12, dtype=torch.float64) for _ in range(150))
    ]
    for scores in zip(*draws, strict=True):
        mean = sum(score.value for score in scores) / len(scores)
        assert sum(score.interval[0] <= mean <= score.interval[1] for score in scores) >= 0.9 * len(scores)
