"""Recipes: named sets of training settings. The config.yaml of a run is a recipe too."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from unnoise import checkpoint, registry
from unnoise.config import LENGTHS, TrainConfig
from unnoise.errors import InputError, unknown
from unnoise.options import check_value, type_hints
from unnoise.run_folder import CONFIG, is_own, link_error

MAX_RECIPE, MAX_BRACKETS = 10**5, 100  # characters and brackets; the betas of a schedule take 20,000


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
        file = checkpoint.find_model(Path(given["init"]))
        card, weights = checkpoint.read_model(file)
        if given.get("backbone") is None and not registry.is_own(card.backbone):
            checkpoint.check_network(card, weights, file)
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
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise InputError(f"{where} holds no settings; a recipe is lines of 'name: value'")
    for name in ("out", "fresh"):  # the folder of a run is not part of its recipe
        values.pop(name, None)
    return check_settings(values, where)


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text; raise InputError if it is damaged, too large, or grows by aliases."""
    if len(text) > MAX_RECIPE:
        raise InputError(f"{where} is no recipe: it is longer than {MAX_RECIPE:,} characters")
    if text.count("[") + text.count("{") > MAX_BRACKETS:
        raise InputError(f"{where} is no recipe: it has more than {MAX_BRACKETS} brackets")
    try:
        repeats = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, yaml.SafeLoader))
        values = None if repeats else yaml.safe_load(text)
    except (
        yaml.YAMLError,
        ValueError,
        AttributeError,
        TypeError,
        LookupError,
        RecursionError,
    ) as error:  # values that claim a type they have not
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split()):.300}") from None
    if repeats:
        raise InputError(f"{where} repeats values by *NAME, which a recipe does not need: write them out")
    return values


def check_settings(values: Mapping[str, Any], recipe: str = "") -> dict[str, Any]:
    """Return settings as TrainConfig has them; raise InputError for unknown settings and values of another kind."""
    kind, prefix = (f"setting in {recipe}", f"{recipe}: ") if recipe else ("setting", "")
    hints = type_hints(TrainConfig)
    for name in values:
        if name not in hints:
            raise unknown(kind, str(name), hints)
    return {name: check_value(value, hints[name], prefix + name) for name, value in values.items()}
