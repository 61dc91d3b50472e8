"""Images from a run, given as a folder, a file, a run or a model: what is accepted, refused and left as it was."""

import functools
import gc
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import warnings
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import unnoise
from unnoise import registry
from unnoise.config import SampleConfig
from unnoise.errors import InputError
from unnoise.images import save_image
from unnoise.samplers import Step, ddim, ddpm
from unnoise.sampling import grid_path, sample_to_folder

SHAPE = (3, 8, 8)


class Network(nn.Module):
    """A small network with dropout, whose output depends on the time."""

    def __init__(self, channels=3, classes=0, outputs=None):
        super().__init__()
        self.conv, self.dropout = nn.Conv2d(channels, outputs or channels, 3, padding=1), nn.Dropout(0.5)

    def forward(self, x, time, label=None):
        return self.dropout(self.conv(x)) + time[:, None, None, None] / 1000


def straight_line(denoise, x, levels, *, randn_like):
    """Take steps as ddim does, in plain arithmetic."""
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        x = s.alpha.to(x) * x0 + s.sigma.to(x) * eps
        yield Step(x, x0, s)


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run folder with a network that is registered, beside which the test works."""
    monkeypatch.chdir(tmp_path)
    network = unnoise.backbones.UNet(3, widths=(8,), layers=1, groups=4, head=8, zero_init=False)
    made = unnoise.Diffusion(network, unnoise.schedules.cosine(), unnoise.targets.v, SHAPE)
    unnoise.save(tmp_path / "run" / "model.safetensors", made)
    return tmp_path / "run"


def test_a_run_is_a_folder_a_file_a_run_or_a_model(folder):
    opened = unnoise.load(folder)
    images = [unnoise.sample(run, 3, steps=3) for run in (folder, str(folder), folder / "model.safetensors", opened)]
    images.append(unnoise.sample(opened.model, 3, steps=3))
    for other in images[1:]:
        assert torch.equal(images[0], other)
    assert images[0].shape == (3, *SHAPE)


def test_a_spec_a_function_a_partial_and_a_callable_of_your_own_mean_the_same(model):
    draw = functools.partial(unnoise.sample, model, 2, steps=4, precision="fp32")
    assert torch.equal(draw(sampler="ddpm"), draw(sampler=ddpm))
    assert torch.equal(draw(sampler="ddim:eta=0.5"), draw(sampler=functools.partial(ddim, eta=0.5)))
    assert torch.equal(draw(sampler="ddim:eta=0.5"), draw(sampler=functools.partial(unnoise.samplers.ddim, eta=0.5)))
    assert_close(draw(sampler="ddim"), draw(sampler=straight_line))
    assert_close(draw(sampler="ddim"), draw(sampler=lambda denoise, x, levels, **_: ddim(denoise, x, levels)))
    assert torch.equal(draw(spacing="trailing"), draw(spacing=registry.spacing.entries["trailing"]))


def test_a_model_is_guided_away_from_a_weaker_model(model):
    other = unnoise.Diffusion(Network(), unnoise.schedules.cosine(), unnoise.targets.v, SHAPE)
    draw = functools.partial(unnoise.sample, model, 2, steps=3, precision="fp32", sampler="ddim")
    assert (draw(guide_with=other, guidance=2.0) - draw()).abs().max() > 0.01
    assert_close(draw(guide_with=model, guidance=2.0), draw())


def without_type_checks(function, *arguments):
    """Run a function of this file in a process of its own, without the shape checks of the tests; return its result.

    The checks would refuse wrong types before unnoise does, and they draw from Python's random stream.
    """
    code = f"import json, test_sampling; print(json.dumps(test_sampling.{function.__name__}(*{arguments!r})))"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def make_model():
    return unnoise.Diffusion(Network(), unnoise.schedules.cosine(), unnoise.targets.v, SHAPE)


REFUSED = [
    ({"precision": "fp64"}, "precision.*'fp64'"),
    ({"clip": "no"}, "clip takes .*got 'no'"),
    ({"n": 0}, "n takes 1"),
    ({"n": 2.5}, "n takes .*got 2.5"),
    ({"batch": 0}, "batch takes 1"),
    ({"steps": "ten"}, "steps takes .*got 'ten'"),
    ({"steps": 0}, "steps takes 1"),
    ({"steps": 10_000}, "1 to 1000"),
    ({"seed": -1}, "seed takes 0"),
    ({"seed": 2**63 - 1}, r"below 2\^63"),
    ({"label": 3}, "label"),
    ({"label": "hat"}, "label 'hat'"),
    ({"spacing": "trailin"}, "did you mean 'trailing'"),
    ({"sampler": "ddjm"}, "did you mean 'dd"),
    ({"sampler": "ddim:eta=2"}, "eta .*got 2"),
    ({"sampler": 7}, "unknown sampler '7'"),
    ({"sampler": functools.partial(ddim, eta=2.0)}, "eta .*got 2"),
    ({"sampler": functools.partial(ddim, eto=0.5)}, "did you mean 'eta'"),
    ({"sampler": lambda denoise, x: x}, r"must take \(denoise, x, levels"),
    ({"sampler": lambda denoise, x, levels, *, randn_like: [x]}, "must yield Step.*got Tensor"),
    ({"sampler": lambda denoise, x, levels, *, randn_like: []}, "must yield Step.*got NoneType"),
    ({"guidance": 2.0}, "--guidance needs a run with classes"),
    ({"guidance": float("nan")}, "guidance"),
    ({"guidance_interval": "3"}, "LOW-HIGH"),
    ({"guide_with": 5}, "a run is a run folder"),
    ({"run": 3}, "a run is a run folder, a model file, a Diffusion"),
    ({"run": None}, "a run is a run folder"),
    ({"run": ["run"]}, "a run is a run folder"),
    ({"run": nn.Linear(2, 2)}, "a run is a run folder"),
]


def messages():
    """Return what each of the wrong calls raises, as text."""
    found = []
    for settings, _ in REFUSED:
        try:
            unnoise.sample(**{"run": make_model(), "n": 1, **settings})
        except Exception as error:  # noqa: BLE001  # any other kind than InputError fails the test
            found.append([type(error).__name__, str(error)])
        else:
            found.append(["nothing", ""])
    return found


def test_wrong_values_get_one_line_each():
    for (settings, expected), (kind, said) in zip(REFUSED, without_type_checks(messages), strict=True):
        assert kind == "InputError", (settings, kind, said)
        assert re.search(expected, said), (settings, said)
        assert "\n" not in said, settings


def left_after(folder):
    """Return how many models are left in memory after sampling from each kind of run."""
    left = []
    for kind in ("model", "run", "folder", "file"):
        opened = unnoise.load(folder)
        weight = weakref.ref(next(opened.model.parameters()))
        run = {"model": opened.model, "run": opened, "folder": folder, "file": f"{folder}/model.safetensors"}[kind]
        unnoise.sample(run, 2, steps=2)
        del opened, run
        gc.collect()
        left.append(int(weight() is not None) + sum(type(value) is unnoise.Diffusion for value in gc.get_objects()))
    return left


def test_the_memory_of_a_deleted_run_is_freed(folder):
    assert without_type_checks(left_after, str(folder)) == [0, 0, 0, 0]


def state_of_the_process():
    """Return everything that belongs to the user of the process."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002  # the global stream is what must stay
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.disabled),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
    }


def changed_by_sampling(folder, out):
    """Return which parts of the process are not as they were, for samplers with and without noise."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = make_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before = state_of_the_process()
    for sampler in ("ddim", "ddpm", "euler:churn=4"):
        unnoise.sample(folder, 2, sampler=sampler, steps=3)
        unnoise.sample(model, 2, sampler=sampler, steps=3)
        sample_to_folder(SampleConfig(folder, 2, sampler=sampler, steps=3, out=f"{out}/{sampler}"))
    after = state_of_the_process()
    changed = [name for name, value in before.items() if after[name] != value]
    changed += [name for name, value in model.state_dict().items() if not torch.equal(value, weights[name])]
    changed += [name for name, value in model.named_parameters() if not value.requires_grad]
    return changed + ([] if model.training else ["mode"])


def test_sampling_leaves_the_process_and_the_model_as_they_were(folder, tmp_path):
    assert without_type_checks(changed_by_sampling, str(folder), str(tmp_path)) == []


def test_a_model_in_training_is_sampled_without_dropout(model):
    first, second = (unnoise.sample(model, 2, steps=3) for _ in range(2))
    assert torch.equal(first, second)


def test_files_are_the_images_and_the_precision_is_said_once(folder, tmp_path):
    said = []
    config = SampleConfig(str(folder), 5, steps=3, seed=7, batch=2, precision="fp32", out=str(tmp_path / "out"))
    made = sample_to_folder(config, say=said.append)
    assert sorted(path.name for path in made.glob("*.png")) == [f"{seed:06d}.png" for seed in range(7, 12)]
    assert grid_path(made).is_file()
    assert [line for line in said if line.startswith("precision fp32 (")] == said
    assert json.loads((made / ".sampled.json").read_text())["precision"] == "fp32"


def test_the_samplers_and_networks_are_exported():
    for name in registry.sampler.names():
        assert getattr(unnoise.samplers, name) is registry.sampler.entries[name]
    for entry in (unnoise.backbones.UNet, unnoise.backbones.DiT):
        assert registry.backbone.entries[entry.__name__.lower()] is entry


# Folders of images that are resumed


class KilledError(Exception):
    """Stands for the end of the process."""


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def draw_files(run, n, **settings):
    said = []
    return sample_to_folder(SampleConfig(str(run), n, batch=4, **settings), say=said.append), said


def stop_after(monkeypatch, run, n, count, **settings):
    """Draw n images, but end after `count` of them were written."""
    written = []

    def save(*given):
        written.append(given)
        if len(written) > count:
            raise KilledError
        return save_image(*given)

    monkeypatch.setattr("unnoise.sampling.save_image", save)
    with pytest.raises(KilledError):
        draw_files(run, n, **settings)
    monkeypatch.setattr("unnoise.sampling.save_image", save_image)


@pytest.mark.parametrize("out", [None, "images"])
def test_a_stopped_folder_is_resumed_and_has_the_same_files(folder, tmp_path, monkeypatch, out):
    whole, _ = draw_files(folder, 14, out="whole")
    stop_after(monkeypatch, folder, 14, 6, out=out)
    made = tmp_path / out if out else folder / "sampled-1"
    (made / "000002.png").write_bytes(b"")  # after a power cut
    inode = (made / "000005.png").stat().st_mtime_ns
    again, said = draw_files(folder, 14, out=out)
    assert again.resolve() == made.resolve()
    assert "which holds 6 images" in said[0]
    assert files_of(again) == files_of(whole)
    assert grid_path(again).read_bytes() == grid_path(whole).read_bytes()
    assert (made / "000005.png").stat().st_mtime_ns != inode  # in a batch that was not complete
    assert json.loads((made / ".sampled.json").read_text())["sampler"] == "dpmpp_2m_sde"


@pytest.mark.parametrize("out", [None, "images"])
@pytest.mark.parametrize(("first", "then"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_a_resumed_folder_keeps_its_precision_on_another_machine(folder, monkeypatch, out, first, then):
    """All files are those of one precision, though the instructions of the second machine ask for the other."""
    monkeypatch.setattr("unnoise.samplers.precision.fast_bf16", lambda _: first == "bf16")
    whole, _ = draw_files(folder, 14, out="whole", precision=first)
    stop_after(monkeypatch, folder, 14, 6, out=out)
    monkeypatch.setattr("unnoise.samplers.precision.fast_bf16", lambda _: then == "bf16")
    again, said = draw_files(folder, 14, out=out)
    assert again.name == (out or "sampled-1")
    assert "which holds 6 images" in said[0]
    assert said[1].startswith(f"precision {first} (")
    assert json.loads((again / ".sampled.json").read_text())["precision"] == first
    assert files_of(again) == files_of(whole)


def test_a_folder_is_not_resumed_in_another_precision_that_was_asked_for(folder, monkeypatch):
    stop_after(monkeypatch, folder, 14, 6, out="images", precision="fp32")
    with pytest.raises(InputError, match=r"precision was 'fp32', now 'bf16'; name a new folder"):
        draw_files(folder, 14, out="images", precision="bf16")
    assert json.loads(Path("images/.sampled.json").read_text())["precision"] == "fp32"
    stop_after(monkeypatch, folder, 14, 6, precision="fp32")
    again, said = draw_files(folder, 14, precision="bf16")
    assert again.name == "sampled-2"
    assert said[0].startswith("precision bf16 (")


def test_finished_images_stay_and_a_named_folder_can_be_given_more(folder):
    first, _ = draw_files(folder, 8)
    second, _ = draw_files(folder, 8)
    assert (first.name, second.name) == ("sampled-1", "sampled-2")
    named, _ = draw_files(folder, 8, out="named")
    when = {path.name: path.stat().st_mtime_ns for path in named.glob("*.png")}
    named, said = draw_files(folder, 12, out="named")
    assert {name: (named / name).stat().st_mtime_ns for name in when} == when
    assert files_of(named) == files_of(draw_files(folder, 12, out="whole")[0])
    assert "which holds 8 images" in said[0]


def test_other_images_in_a_named_folder_are_refused(folder, tmp_path):
    draw_files(folder, 4, out="named")
    with pytest.raises(InputError, match=r"seed was 0, now 7; name a new folder"):
        draw_files(folder, 4, out="named", seed=7)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="already holds files"):
        draw_files(folder, 4, out="mine")
