"""Two values agree in their last digits, or within the rounding of another machine."""

import pytest

from unnoise.errors import InputError
from unnoise.verification.check import AGREES, DIFFERS, ROUNDED, UNKNOWN, compare_values, leaves, try_to, verdict


@pytest.mark.parametrize(
    ("stated", "recomputed", "wanted"),
    [
        (1.0, 1.0 + 1e-12, AGREES),
        (1.0, 1.0 + 1e-6, DIFFERS),
        (3, 4, DIFFERS),
        (True, 1, DIFFERS),
        ("a", "a", AGREES),
        ("a", "b", DIFFERS),
        (None, None, AGREES),
        (None, 0.5, DIFFERS),
        ("1.0", 1.0, DIFFERS),
    ],
)
def test_verdicts_on_the_same_machine(stated, recomputed, wanted):
    assert verdict(stated, recomputed) == wanted


@pytest.mark.parametrize(
    ("stated", "recomputed", "error", "wanted"),
    [
        (0.010, 0.012, 0.01, ROUNDED),
        (0.010, 0.014, 0.01, DIFFERS),
        (0.980, 0.950, None, ROUNDED),
        (0.980, 0.900, None, DIFFERS),
        (50, 51, None, DIFFERS),
    ],
)
def test_verdicts_on_another_machine(stated, recomputed, error, wanted):
    assert verdict(stated, recomputed, error, exact=False) == wanted


def test_values_are_compared_by_their_paths():
    stated = {"a": {"value": 0.10, "standard_error": 0.1}, "b": [1, "x"], "old": 2}
    recomputed = {"a": {"value": 0.12, "standard_error": 0.1}, "b": (1, "y"), "new": float("nan")}
    found = {check.what: check.verdict for check in compare_values("p", stated, recomputed, exact=False)}
    wanted = {"a.value": ROUNDED, "a.standard_error": AGREES, "b[0]": AGREES, "b[1]": DIFFERS}
    assert found == wanted | {"old": DIFFERS, "new": DIFFERS}


def test_a_tuple_is_the_list_that_json_makes_of_it():
    assert all(check.verdict == AGREES for check in compare_values("p", {"a": (), "b": (1,)}, {"a": [], "b": [1]}))


def test_empty_values_are_values():
    assert leaves({"a": [], "b": {}, "c": [{"d": None}]}) == {"a": [], "b": {}, "c[0].d": None}


def test_an_error_is_the_reason_of_each_value():
    def gone():
        raise InputError("it is gone")

    found = try_to("p", {"a": 1, "b": [2, 3]}, gone)
    assert [(check.what, check.verdict, check.why) for check in found] == [
        (what, UNKNOWN, "it is gone") for what in ("a", "b[0]", "b[1]")
    ]
