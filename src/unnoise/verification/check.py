"""A check: a value that a run states, the same value recomputed, and the verdict."""

import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from unnoise.errors import InputError
from unnoise.files import finite_json

LAST_DIGITS = 1e-9  # relative difference that the order of a sum makes on the same machine
OF_THE_ERROR = 0.25  # of a standard error: rounding on another machine changes a score by less
OF_THE_VALUE, AT_LEAST = 0.05, 0.005  # where no standard error is known: of the value, and of a share near 0
ELSEWHERE = (
    "the run was made on another machine or by another version of torch, which rounds otherwise: a difference of "
    f"{OF_THE_ERROR:g} standard errors, or of {OF_THE_VALUE:.0%} where there is none, still agrees"
)

Verdict = Literal["agrees", "agrees within rounding", "differs", "cannot be recomputed"]
AGREES: Final = "agrees"
ROUNDED: Final = "agrees within rounding"
DIFFERS: Final = "differs"
UNKNOWN: Final = "cannot be recomputed"


@dataclass(frozen=True)
class Check:
    """Hold a value that a run states, the same value recomputed, and the verdict.

    Attributes:
        part: The file, or the part of a file, such as "evaluations/0001.json scores".
        what: The value in it, such as "values.kid.value".
        verdict: Whether both are the same.
        stated, recomputed: Both values; None if there is none.
        why: Why the value cannot be recomputed, or what the difference is.
    """

    part: str
    what: str
    verdict: Verdict
    stated: Any = None
    recomputed: Any = None
    why: str = ""


def unknown_checks(part: str, stated: Any, why: object) -> list[Check]:
    """Return a check for each value in a part that cannot be recomputed."""
    return [Check(part, what, UNKNOWN, value, why=str(why)) for what, value in leaves(stated).items()]


def compare_values(
    part: str, stated: Any, recomputed: Any, *, exact: bool = True, free: Collection[str] = ()
) -> Iterator[Check]:
    """Yield a check for each number and text in two nests of plain values.

    Args:
        part: The name of the nests.
        stated, recomputed: The nests, as JSON can hold them.
        exact: False allows for the rounding of another machine.
        free: Paths of values that follow from the place of the run, and are not compared.
    """
    ours, theirs = (leaves(json.loads(json.dumps(finite_json(nest)))) for nest in (stated, recomputed))
    for what, value in ours.items():
        if what in free:
            continue
        if what not in theirs:
            yield Check(part, what, DIFFERS, value, why="there is no such value")
            continue
        error = next((ours[name] for name in names_of_error(what) if name in ours), None)
        yield Check(part, what, verdict(value, theirs[what], error, exact=exact), value, theirs[what])
    for what in (name for name in theirs if name not in ours and name not in free):
        yield Check(part, what, DIFFERS, recomputed=theirs[what], why="it is left out")


def names_of_error(what: str) -> Iterator[str]:
    """Yield the paths where the standard error of a value may stand: next to it, or next to its interval."""
    while "." in what:
        what = what.rpartition(".")[0]
        yield f"{what}.standard_error"
    yield "standard_error"


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return all values of a nest that hold no others, by their paths; empty ones count as values."""
    if isinstance(value, dict) and value:
        pairs = [(f"{path}.{key}" if path else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple) and value:
        pairs = [(f"{path}[{i}]", inner) for i, inner in enumerate(value)]
    else:
        return {path: value}
    return {name: leaf for key, inner in pairs for name, leaf in leaves(inner, key).items()}


def verdict(stated: Any, recomputed: Any, error: Any = None, *, exact: bool = True) -> Verdict:
    """Return whether two values agree; `error` is the standard error of the value, if it has one."""
    if not (is_number(stated) and is_number(recomputed)):
        return AGREES if same(stated, recomputed) else DIFFERS
    apart = abs(stated - recomputed)
    if apart <= LAST_DIGITS * max(abs(stated), abs(recomputed)):
        return AGREES
    if exact or isinstance(stated, int):
        return DIFFERS
    room = OF_THE_ERROR * abs(error) if is_number(error) else AT_LEAST
    return ROUNDED if apart <= max(room, OF_THE_VALUE * abs(recomputed)) else DIFFERS


def same(stated: Any, recomputed: Any) -> bool:
    """Return True for equal values of one type: true is not 1."""
    return type(stated) is type(recomputed) and bool(stated == recomputed)


def is_number(value: Any) -> bool:
    """Return True for a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def check_number(part: str, what: str, stated: Any, low: float, high: float) -> Check:
    """Return a check of a number that lies between two recomputed ones, since the run rounds what it follows from."""
    slack = LAST_DIGITS * max(abs(low), abs(high))
    fits = is_number(stated) and low - slack <= stated <= high + slack
    found = low if math.isclose(low, high, rel_tol=LAST_DIGITS) else f"{low:.6g} to {high:.6g}"
    return Check(part, what, AGREES if fits else DIFFERS, stated, found)


def try_to(part: str, stated: Any, work: Callable[[], list[Check]]) -> list[Check]:
    """Return the checks of a part, or why none of its values can be recomputed, such as data that is gone."""
    try:
        return work()
    except (InputError, OSError) as error:
        return unknown_checks(part, stated, error)
