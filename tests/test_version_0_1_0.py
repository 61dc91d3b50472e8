"""Runs, states and folders that version 0.1.0 wrote are opened, resumed and sampled as it would have done itself.

The files in v0.1.0 were written by that version: finished runs of five kinds, a run that Ctrl-C stopped in the middle,
and a folder of samples that was stopped after four of six images. On another processor sums are rounded otherwise.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unnoise
from unnoise.cli import main
from unnoise.config import TrainConfig
from unnoise.training.checks import suited_to
from unnoise.training.resume import FIRST_DEFAULTS, as_then

pytestmark = pytest.mark.usefixtures("unchecked")

HERE = Path(__file__).parent / "v0.1.0"
EXPECTED = json.loads((HERE / "expected.json").read_text())
SAMPLES = [(run, way) for run, ways in EXPECTED["samples"].items() if run != "ended" for way in ways]


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the files, in the folder the test runs in."""
    shutil.copytree(HERE, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "old"


def same_machine():
    made = EXPECTED["made_with"]
    return made["torch"] == torch.__version__ and made["cpu"].endswith(torch.backends.cpu.get_cpu_capability())


@pytest.mark.parametrize(("run", "way"), SAMPLES, ids="-".join)
def test_a_model_file_gives_the_same_images(old, run, way):
    given = EXPECTED["samples"][run][way]
    drawn = unnoise.sample(run, given["n"], seed=given["seed"], precision="fp32", **given["settings"]).numpy()
    wanted = np.load("samples.npz")[f"{run}/{way}"]
    if same_machine():
        np.testing.assert_array_equal(drawn, wanted)
    np.testing.assert_allclose(drawn, wanted, atol=0.02)


def test_a_stopped_run_ends_as_if_it_had_never_stopped(old, capsys):
    words = ["shapes.npz" if word == "shapes" else word for word in EXPECTED["commands"]["interrupted"]]
    assert main(["train", *words, "--out", "interrupted"]) == 0
    assert "resume    from 2,718 images" in capsys.readouterr().out
    ended, wanted = load_file("interrupted/model.safetensors"), load_file("ended.safetensors")
    assert ended.keys() == wanted.keys()
    rows = [json.loads(line) for line in Path("interrupted/metrics.jsonl").read_text().splitlines()]
    losses = [[row["epoch"], row["images"], row["loss"]] for row in rows if "epoch" in row]
    for (*place, loss), (*expected_place, expected) in zip(
        losses, EXPECTED["interrupted"]["ended"]["epochs"], strict=True
    ):
        assert place == expected_place
        assert loss == (expected if same_machine() else pytest.approx(expected, rel=0.05))
    for name, weight in wanted.items():
        if same_machine():
            assert torch.equal(ended[name], weight), name
        torch.testing.assert_close(ended[name], weight, atol=0.05, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_settings_that_were_not_given_are_the_defaults_of_that_version(channels):
    config = suited_to(channels, TrainConfig())
    then = as_then(config, {})
    assert {name: getattr(then, name) for name in FIRST_DEFAULTS} == FIRST_DEFAULTS
    assert as_then(config, {"references": None}) == replace(config, flip=False)


def test_settings_that_were_given_stay_for_a_run_of_that_version():
    given = TrainConfig(objective="simple", batch=16, lr=0.01, references=100)
    assert as_then(given, {}) == replace(given, flip=False, allow_copies=True)


def test_a_stopped_folder_of_samples_is_completed(old):
    before = {path.name: path.stat().st_mtime_ns for path in Path("classes/sampled-1").glob("*.png")}
    assert len(before) == 4
    assert main(["sample", "classes", *EXPECTED["commands"]["drawn half-way"]]) == 0
    after = {path.name: path for path in Path("classes/sampled-1").glob("*.png")}
    assert {name: path.stat().st_mtime_ns for name, path in after.items() if name in before} == before
    assert after.keys() == EXPECTED["folder"].keys()
    if same_machine():
        pixels = {
            name: hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest() for name, path in after.items()
        }
        assert pixels == EXPECTED["folder"]


def test_commands_open_its_runs(old, capsys):
    assert main(["info", "dit"]) == 0
    assert "dit:" in capsys.readouterr().out
    assert main(["report", "hybrid"]) == 0
    assert main(["compare", "classes", "hybrid"]) == 0
    assert main(["export", "default", "--out", "pipeline"]) == 0
