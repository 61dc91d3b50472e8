"""Scores against known answers, simulations, and other libraries on the same features."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close

from unnoise.evaluation import metrics, neighbours
from unnoise.evaluation.statistics import MAX_KEPT, Moments, Statistics

pytestmark = pytest.mark.usefixtures("unchecked")

f64 = torch.float64


def statistics_of(x, batches=(10**9,), order=None, channels=1):
    """Return the statistics of features x, each with an image of its own, taken in batches of these sizes in turn."""
    pixels = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (len(x), channels, 4, 4), dtype=np.uint8))
    logits = x[:, :3].float() if x.shape[1] >= 3 else x.float().expand(-1, 3)
    s, order = Statistics.empty(x.shape[1], 3, channels), torch.arange(len(x)) if order is None else order
    start, i = 0, 0
    while start < len(x):
        chosen = order[start : start + batches[i % len(batches)]]
        s.add(x[chosen].float(), logits[chosen].softmax(1), pixels[chosen])
        start, i = start + len(chosen), i + 1
    return s


def normal(n, d, shift=0.0):
    """Draw features with another spread in each dimension."""
    return torch.randn(n, d, dtype=f64) * torch.linspace(0.5, 1.5, d, dtype=f64) + shift


# Known answers


def test_frechet_of_gaussians_is_its_formula():
    """Independent: sum of (m - m')^2 + (s - s')^2. A rotation changes nothing; the root of a 2 x 2 matrix is known."""
    m, n, s, t = (torch.rand(5, dtype=f64) for _ in range(4))
    turn, _ = torch.linalg.qr(torch.randn(5, 5, dtype=f64))
    a, b = Moments(9, turn @ m, turn @ (s**2).diag() @ turn.T), Moments(9, turn @ n, turn @ (t**2).diag() @ turn.T)
    assert metrics.frechet(a, b) == pytest.approx(float(((m - n) ** 2 + (s - t) ** 2).sum()), abs=1e-12)
    c, d = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=f64), torch.tensor([[0.5, -0.2], [-0.2, 3.0]], dtype=f64)
    both = float((c @ d).trace() + 2 * (c.det() * d.det()).sqrt())  # (trace of the root)^2, by Cayley-Hamilton
    zero = torch.zeros(2, dtype=f64)
    expected = float(c.trace() + d.trace()) - 2 * math.sqrt(both)
    assert metrics.frechet(Moments(9, zero, c), Moments(9, zero, d)) == pytest.approx(expected, abs=1e-12)


def kernel_truth(shift, spread, other):
    """Squared MMD of N(0, spread^2) and N(shift, other^2) in one dimension: the first three moments are all it sees."""

    def moments(a, s):
        return a, a**2 + s**2, a**3 + 3 * a * s**2

    pairs = zip(moments(0.0, spread), moments(shift, other), strict=True)
    return sum(math.comb(3, k) * (x - y) ** 2 for k, (x, y) in enumerate(pairs, 1))


def held(truth, scores):
    """Return the share of intervals that hold the truth."""
    return sum(score.interval[0] <= truth <= score.interval[1] for score in scores) / len(scores)


def test_kid_of_gaussians_is_its_formula_and_its_interval_holds_it():
    """Unbiased over 400 draws; the interval holds the truth in 92 to 99.5 % of them, at a distance and at none."""
    for shift in (0.0, 0.3):
        truth, scores = kernel_truth(shift, 0.6, 0.6), []
        for _ in range(400):
            x, y = 0.6 * torch.randn(120, 1, dtype=f64), 0.6 * torch.randn(200, 1, dtype=f64) + shift
            scores.append(metrics.kid(x, y))
        values, errors = (torch.tensor(part, dtype=f64) for part in list(zip(*scores, strict=True))[:2])
        assert abs(values.mean() - truth) < 4 * values.std() / 20
        assert 0.92 < held(truth, scores) < 0.995
        assert 0.8 < errors.square().mean().sqrt() / values.std() < 1.6


@pytest.mark.parametrize("d", [16, 64])
def test_kid_of_equals_has_the_spread_it_says(d):
    """Only the second order of the variance is left, in many dimensions."""
    scores = [metrics.kid(normal(150, d), normal(250, d)) for _ in range(200)]
    values, errors = (torch.tensor(part, dtype=f64) for part in list(zip(*scores, strict=True))[:2])
    assert 0.8 < errors.mean() / values.std() < 1.4
    assert 0.915 < held(0, scores) < 0.999


def test_fid_falls_as_one_over_n_and_extrapolates_to_the_truth():
    """For equals n * fid is constant; the extrapolation is the truth within its interval, the plain value is not."""
    floors = [
        sum(metrics.frechet(Moments.of_features(normal(n, 16)), Moments.of_features(normal(n, 16))) for _ in range(40))
        * n
        for n in (250, 1000, 4000)
    ]
    assert max(floors) / min(floors) < 1.15
    for shift in (0.0, 0.2):
        truth, plain, infinite = 8 * shift**2, [], []
        for _ in range(20):
            a, b = statistics_of(normal(500, 8)), statistics_of(normal(1000, 8, shift))
            plain.append(metrics.fid(a, b))
            infinite.append(metrics.fid_infinity(a, b))
        values = torch.tensor([score.value for score in infinite], dtype=f64)
        assert abs(values.mean() - truth) < 4 * values.std() / 20**0.5
        assert held(truth, infinite) >= 0.8
        plain_values = torch.tensor([score.value for score in plain], dtype=f64)
        assert plain_values.mean() - truth > 4 * plain_values.std() / 20**0.5
        assert held(plain_values.mean(), plain) >= 0.8


@pytest.mark.parametrize("n", [24, 90])
def test_floors_hold_the_scores_of_equal_sets(n):
    """Whatever the sizes are: fewer images than features, or a reference no larger than the set."""
    fid, kid = 0, 0
    for _ in range(60):
        a, b = statistics_of(normal(n, 32)), statistics_of(normal(n, 32))
        low, high = (equal := metrics.fid_floor(a, b)).interval
        fid += low <= metrics.fid(a, b, equal).value <= high
        low, high = metrics.kid_floor(a, b).interval
        kid += low <= metrics.kid(a.kept, b.kept).value <= high
    assert 52 <= fid <= 60
    assert 52 <= kid <= 60


def test_distances_of_few_images_have_no_interval():
    """The spread of FID is not known where there are fewer than two images for each feature."""
    a, b = statistics_of(normal(100, 60)), statistics_of(normal(300, 60))
    fid, infinite = metrics.fid(a, b), metrics.fid_infinity(a, b)
    assert fid.value > 0
    assert all(map(math.isnan, (*fid.interval, fid.standard_error, *infinite.interval, infinite.value)))


def test_precision_and_its_kin_of_plain_cases():
    """Sets that are equal, apart, or one a part of the other."""
    x, y = normal(300, 4), normal(300, 4)
    for measure in (neighbours.precision_recall, neighbours.density_coverage):
        first, second = measure(x, x.clone())
        assert first.value == pytest.approx(1, abs=0.35)
        assert second.value == 1
        assert [score.value for score in measure(x, y + 100)] == [0, 0]
    narrow = 0.1 * y
    precision, recall = neighbours.precision_recall(narrow, x)
    assert precision.value > 0.9
    assert recall.value < 0.1
    assert neighbours.density_coverage(narrow, x)[0].value > 1
    assert neighbours.density_coverage(narrow, x)[1].value < 0.3


def test_inception_score_of_sure_and_unsure():
    """It is the number of classes if each image surely shows one of them, equally often; 1 if all look alike."""
    sure, alike = Statistics.empty(1, 4, 1), Statistics.empty(1, 4, 1)
    pixels = torch.arange(80, dtype=torch.uint8).reshape(80, 1, 1, 1).expand(-1, 1, 4, 4)
    sure.add(torch.zeros(80, 1), torch.eye(4).repeat(20, 1), pixels)
    alike.add(torch.zeros(80, 1), torch.tensor([[0.7, 0.1, 0.1, 0.1]]).repeat(80, 1), pixels)
    assert metrics.inception_score(sure).value == pytest.approx(4, abs=1e-9)
    assert metrics.inception_score(alike)[:2] == pytest.approx((1, 0), abs=1e-9)


def test_colour_is_that_of_the_pixels():
    pixels = torch.randint(0, 256, (200, 3, 5, 6), dtype=torch.uint8)
    pixels[:, 1] = 255
    s = Statistics.empty(1, 1, 3)
    s.add(torch.zeros(200, 1), torch.ones(200, 1), pixels)
    found, x = metrics.colour(s), pixels.double() / 127.5 - 1
    for channel in range(3):
        assert found.mean[channel].value == pytest.approx(float(x[:, channel].mean()), abs=1e-12)
        assert found.std[channel].value == pytest.approx(float(x[:, channel].std(correction=0)), abs=1e-9)
    assert found.saturation[1][:2] == pytest.approx((1, 0))
    assert found.saturation[0].value == pytest.approx(2 / 256, abs=0.005)


def test_the_jackknife_of_a_mean_is_its_variance():
    """It is exact for groups of equal sizes; groups of other sizes change it little."""
    found = []
    for _ in range(60):
        s = statistics_of(torch.randn(200, 1, dtype=f64))
        found.append(metrics.jackknife(lambda s: float(s.total.sum() / s.n), s))
    assert sum(found) / 60 == pytest.approx(1 / 200, rel=0.2)
    alike = Statistics(*(torch.ones_like(part) for part in (s.count, *list(vars(s).values())[1:6])), s.kept, s.keys)
    alike.count, alike.total = torch.full((20,), 5.0, dtype=f64), torch.arange(20, dtype=f64)[:, None]
    expected = float((alike.total / 5).var()) / 20
    assert metrics.jackknife(lambda s: float(s.total.sum() / s.n), alike) == pytest.approx(expected)
    linear = metrics.jackknife(lambda s: 3 + 7 / s.n, s)  # what depends on the number alone has no variance
    assert linear == pytest.approx(0, abs=1e-12)


# Streaming


def scores(s, other):
    return {
        "fid": metrics.fid(s, other),
        "kid": metrics.kid(s.kept, other.kept),
        "precision": neighbours.precision_recall(s.kept, other.kept)[0],
        "inception": metrics.inception_score(s),
        "colour": metrics.colour(s).std[0],
    }


@pytest.mark.parametrize("batches", [(1,), (7, 64, 3), (300,)])
def test_scores_depend_neither_on_order_nor_on_batches(batches):
    x, other = normal(300, 6), statistics_of(normal(400, 6, 0.2))
    expected = scores(statistics_of(x), other)
    found = scores(statistics_of(x, batches, torch.randperm(300)), other)
    for name, (value, error, interval) in expected.items():
        assert found[name][:2] == pytest.approx((value, error), rel=1e-9, abs=1e-9), name
        assert found[name].interval == pytest.approx(interval, rel=1e-9, abs=1e-9), name


def test_streaming_is_the_batch():
    x = normal(500, 6).float()
    s, whole = statistics_of(x, (64,)), Moments.of(statistics_of(x))
    streamed = Moments.of(s)
    assert_close(streamed.mean, x.double().mean(0), rtol=0, atol=1e-12)
    assert_close(streamed.covariance, torch.from_numpy(np.cov(x.double().numpy().T)), rtol=0, atol=1e-12)
    assert_close(streamed.covariance, whole.covariance, rtol=0, atol=1e-12)
    assert s.n == 500
    assert sorted(s.kept.tolist()) == sorted(x.tolist())


def test_what_is_kept_does_not_grow():
    s = Statistics.empty(2, 1, 1)
    for start in range(0, MAX_KEPT + 3000, 1000):
        pixels = torch.arange(start, start + 1000).reshape(-1, 1, 1, 1)
        spelled = torch.cat([pixels % 256, pixels // 256], dim=3).byte()
        s.add(torch.randn(1000, 2), torch.ones(1000, 1), spelled)
    assert s.n == MAX_KEPT + 3000
    assert len(s.kept) == len(s.keys) == MAX_KEPT
    assert len(set(s.keys.tolist())) == MAX_KEPT


def test_too_few_groups_have_no_error():
    s = Statistics.empty(3, 3, 1)
    s.add(torch.randn(60, 3), torch.full((60, 3), 1 / 3), torch.zeros(60, 1, 4, 4, dtype=torch.uint8))
    assert math.isnan(metrics.fid_infinity(s, s).value)
    score = metrics.fid(s, s)
    assert score.value == pytest.approx(0, abs=1e-9)
    assert math.isnan(score.standard_error)


# Agreement


def test_scores_are_those_of_torch_fidelity(fidelity):
    x, y = normal(300, 24).float(), normal(300, 24, 0.2).float()
    a, b = statistics_of(x), statistics_of(y)
    fid = fidelity["fid"]
    theirs = fid.fid_statistics_to_metric(*map(fid.fid_features_to_statistics, (x.double(), y.double())), verbose=False)
    assert metrics.fid(a, b).value == pytest.approx(theirs["frechet_inception_distance"], abs=1e-6)
    kid = fidelity["kid"].kid_features_to_metric(
        x.double(), y.double(), kid_subsets=1, kid_subset_size=300, verbose=False
    )
    assert metrics.kid(a.kept, b.kept).value == pytest.approx(kid["kernel_inception_distance_mean"], abs=1e-9)
    prc = fidelity["prc"].prc_features_to_metric(x, y, prc_neighborhood=3, verbose=False)
    ours = [score.value for score in neighbours.precision_recall(a.kept, b.kept)]
    assert ours == pytest.approx([prc["precision"], prc["recall"]], abs=1e-6)
    isc = fidelity["isc"].isc_features_to_metric(x[:, :3], splits=1)
    assert metrics.inception_score(a).value == pytest.approx(isc["inception_score_mean"], abs=1e-6)


def test_neighbours_are_those_of_scikit_learn():
    """The radii, and the counts within them: Naeem et al. 2020, eq. 4 and 5, transcribed."""
    x, y = normal(200, 5), normal(300, 5, 0.3)
    tree = NearestNeighbors(n_neighbors=6).fit(y.numpy())
    radius = tree.kneighbors(y.numpy())[0][:, 5]
    assert_close(neighbours.radii(y, 5)[0], torch.from_numpy(radius), rtol=0, atol=1e-6)
    apart = np.linalg.norm(x.numpy()[:, None] - y.numpy()[None], axis=2)
    density, coverage = neighbours.density_coverage(x, y)
    assert density.value == pytest.approx((apart <= radius).sum() / 5 / 200, abs=1e-9)
    assert coverage.value == pytest.approx((apart.min(0) <= radius).mean(), abs=1e-9)
