"""Recipes: named sets of training settings. The config.yaml of a run is a recipe too."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from unnoise import checkpoint
from unnoise.config import LENGTHS, TrainConfig
from unnoise.errors import InputError, unknown
from unnoise.options import check_value, type_hints
from unnoise.run_folder import CONFIG, is_own, link_error


def names() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files("unnoise.recipes").iterdir() if entry.name.endswith(".yaml")
    )


def train_config(recipe: str | None, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a recipe, or the defaults, with `settings` in their place."""
    recipe, given = check_value(recipe, str | None, "recipe"), check_settings(settings)
    values = {} if recipe is None else read_recipe(recipe)
    if any(given.get(name) is not None for name in LENGTHS):  # one length replaces another
        values = {name: value for name, value in values.items() if name not in LENGTHS}
    if given.get("init"):
        card, _ = checkpoint.read_model(checkpoint.find_model(Path(given["init"])))
        values |= {"backbone": card.backbone, "schedule": card.schedule, "target": card.target}
        if card.target == "eps" and given.get("target") is None:  # the default objective is not for eps
            values.setdefault("objective", "hybrid" if card.learned_variance else "simple")
    return TrainConfig(**values | given)


def read_recipe(recipe: str) -> dict[str, Any]:
    """Return the settings of a built-in recipe or of a YAML file such as the config.yaml of a run."""
    if recipe in names():
        text, where = files("unnoise.recipes").joinpath(f"{recipe}.yaml").read_text("utf-8"), f"recipe {recipe}"
    elif Path(recipe).is_file():
        if Path(recipe).name == CONFIG and not is_own(Path(recipe).parent, Path(recipe)):
            raise link_error(Path(recipe), Path(recipe).parent)
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
    for name in ("out", "fresh"):  # the folder of a run is not part of its recipe
        values.pop(name, None)
    return check_settings(values, where)


def check_settings(values: Mapping[str, Any], recipe: str = "") -> dict[str, Any]:
    """Return settings as TrainConfig has them; raise InputError for unknown settings and values of another kind."""
    kind, prefix = (f"setting in {recipe}", f"{recipe}: ") if recipe else ("setting", "")
    hints = type_hints(TrainConfig)
    for name in values:
        if name not in hints:
            raise unknown(kind, str(name), hints)
    return {name: check_value(value, hints[name], prefix + name) for name, value in values.items()}
