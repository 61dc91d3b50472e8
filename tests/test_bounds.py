"""Small inputs that ask for much are refused in one line, and none of them takes time or memory."""

import json
import time

import pytest
import torch
from safetensors.torch import save_file

import unnoise
from unnoise import registry
from unnoise.checkpoint import load
from unnoise.config import TrainConfig
from unnoise.errors import InputError
from unnoise.files import parse_json
from unnoise.recipes import train_config
from unnoise.training.clock import Clock

CARD = {
    "format": 1,
    "schedule": "cosine",
    "target": "x0",
    "shape": [3, 8, 8],
    "mode": "RGB",
    "classes": [],
    "sampling": {"sampler": "ddim", "steps": 5, "spacing": "log_snr", "clip": True, "guidance": 1.0},
}
NETWORKS = {
    "wide": "unet:widths=4096-4096-4096-4096,layers=4",
    "deep": f"unet:widths={'-'.join(['8'] * 300)},layers=1000",
    "many widths": f"unet:widths={'-'.join(['8'] * 3000)}",
    "transformer": "dit:width=4096,depth=4096,heads=1",
}
RECIPES = {
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\ndata: [*b, *b]",
    "brackets": "data: " + "[" * 3000,
    "braces": "{a: " * 3000,
    "digits": "batch: " + "9" * 5000,
    "base 60": "seed: " + "1:" * 3000 + "1",
    "date": "seed: 2001-99-99",
    "false int": "seed: !!int abc",
    "false float": "lr: !!float abc",
    "false time": "data: !!timestamp x",
    "long": "data: " + "x" * 200_000,
    "infinite": "lr: .inf",
}
NUMBERS = {
    "batch": ({"batch": 10**30}, "64 bits"),
    "large batch": ({"batch": 2**40}, "batch takes 1 to"),
    "epochs": ({"epochs": 10**21}, "64 bits"),
    "limit": ({"limit": 10**400}, "64 bits"),
    "lr": ({"lr": float("inf")}, "finite"),
    "weight decay": ({"weight_decay": 1e400}, "finite"),
}
LENGTHS = {
    "days": {"budget": "99999999d"},
    "digits of days": {"budget": "9" * 400 + "d"},
    "images": {"images": "999999999999G"},
    "digits of images": {"images": "9" * 400},
}
SPECS = {
    "recursion": ("schedule", "zero_snr:of=" * 3000),
    "length": ("schedule", "x" * 10**6),
    "name": ("sampler", "x" * 10_000),
}


@pytest.fixture(autouse=True)
def in_a_moment():
    """Fail if a test takes more CPU time than a refusal may."""
    begin = time.process_time()
    yield
    assert time.process_time() - begin < 2  # one second on an idle machine


def one_line(error):
    text = str(error.value)
    assert len(text) < 1000
    assert "\n" not in text
    return text


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("command", ["open", "start from"])
def test_a_small_file_cannot_ask_for_a_large_network(tmp_path, spec, command):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1)}, path, {"unnoise": json.dumps(CARD | {"backbone": spec})})
    with pytest.raises(InputError, match="the weights do not fit the network") as raised:
        load(path) if command == "open" else train_config(None, {"init": str(path)})
    one_line(raised)


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_a_recipe_cannot_ask_for_much(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"recipe\.yaml|finite") as raised:
        train_config(str(path), {})
    one_line(raised)


@pytest.mark.parametrize(("settings", "says"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_that_no_machine_can_count_to(settings, says):
    with pytest.raises(InputError, match=says) as raised:
        TrainConfig(**settings)
    one_line(raised)


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_lengths_beyond_ten_years(length):
    with pytest.raises(InputError, match="at most") as raised:
        Clock.from_config(TrainConfig(**length), 100)
    one_line(raised)


@pytest.mark.parametrize(("kind", "spec"), SPECS.values(), ids=SPECS)
def test_specs_that_never_end(kind, spec):
    with pytest.raises(InputError) as raised:
        getattr(registry, kind).get(spec)
    one_line(raised)


def test_a_spacing_whose_levels_are_not_finite():
    with pytest.raises(InputError, match="not finite"):
        unnoise.schedules.cosine().grid(10, "karras:rho=1e-320")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000])
def test_json_that_is_nested_too_deeply_is_damaged(text):
    with pytest.raises(ValueError, match=r"nested|digits"):
        parse_json(text)
