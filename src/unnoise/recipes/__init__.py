"""Recipes: named sets of training settings. Any run's config.yaml is one too."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from unnoise import checkpoint
from unnoise.config import LENGTHS, TrainConfig
from unnoise.errors import InputError, unknown


def names() -> list[str]:
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files("unnoise.recipes").iterdir() if entry.name.endswith(".yaml")
    )


def train_config(recipe: str | None, settings: Mapping[str, Any]) -> TrainConfig:
    """The recipe's settings (or the defaults) with `settings` in their place."""
    values = {} if recipe is None else read(recipe)
    if any(settings.get(name) is not None for name in LENGTHS):  # one length replaces another
        values = {name: value for name, value in values.items() if name not in LENGTHS}
    if settings.get("init"):
        card, _ = checkpoint.read_model(checkpoint.find_model(Path(settings["init"])))
        values |= {"backbone": card.backbone, "schedule": card.schedule, "target": card.target}
    return TrainConfig(**values | checked(settings, "settings"))


def read(recipe: str) -> dict[str, Any]:
    """A built-in recipe by name, or a YAML file such as a run's config.yaml."""
    if recipe in names():
        text, where = files("unnoise.recipes").joinpath(f"{recipe}.yaml").read_text("utf-8"), f"recipe {recipe}"
    elif Path(recipe).is_file():
        try:
            text, where = Path(recipe).read_text("utf-8"), recipe
        except UnicodeDecodeError:
            raise InputError(f"{recipe} is no recipe: it is not text") from None
    else:
        raise unknown("recipe", recipe, [*names(), "or a run's config.yaml"])
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{where} holds no settings; a recipe is lines of 'name: value'")
    for name in ("out", "fresh"):  # a run's own folder is not part of its recipe
        values.pop(name, None)
    return checked(values, where)


def checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Refuse unknown settings, and values of another type; whole numbers are fine where numbers are."""
    hints, result = get_type_hints(TrainConfig), dict(values)
    for name, value in values.items():
        if name not in hints:
            raise unknown(f"setting in {where}", str(name), hints)
        if get_origin(hints[name]) is Literal and value not in get_args(hints[name]):
            raise unknown(f"value for {name}", str(value), get_args(hints[name]))
        allowed = tuple(arm for arm in (get_args(hints[name]) or (hints[name],)) if isinstance(arm, type)) or (str,)
        if float in allowed and type(value) in (int, str) and is_number(value):  # YAML reads 1e-3 as text
            result[name] = float(value)
        elif str in allowed and (type(value) is int or isinstance(value, Path)):  # size: 32, out=Path("x")
            result[name] = str(value)
        elif type(value) not in allowed:
            kinds = " or ".join("nothing" if arm is type(None) else arm.__name__ for arm in allowed)
            raise InputError(f"{where}: {name} takes {kinds}, got {value!r}")
    return result


def is_number(value: int | str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
