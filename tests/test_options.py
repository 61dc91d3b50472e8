"""Plain values: what a type hint takes, and how dataclasses are written as plain values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from unnoise.config import Sampling, TrainConfig
from unnoise.errors import InputError
from unnoise.options import check_value, describe_changes, plain
from unnoise.samplers.ddim import ddim


def own_sampler(denoise, x, levels, *, randn_like):
    yield


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (np.int64(3), int, 3),
        (3, float, 3.0),
        (np.float32(0.5), float, 0.5),
        ("1e-3", float, 1e-3),
        (float("inf"), float, float("inf")),
        (32, str, "32"),
        (Path("a") / "b", str, str(Path("a") / "b")),
        (None, str | None, None),
        (True, bool | None, True),
        ("crop", Literal["crop", "pad"], "crop"),
        ((64, 128), tuple[int, ...], (64, 128)),
        ([64, 128], tuple[int, ...], (64, 128)),
        (own_sampler, str | Callable[..., Any], own_sampler),
        ("ddim", str | Callable[..., Any] | None, "ddim"),
        (None, Any, None),
    ],
)
def test_a_value_of_the_right_kind_is_taken(value, hint, expected):
    found = check_value(value, hint, "here")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "says"),
    [
        ("3", int, "here takes a whole number, got '3'"),
        (3.5, int, "here takes a whole number, got 3.5"),
        (True, int, "here takes a whole number, got True"),
        (None, int, "here takes a whole number, got None"),
        ("fast", float, "here takes a number, got 'fast'"),
        (float("nan"), float, "here takes a number, got nan"),
        (True, float, "here takes a number, got True"),
        ("no", bool, "here takes true or false, got 'no'"),
        (1, bool, "here takes true or false, got 1"),
        (0.5, str, "here takes a text, got 0.5"),
        (True, str | None, "here takes a text, got True"),
        ("fp64", Literal["fp32", "bf16"], "unknown value for here 'fp64'; did you mean 'fp32'? Known: bf16, fp32"),
        (True, Literal["fp32", "bf16"], "unknown value for here 'True'; Known: bf16, fp32"),
        (0.5, str | Callable[..., Any], "here takes a text or a callable, got 0.5"),
        (64, tuple[int, ...], "here takes values such as (64, 128), got 64"),
        ((64, "x"), tuple[int, ...], "here takes a whole number, got 'x'"),
    ],
)
def test_a_value_of_another_kind_gets_one_line(value, hint, says):
    with pytest.raises(InputError) as error:
        check_value(value, hint, "here")
    assert str(error.value) == says


@dataclass(frozen=True)
class Example:
    data: Any = field(default=None, metadata={"data": True})
    network: Any = None
    how: Sampling = field(default_factory=Sampling)
    pairs: Any = ((1, 0.5),)


class Whole(torch.nn.Module):
    def __deepcopy__(self, memo):
        raise AssertionError("copied")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.zeros((100, 8, 8, 3), dtype=np.uint8), "array [100, 8, 8, 3] uint8"),
        (torch.zeros(4, 3, 8, 8), "array [4, 3, 8, 8] float32"),
        ([Path("a"), Path("b")], "list of 2"),
        (Path("photos"), "photos"),
        ("photos", "photos"),
        (None, None),
    ],
)
def test_data_in_memory_becomes_a_short_text(data, text):
    assert plain(Example(data))["data"] == text


def test_plain_values_of_a_dataclass():
    found = plain(Example(network=Whole(), how=Sampling(partial(ddim, eta=0.5))))
    assert found["network"] == f"{__name__}:Whole"
    assert found["how"] == plain(Sampling("ddim:eta=0.5"))
    assert found["pairs"] == ((1, 0.5),)
    assert plain(TrainConfig())["batch"] == 32


def test_an_entry_under_its_name_of_an_old_version_is_no_change():
    old, new, other = ({"objective": f"{name}:gamma=2.5,first=20"} for name in ("min_snr", "capped_v", "soft_min_snr"))
    assert describe_changes(old, new) == describe_changes(new, old) == []
    assert describe_changes(old, other) == [
        "objective was 'capped_v:gamma=2.5,first=20', now 'soft_min_snr:gamma=2.5,first=20'"
    ]
