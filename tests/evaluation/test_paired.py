"""The difference of two KIDs against one reference: its value, its interval, the images needed, and its files."""

import math

import pytest
import torch

from unnoise.evaluation import paired
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.metrics import cubic, kid
from unnoise.evaluation.paired import (
    Difference,
    contributions,
    difference,
    images_needed,
    keep_contributions,
    pairs_of,
    read_contributions,
)
from unnoise.evaluation.scores import Score, student
from unnoise.evaluation.statistics import Statistics

D = 12


def normal(n, seed, shift=0.0):
    return shift + torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def statistics_of(features, batch=7, order=None):
    """Return the statistics of features whose images are their own bytes; the batches come in some order."""
    s = Statistics.empty(D, 0, 1)
    for i in order or range(-(-len(features) // batch)):
        part = features[batch * i : batch * (i + 1)]
        s.add(
            part, torch.zeros(len(part), 0), part.contiguous().view(torch.uint8).reshape(len(part), 1, 4, D), batch * i
        )
    return s


def test_the_difference_is_that_of_both_kids():
    x, z, y = normal(60, 0), normal(60, 1, 0.2), normal(80, 2)
    a, b = contributions(x, y), contributions(z, y)
    found = difference(a, b).score
    assert found.value == pytest.approx(kid(x, y).value - kid(z, y).value, abs=1e-12)
    assert difference(a, b, same_seeds=False).score.value == found.value
    low, high = difference(b, a).score.interval
    assert (-high, -low) == pytest.approx(found.interval), "the order does not matter"


def test_equal_runs_differ_by_nothing():
    x, y = normal(60, 0), normal(80, 1)
    found = difference(contributions(x, y), contributions(x.clone(), y)).score
    assert found == Score(0.0, 0.0, (0.0, 0.0))


def test_independent_images_gain_nothing_by_their_order():
    x, z, y = normal(2_000, 0, 0.3), normal(2_000, 1, 0.3), normal(2_000, 2)
    a, b = contributions(x, y), contributions(z, y)
    unpaired = math.hypot(kid(x, y).standard_error, kid(z, y).standard_error)
    errors = [difference(a, b, same_seeds=same).score.standard_error for same in (True, False)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
    assert errors[0] < unpaired, "the reference is the same for both"
    near = z + 100 * (x - z) / 101
    assert difference(a, contributions(near, y)).score.standard_error < 0.1 * errors[0]


def second_order(x, z, y):
    """Return 2 E[g^2] / n^2 + 4 E[h^2] / (n m) of the differences of kernels, in full."""
    n, m = len(x), len(y)
    among = cubic(x, x) - cubic(z, z)
    among.fill_diagonal_(0)
    rows = among.sum(1) / (n - 1)
    g = among - rows[:, None] - rows + rows.mean()
    g.fill_diagonal_(0)
    between = cubic(x, y) - cubic(z, y)
    h = between - between.mean(1, keepdim=True) - between.mean(0) + between.mean()
    return float(2 * g.square().sum() / n**4 + 4 * h.square().sum() / (n * m) ** 2)


@pytest.mark.parametrize(("probes", "n", "error"), [(8, 30, 0.5), (10_000, 30, 0.03), (10_000, 6, 0.03)])
def test_the_second_order_is_known_from_random_signs(monkeypatch, probes, n, error):
    monkeypatch.setattr(paired, "PROBES", probes)
    x, z, y = (normal(count, seed).double() for count, seed in ((n, 0), (n, 1), (n + 10, 2)))
    found = paired.square_of(contributions(x, y).probes - contributions(z, y).probes)
    assert found == pytest.approx(second_order(x, z, y), rel=error)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_intervals_hold_the_truth_and_errors_are_the_spread(shift):
    """Both sets have one distribution; with the shift 0 it is the distribution of the reference too."""
    found = []
    for seed in range(300):
        common, *own = (normal(50, 10 * seed + i) for i in range(3))
        x, z = (shift + (common + one) / math.sqrt(2) for one in own)
        y = normal(60, 10 * seed + 3)
        found.append(difference(contributions(x, y), contributions(z, y)).score)
    assert 0.93 <= sum(low <= 0 <= high for _, _, (low, high) in found) / len(found) <= 0.99
    spread = float(torch.tensor([score.value for score in found]).std())
    assert sum(score.standard_error**2 for score in found) / len(found) == pytest.approx(spread**2, rel=0.25)


def test_many_intervals_hold_together():
    """Bonferroni: the quantiles of Student's t with 19 degrees are from a table."""
    assert [student(comparisons=k) for k in (1, 3, 5, 10)] == pytest.approx([2.0930, 2.6251, 2.8609, 3.1737], abs=0.01)
    a, b = (contributions(normal(50, seed), normal(50, 2)) for seed in (0, 1))
    one, three = difference(a, b).score, difference(a, b, 3).score
    assert three.interval[1] - three.value == pytest.approx(
        student(comparisons=3) / student() * (one.interval[1] - one.value)
    )


def test_so_many_images_are_needed_that_the_interval_just_leaves_0():
    def found(value, images, reference):
        return Difference(Score(value, math.sqrt(images + reference), (0, 0)), images, reference)

    n, more = images_needed(found(2 * student(), 8.0, 2.0), 100, 500)
    assert n == pytest.approx(400), "8 / 4 + 2 are 2 squared"
    assert more is None
    n, more = images_needed(found(student(), 8.0, 2.0), 100, 500)
    assert (n, more) == (pytest.approx(1_000), 5_000), "the reference alone has too large a part"
    assert images_needed(found(0.0, 8.0, 2.0), 100, 500) == (math.inf, None)
    assert images_needed(found(0.0, 0.0, 0.0), 100, 500) == (math.inf, None)
    assert images_needed(found(5.0, 0.0, 0.0), 100, 500) == (0, None)


def test_the_order_of_the_seeds_is_kept_whatever_the_batches():
    x = normal(50, 0)
    for s in (statistics_of(x), statistics_of(x, 50), statistics_of(x, 10, [3, 1, 0, 4, 2])):
        assert torch.equal(s.in_order, x)
    assert not torch.equal(statistics_of(x).kept, x)


def test_too_many_images_have_no_order(monkeypatch):
    monkeypatch.setattr("unnoise.evaluation.statistics.MAX_KEPT", 40)
    s = statistics_of(normal(50, 0))
    assert s.in_order is None
    assert pairs_of([s], [s], [Extractor(lambda x: x, D, 0, {"network": "eye"})]) == {}


def test_contributions_are_read_as_they_were_kept(tmp_path):
    extractor = Extractor(lambda x: x, D, 0, {"network": "eye:size=1/2"})
    a, b = statistics_of(normal(50, 0)), statistics_of(normal(60, 1))
    of = {"weights": "abc", "seed": 0}
    keep_contributions(tmp_path / "0001.json", of, pairs_of([a], [b], [extractor]))
    place = tmp_path / "0001.safetensors"
    (name, found), *others = read_contributions(place, of).items()
    assert (name, others) == ("eye:size=1/2", [])
    assert torch.equal(found.keys, b.keys)
    whole = contributions(a.in_order, b.kept, b.keys)
    assert all(torch.equal(x.float(), y.float()) for x, y in zip(found, whole, strict=True))
    assert place.stat().st_size < 6_000
    assert read_contributions(place, {**of, "seed": 1}) == {}, "of other images"
    assert read_contributions(None, of) == {}
    place.write_bytes(place.read_bytes()[:-8])
    assert read_contributions(place, of) == {}, "damaged"


def test_a_file_of_other_shapes_is_not_believed(tmp_path):
    good = contributions(normal(50, 0), normal(60, 1), torch.arange(60))
    keep_contributions(tmp_path / "0001.json", {}, {"eye": good._replace(keys=torch.arange(59))})
    assert read_contributions(tmp_path / "0001.safetensors", {}) == {}
