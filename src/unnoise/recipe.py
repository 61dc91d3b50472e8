"""Recipes: named sets of training settings. Any run's config.yaml is one too."""

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from unnoise.config import TrainConfig
from unnoise.errors import InputError, unknown

LENGTHS = ("budget", "images", "epochs")


def names() -> list[str]:
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files("unnoise.recipes").iterdir() if entry.name.endswith(".yaml")
    )


def train_config(recipe: str | None, settings: Mapping[str, Any]) -> TrainConfig:
    """The recipe's settings (or the defaults) with `settings` in their place."""
    config = TrainConfig() if recipe is None else read(recipe)
    known = {f.name for f in fields(TrainConfig)}
    for name in settings:
        if name not in known:
            raise unknown("setting", name, known)
    if any(settings.get(name) is not None for name in LENGTHS):  # one length replaces another
        config = replace(config, budget=None, images=None, epochs=None)
    return typed(replace(config, **settings), "settings")


def read(recipe: str) -> TrainConfig:
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
    known = {f.name for f in fields(TrainConfig)}
    for name in values:
        if name not in known:
            raise unknown(f"setting in {where}", str(name), known)
    values.pop("out", None)  # a run's own folder is not part of its recipe
    return typed(TrainConfig(**values), where)


def typed(config: TrainConfig, where: str) -> TrainConfig:
    """Refuse values of another type than the field's; whole numbers are fine where numbers are."""
    hints = get_type_hints(TrainConfig)
    changes: dict[str, Any] = {}
    for name in (f.name for f in fields(config)):
        value, hint = getattr(config, name), hints[name]
        allowed = tuple(arm for arm in (get_args(hint) or (hint,)) if isinstance(arm, type)) or (str,)
        if float in allowed and type(value) is int:
            changes[name] = float(value)
        elif type(value) not in allowed:
            kinds = " or ".join("nothing" if arm is type(None) else arm.__name__ for arm in allowed)
            raise InputError(f"{where}: {name} takes {kinds}, got {value!r}")
    return replace(config, **changes)
