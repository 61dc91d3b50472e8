"""Plugins: files of one's own, installed packages, and runs that need them."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

import unnoise
from tiny import smooth
from unnoise import cli, plugins, registry
from unnoise.card import parse_card
from unnoise.checkpoint import load
from unnoise.errors import InputError

PLUGIN = '''
from itertools import pairwise
from torch import nn
from unnoise.registry import backbone, sampler
from unnoise.samplers.base import Step

@sampler.declare(order=1, evaluations=1)
def plain(denoise, x, levels, *, randn_like):
    """Draw images in plain steps."""
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        x = s.alpha.to(x) * x0 + s.sigma.to(x) * eps
        yield Step(x, x0, s)

@backbone
class Tiny(nn.Module):
    """A network of one layer."""
    def __init__(self, channels, classes=0, outputs=None, *, kernel: int = 3):
        super().__init__()
        self.layer = nn.Conv2d(channels, outputs or channels, kernel, padding=kernel // 2)
    def forward(self, x, time, label=None):
        return self.layer(x)

class Unnamed(Tiny):
    """A network that is not registered."""
    def __init__(self, channels):
        super().__init__(channels)
'''
TRAIN = ["--images", "16", "--batch", "8", "--steps", "2", "--precision", "fp32"]


@pytest.fixture
def registries(monkeypatch):
    """Registries and modules that are as they were afterwards."""
    kinds = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    for kind in kinds:
        kind.names()
        monkeypatch.setattr(kind, "entries", dict(kind.entries))
        monkeypatch.setattr(kind, "facts", dict(kind.facts))
    before = set(sys.modules)
    monkeypatch.setattr(plugins, "origins", {})
    monkeypatch.setattr(plugins, "loaded", set())
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_plugin.py").write_text(PLUGIN, encoding="utf-8")
    np.save("photos.npy", smooth(32, 8, seed=0))
    return "my_plugin.py"


def command(*argv):
    """Run a command in a process of its own; return (exit status, stdout, stderr)."""
    done = subprocess.run([sys.executable, "-m", "unnoise", *argv], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr.strip()


@pytest.mark.slow
def test_the_command_line_knows_the_entries_of_a_plugin(plugin):
    status, _, error = command(
        "train", "photos.npy", *TRAIN, "--out", "run", "--backbone", "tiny:kernel=1", "--plugin", plugin
    )
    assert (status, error) == (0, "")
    assert command("sample", "run", "-n", "2", "--sampler", "plain", "--out", "drawn", "--plugin", plugin)[0] == 0
    assert len(list(Path("drawn").glob("[0-9]*.png"))) == 2
    status, text, _ = command("info", "run", "--plugin", plugin)
    assert "tiny:kernel=1, from the plugin my_plugin.py" in text
    status, _, error = command("info", "run")
    assert status == 2
    assert error == (
        "unnoise: run/model.safetensors: its network is tiny (from the plugin my_plugin.py), which is not known here; "
        "add --plugin FILE.py that defines it, or import it in Python: "
        "unnoise.load('run/model.safetensors', backbone=...)"
    )
    assert (
        "plain\n    Draw images in plain steps. [order 1; evaluations 1]"
        in command("list", "samplers", "--plugin", plugin)[1]
    )
    assert (
        "more can come from --plugin FILE.py" in command("sample", "run", "--sampler", "plian", "--plugin", plugin)[2]
    )


def test_a_run_says_which_plugin_defines_its_network(plugin, registries):
    own = plugins.load_file(plugin)
    assert plugins.load_file(plugin) is own  # once
    for backbone, text in [
        ("tiny", "tiny"),
        (own.Unnamed, "my_plugin:Unnamed"),
        ("my_plugin:Unnamed", "my_plugin:Unnamed"),
    ]:
        model = unnoise.Diffusion(
            registry.backbone.get(backbone)(3), unnoise.schedules.cosine(), unnoise.targets.v, (3, 8, 8)
        )
        unnoise.save("mine.safetensors", model)
        card = load("mine.safetensors").card
        assert (card.backbone, card.plugin) == (text, "my_plugin.py")
    with pytest.raises(InputError) as error:
        registry.sampler.get("my_plugin:nothing")
    assert "it belongs to the Python module my_plugin" in str(error.value)


def test_a_card_without_the_field_is_still_read():
    text = (
        '{"backbone": "unet", "schedule": "cosine", "target": "v", "shape": [3, 8, 8], "mode": "RGB", "classes": [], '
        '"learned_variance": false, "sampling": {}, "data": {}, "training": {}, "format": 1}'
    )
    assert parse_card(text, Path("old")).plugin == ""
    with pytest.raises(InputError, match="its description is damaged"):
        parse_card(text.replace('"format"', '"plugin": 3, "format"'), Path("old"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("my_broken.py", "1 / 0", "the plugin my_broken.py cannot be loaded: ZeroDivisionError: division by zero"),
        ("my_torn.py", "def f(:", "the plugin my_torn.py cannot be loaded: SyntaxError"),
        ("my_notes.txt", "", "--plugin takes a Python file, and my_notes.txt is none"),
        ("torch.py", "", "--plugin torch.py: a module named torch is in use already; rename the file"),
        ("wave.py", "", "--plugin wave.py: another module has the name wave; rename the file"),
    ],
)
def test_a_file_that_is_no_plugin_gets_one_line(plugin, registries, capfd, name, content, says):
    Path(name).write_text(content, encoding="utf-8")
    assert cli.main(["list", "samplers", "--plugin", name]) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith(f"unnoise: {says}")
    assert len(error.splitlines()) == 1
    assert not name.startswith("my_") or Path(name).stem not in sys.modules


def test_a_plugin_that_is_missing(capfd, registries):
    assert cli.main(["list", "samplers", "--plugin", "nowhere.py"]) == 2
    assert "--plugin takes a Python file, and nowhere.py is none" in capfd.readouterr().err


class Distribution:
    name = "my-package"


def entry(monkeypatch, value):
    """Let an entry point be the only one that is installed."""
    made = EntryPoint("mine", value, plugins.GROUP)
    vars(made)["dist"] = Distribution()
    monkeypatch.setattr(plugins, "installed", lambda: EntryPoints([made]))


def test_installed_plugins_are_loaded_on_the_first_look_up(plugin, registries, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    entry(monkeypatch, "my_plugin")
    assert "my_plugin" not in sys.modules
    assert "plain" in registry.sampler.names()
    assert "my_plugin" in sys.modules
    assert registry.backbone.origin("tiny") == "my-package"
    del sys.modules["my_plugin"]
    registry.sampler.names()
    assert "my_plugin" not in sys.modules  # loaded once


def test_an_installed_plugin_that_fails_is_named(plugin, registries, monkeypatch):
    entry(monkeypatch, "my_missing")
    with pytest.raises(InputError) as error:
        registry.sampler.get("ddim")
    assert str(error.value) == (
        "the plugin mine of the package my-package cannot be loaded: ModuleNotFoundError: No module named "
        "'my_missing'; update or uninstall it"
    )
