"""TODO."""

import inspect
import re
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from unnoise.errors import InputError, unknown

PLAIN = (bool, int, float, str)


def options_of(entry: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Name -> (type, default) of the keyword-only parameters of plain type."""
    function = entry.__init__ if isinstance(entry, type) else entry  # type: ignore[misc]
    hints = get_type_hints(function)
    return {
        p.name: (hints[p.name], p.default)
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY and is_plain(hints.get(p.name))
    }


def is_plain(hint: Any) -> bool:
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
            raise InputError(f"{where} takes true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return hint(text)
    except ValueError:
        kind = {"int": "a whole number", "float": "a number"}[hint.__name__]
        raise InputError(f"{where} takes {kind}, got {text!r}; for example {format_value(example)}") from None


def format_value(value: Any) -> str:
    """Write a value the way `parse` reads it."""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
