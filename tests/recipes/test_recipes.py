"""Recipes and settings."""

from pathlib import Path

import pytest

import unnoise
from unnoise import registry
from unnoise.errors import InputError
from unnoise.recipes import train_config


def test_the_notebook_recipe_is_the_notebook_setting_for_setting():
    config = train_config("notebook", {})
    assert (config.limit, config.size, config.batch, config.epochs, config.lr) == (10_000, "32", 256, 50, 2e-4)
    assert (config.schedule, config.target, config.objective) == ("linear", "eps", "simple")
    assert (config.ema_halflife, config.decay, config.warmup, config.max_grad_norm) == (0, "none", 0, 0)
    assert (config.sampler, config.steps, config.clip) == ("ddpm", 1000, False)
    network = registry.backbone.get(config.backbone)(3)
    assert sum(p.numel() for p in network.parameters()) == 14_406_531
    assert "widths=64-128-256-512" in train_config("notebook-exercise", {}).backbone


def test_another_length_replaces_the_recipes():
    config = train_config("notebook", {"budget": "5m"})
    assert (config.budget, config.epochs) == ("5m", None)


def test_settings_of_the_wrong_name_or_type_are_refused():
    with pytest.raises(InputError, match="did you mean 'budget'"):
        train_config(None, {"budgett": "5m"})
    with pytest.raises(InputError, match="batch takes a whole number, got '8'"):
        train_config(None, {"batch": "8"})


def test_natural_values_are_understood():
    config = train_config(None, {"size": 32, "images": 2000, "lr": "1e-3", "weight_decay": 1})
    assert (config.size, config.images, config.lr, config.weight_decay) == ("32", "2000", 1e-3, 1.0)


def test_the_recipes_of_the_notebook_promise_its_settings_and_not_its_numbers():
    root = Path(unnoise.__file__).parents[2]
    for name in ("notebook", "notebook-exercise"):
        header = (root / "src" / "unnoise" / "recipes" / f"{name}.yaml").read_text()
        assert "setting for setting" in header.split("data:")[0]
    pages = [root / "README.md", *root.glob("docs/**/*.md"), *root.glob("docs/**/*.py"), *root.glob("src/**/*.yaml")]
    assert not [page for page in pages if "number for number" in " ".join(page.read_text().replace("#", "").split())]
    assert "unnoise.diffusion.objective.weighted" in next(
        row for row in (root / "docs" / "course" / "index.md").read_text().splitlines() if row.startswith("| $w_t$")
    )
