"""Plain values: read them from text, check them against a type hint, write them; and the text of any callable."""

import inspect
import math
import os
import re
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache, partial
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from unnoise.errors import InputError, unknown

Spec: TypeAlias = str | Callable[..., Any]  # a name with options such as "ddim:eta=0.5", or the callable itself

PLAIN = (bool, int, float, str)
MAX_WHOLE = 2**63 - 1  # what 64 bits hold
OLD_NAMES = {"min_snr": "capped_v"}  # objectives that had another name in version 0.1.0


def options_of(entry: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return name -> (type, default) of the keyword-only parameters of plain type."""
    function: Any = entry.__init__ if isinstance(entry, type) else entry  # type: ignore[misc]
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        hints, parameters = get_type_hints(function), inspect.signature(function).parameters.values()
    except (NameError, TypeError, ValueError):  # a builtin, or annotations of names that are not there
        return {}
    return {
        p.name: (hints[p.name], p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and is_plain(hints.get(p.name))
    }


def is_plain(hint: Any) -> bool:
    """Return True if values of this type can be written in a spec."""
    if get_origin(hint) in (Union, types.UnionType, tuple):
        return all(is_plain(arm) for arm in get_args(hint) if arm not in (type(None), ...))
    return hint in PLAIN or get_origin(hint) is Literal


def parse_value(text: str, hint: Any, where: str, example: Any) -> Any:
    """Read one value of a plain type; tuples are written 64-128-256."""
    arms = [arm for arm in get_args(hint) if arm is not type(None)]
    if get_origin(hint) in (Union, types.UnionType):
        return None if text == "none" else parse_value(text, arms[0], where, example)
    if get_origin(hint) is tuple:
        return tuple(parse_value(part, arms[0], where, example) for part in re.split(r"(?<![eE])-", text) if part)
    if get_origin(hint) is Literal:
        if text not in arms:
            raise unknown(f"value for {where}", text, map(str, arms))
        return text
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{where} takes true or false, got {short_repr(text)}")
        return text.lower() == "true"
    try:
        return hint(text)
    except ValueError:
        kind = {"int": "a whole number", "float": "a number"}[hint.__name__]
        raise InputError(f"{where} takes {kind}, got {short_repr(text)}; for example {format_value(example)}") from None


def check_value(value: Any, hint: Any, where: str) -> Any:
    """Return a value as its type hint has it, or raise InputError.

    A number may be written as text, as YAML reads 1e-3, and a text as a whole number or a path, as in size=32.
    """
    origin, arms = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if not isinstance(value, str) or value not in arms:
            raise unknown(f"value for {where}", str(value), map(str, arms))
        return value
    if origin in (Union, types.UnionType):
        return check_union(value, arms, where)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise InputError(f"{where} takes values such as (64, 128), got {short_repr(value)}")
        return tuple(check_value(item, arms[0], where) for item in value)
    converted = convert(value, hint)
    if converted is None:
        raise InputError(f"{where} takes {kind_of(hint)}, got {short_repr(value)}")
    return converted


def check_fields(config: Any) -> None:
    """Check every field of a frozen dataclass against its type hint and range, and convert it."""
    kind: Any = type(config)
    hints = type_hints(kind)
    for f in fields(config):
        value = check_value(getattr(config, f.name), hints[f.name], f.name)
        if isinstance(value, PurePath):  # of data, which may be anything
            value = str(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{f.name} takes a finite number, got {value}")
        least, most = f.metadata.get("least"), f.metadata.get("most")
        if value is not None and ((least is not None and value < least) or (most is not None and value > most)):
            allowed = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
            raise InputError(f"{f.name} takes {allowed}, got {value}")
        object.__setattr__(config, f.name, value)


def option(  # the facts about one setting
    default: Any,
    text: str,
    *,
    title: str = "",
    least: float | None = None,
    most: float | None = None,
    data: bool = False,
) -> Any:
    """Return a dataclass field with everything that flags, checks and files need to know about it.

    Args:
        default: Its default.
        text: The help of its flag.
        title: The heading in the help of this flag and of those after it.
        least: The smallest number it may be.
        most: The largest number it may be.
        data: True if it may hold data in memory, which is written as a short text.
    """
    return field(default=default, metadata={"help": text, "title": title, "least": least, "most": most, "data": data})


@dataclass(frozen=True)
class Settings:
    """Base of the settings of all commands: every value is checked when they are made."""

    def __post_init__(self) -> None:
        check_fields(self)


@lru_cache
def type_hints(config: type) -> dict[str, Any]:
    """Return the type hints of a class."""
    return get_type_hints(config)


def name_of_today(spec: str) -> str:
    """Return the spec of an objective under the name that it has today."""
    name, colon, options = spec.partition(":")
    return f"{OLD_NAMES.get(name.strip(), name)}{colon}{options}"


def with_names_of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a training with the objective under its name of today."""
    objective = config.get("objective")
    return {**config, "objective": name_of_today(objective)} if isinstance(objective, str) else dict(config)


def short_repr(value: Any) -> str:
    """Return a value in one line of at most 100 characters."""
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        return "a number of more than 64 bits"
    return " ".join(repr(value).split())[:100]


def check_union(value: Any, arms: tuple[Any, ...], where: str) -> Any:
    """Return a value as one arm of a union has it."""
    if value is None and type(None) in arms:
        return None
    arms = tuple(arm for arm in arms if arm is not type(None))
    if len(arms) == 1:
        return check_value(value, arms[0], where)
    converted = next((found for arm in arms if (found := convert(value, arm)) is not None), None)
    if converted is None:
        raise InputError(f"{where} takes {' or '.join(map(kind_of, arms))}, got {short_repr(value)}")
    return converted


def convert(value: Any, hint: Any) -> Any:
    """Return a value as a plain type or a callable has it; None if it is of another kind."""
    if hint is bool or isinstance(value, bool):
        return value if hint is bool and isinstance(value, bool) else None
    if hint is int:
        return int(value) if isinstance(value, Integral) and abs(int(value)) <= MAX_WHOLE else None
    if hint is float:
        return to_number(value)
    if hint is str:
        return os.fspath(value) if isinstance(value, os.PathLike) else to_text(value)
    return value if callable(value) else None


def to_number(value: Any) -> float | None:
    """Return a number or the text of one as float, and None for anything else and for nan."""
    if not isinstance(value, Real | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def to_text(value: Any) -> str | None:
    """Return a text, or a whole number as text."""
    return (
        str(value) if isinstance(value, str) or (isinstance(value, Integral) and abs(int(value)) <= MAX_WHOLE) else None
    )


def kind_of(hint: Any) -> str:
    """Return words for a type."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words.get(hint, "a callable")


def format_value(value: Any) -> str:
    """Write a value the way `parse_value` reads it."""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def spec_text(spec: Spec) -> str:
    """Return the text of a spec for cards, settings and tables.

    A registered entry, a partial of one and an instance of one give `name:option=value`; any other callable gives
    `module:qualname`, with the plain options of a partial behind it. A text is returned as it is.
    """
    if isinstance(spec, str):
        return spec
    func, given = (spec.func, spec.keywords) if isinstance(spec, partial) else (spec, {})
    if not isinstance(func, type) and hasattr(func, "made_with"):  # an instance of a registered class
        given = {name: value for name, value in func.made_with.items() if name in options_of(type(func))}
    entry: Any = func if hasattr(func, "__qualname__") else type(func)
    registered = getattr(entry, "registered_entry", None) is entry
    name = entry.__name__.lower() if registered else f"{entry.__module__}:{entry.__qualname__}"
    plain_ones = {key: value for key, value in given.items() if isinstance(value, (*PLAIN, tuple, type(None)))}
    options = ",".join(f"{key}={format_value(value)}" for key, value in plain_ones.items())
    return f"{name}:{options}" if options else name


def plain(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as plain values, without copies of arrays or networks.

    Callables become their text, and data in memory becomes a short text such as "array [100, 32, 32, 3] uint8".
    """
    return {
        f.name: data_text(value) if f.metadata.get("data") else plain_value(value)
        for f in fields(config)
        for value in [getattr(config, f.name)]
    }


def plain_value(value: Any) -> Any:
    """Return one value of a dataclass as plain values."""
    if value is None or isinstance(value, PLAIN):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, Mapping):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain_value, value))
    return spec_text(value) if callable(value) else data_text(value)


def data_text(data: Any) -> Any:
    """Return a short text of data in memory; a path or a name is returned as text, and None as it is."""
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, PurePath):
        return str(data)
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        return f"array {list(data.shape)} {str(data.dtype).removeprefix('torch.')}"
    count = f" of {len(data):,}" if hasattr(data, "__len__") else ""
    return f"{type(data).__name__}{count}"


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """Return a line for each setting that has changed, except for settings that are free to change."""
    before, now = with_names_of_today(before), with_names_of_today(now)
    return [
        f"{name} was {before.get(name)!r}, now {value!r}"
        for name, value in now.items()
        if name not in free and before.get(name) != value
    ]
