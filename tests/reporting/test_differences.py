"""The rows of `unnoise compare` about differences, from contributions that are known."""

import pytest
import torch

from unnoise.evaluation.paired import contributions
from unnoise.reporting.differences import Measured, difference_rows, two_digits


def images(seed, n=200):
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))


def measured(name, shift, seed=0, reference=9, noise=0, **settings):
    y, keys = images(reference, 300), torch.arange(300) + reference
    pairs = {network: contributions(images(noise) + shift, y, keys) for network in ("first", "second")}
    return Measured(name, {"n": 200, "seed": seed, **settings}, True, pairs)


def test_each_run_is_compared_with_the_best_by_each_feature_extractor():
    runs = [measured("far", 0.8), measured("near", 0.2), measured("other", 0.2, noise=5)]
    rows, warnings = difference_rows(runs)
    assert warnings == []
    above, needed, second, *_, explained = rows
    assert above[0] == "kid above the best x 1000"
    assert second[0] == "kid above the best x 1000 by second"
    assert second[1:] == above[1:]
    assert above[1].endswith("worse")
    assert sorted([above[2].rpartition(", ")[2], above[3].rpartition(", ")[2]]) == ["lowest", "not told apart"]
    assert "hold together for all 3 pairs" in explained[0]
    assert int(needed[1].replace(",", "")) < 200, "so many would do"
    assert "best" in difference_rows(runs[:2])[0][0]
    assert "together" not in difference_rows(runs[:2])[0][-1][0]


def test_more_runs_have_wider_intervals():
    two, three = (difference_rows([measured(str(i), i / 5) for i in range(n)])[0][0] for n in (2, 3))
    widths = [
        float(high) - float(low)
        for low, high in (row[2].split("(")[1].split(")")[0].split(" to ") for row in (two, three))
    ]
    assert widths[1] / widths[0] == pytest.approx(2.625 / 2.093, rel=0.01)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (measured("b", 0.1, seed=7), "different seeds"),
        (measured("b", 0.1, reference=8), "reference images differ"),
        (measured("b", 0.1, n=20_000), "-n 10000"),
        (measured("b", 0.1)._replace(pairs={}), "the stored scores of b do not say"),
        (measured("b", 0.1)._replace(pairs={"third": measured("b", 0.1).pairs["first"]}), "feature extractors differ"),
    ],
)
def test_what_is_no_pair_is_not_compared(changed, words):
    rows, (warning,) = difference_rows([measured("a", 0.0), changed])
    assert rows == []
    assert words in warning
    assert difference_rows([measured("a", 0.0), changed._replace(has_kid=False)]) == ([], [])


def test_numbers_of_images_have_two_digits():
    assert [two_digits(n) for n in (0, 7.2, 99, 101, 1_234, 98_765)] == ["2", "8", "99", "110", "1,300", "99,000"]
