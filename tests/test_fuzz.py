"""Damaged and hostile input is refused in one line and never crashes a reader; `fuzz.py` runs more inputs."""

import pytest

from fuzz import fuzz, targets

MANY = 5_000


@pytest.mark.parametrize("name", [*targets()])
def test_no_input_crashes_a_reader(name):
    for _, data, wrong in fuzz(150, seed=1, only=[name]):
        pytest.fail(f"{wrong}\n{data[:300]!r}")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*targets()])
def test_no_other_input_crashes_a_reader(name):
    for _, data, wrong in fuzz(MANY, seed=2, only=[name]):
        pytest.fail(f"{wrong}\n{data[:300]!r}")
