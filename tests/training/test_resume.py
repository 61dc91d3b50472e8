"""Runs that are stopped, killed or damaged go on as if nothing had happened, or say why not."""

import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from safetensors.torch import load_file

from tiny import TINY, At, KilledError, assert_same, ends, killed_at, train_folder
from unnoise import files, run_folder
from unnoise.data.cache import DecodedImages
from unnoise.diffusion.objective import capped_v, simple
from unnoise.errors import InputError
from unnoise.files import LOCK, remove_leftovers
from unnoise.tensors import save_tensors
from unnoise.training import loop
from unnoise.training.optimizers import muon
from unnoise.training.plan import ALL, make_plan
from unnoise.training.signals import Interrupted
from unnoise.training.state import read_facts, read_state, take_apart, write_state

pytestmark = pytest.mark.usefixtures("unchecked")


def slow(value):
    """Return a value of a parameter that is tried with the slow tests."""
    return pytest.param(value, marks=pytest.mark.slow)


def stopped_at(steps):
    """Return a monitor that sends SIGTERM after this many steps."""
    return [At(steps, lambda _: os.kill(os.getpid(), signal.SIGTERM))]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        slow({"optimizer": "adamw", "flip": True}),
        slow({"ema_halflife": 0.0, "decay": "none"}),
        slow({"times": "importance:history=1", "schedule": "cosine:T=10"}),
        slow({"backbone": f"{TINY['backbone']},dropout=0.3"}),
        {"held_out": 0, "objective": "hybrid", "target": "eps"},
        {"objective": "perceptual"},
    ],
    ids=str,
)
def test_a_run_that_was_killed_ends_as_one_that_was_not(gray, tmp_path, monkeypatch, often, settings):
    """Bit by bit: weights, average, optimizer and epochs' losses; twice killed, the second time in another epoch."""
    settings = {**TINY, "images": "72", **settings}
    whole = train_folder(gray, out=tmp_path / "whole", **settings)
    for steps in (5, 4):
        with pytest.raises(KilledError):
            train_folder(gray, out=tmp_path / "torn", monitors=killed_at(steps), **settings)
    assert_same(whole, train_folder(gray, out=tmp_path / "torn", **settings))


def test_classes_and_their_dropout_go_on_too(tmp_path, monkeypatch, often):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8), np.array(["a", "b"] * 10)
    np.savez(tmp_path / "two.npz", images=images, labels=labels)
    settings = {**TINY, "images": "54", "classes": True, "label_dropout": 0.5}
    whole = train_folder(tmp_path / "two.npz", out=tmp_path / "whole", **settings)
    with pytest.raises(KilledError):
        train_folder(tmp_path / "two.npz", out=tmp_path / "torn", monitors=killed_at(6), **settings)
    assert_same(whole, train_folder(tmp_path / "two.npz", out=tmp_path / "torn", **settings))


def test_what_was_logged_after_the_last_state_is_taken_back(gray, tmp_path, monkeypatch):
    """KilledError long after a state was written: the steps since are made again, and logged once."""
    settings = {**TINY, "images": "72"}
    whole = train_folder(gray, out=tmp_path / "whole", **settings)
    with pytest.raises(KilledError):
        train_folder(gray, out=tmp_path / "torn", monitors=killed_at(9), **settings)
    assert any("epoch" in line for line in (tmp_path / "torn" / "metrics.jsonl").read_text().splitlines())
    assert_same(whole, train_folder(gray, out=tmp_path / "torn", **settings))


def stopped(gray, **settings):
    """A run that was stopped after three steps."""
    with pytest.raises(Interrupted, match="the same command resumes"):
        train_folder(gray, monitors=stopped_at(3), **{**TINY, "images": "40", **settings})


def test_the_same_command_goes_on_and_fresh_starts_over(gray, tmp_path, monkeypatch, capsys):
    stopped(gray)
    run = train_folder(gray, **TINY, images="40")
    assert run.name == "gray-1"
    assert "resume    from 18 images" in capsys.readouterr().out
    stopped(gray)  # the first is over: a second one
    assert train_folder(gray, **TINY, images="40", fresh=True).name == "gray-3"
    assert train_folder(gray, **TINY, images="40").name == "gray-2"
    whole = train_folder(gray, **TINY, images="40", out="whole")
    for name in ("gray-1", "gray-2", "gray-3"):
        assert_same(whole, tmp_path / "runs" / name)


def test_another_length_is_another_run_too(gray, monkeypatch):
    assert train_folder(gray, **TINY, images="20").name == "gray-1"
    assert train_folder(gray, **TINY, images="40").name == "gray-2"
    stopped(gray, images="60")
    assert train_folder(gray, **TINY, images="80").name == "gray-4"
    assert train_folder(gray, **TINY, images="60").name == "gray-3"


def test_what_was_stopped_at_the_last_step_is_measured_and_finished(gray, tmp_path, monkeypatch, capsys):
    with pytest.raises(Interrupted):
        train_folder(gray, **TINY, images="36", out="run", monitors=stopped_at(6))
    assert not (tmp_path / "run" / "samples" / "final.png").exists()
    train_folder(gray, **TINY, images="36", out="run")
    assert (tmp_path / "run" / "samples" / "final.png").exists()
    with pytest.raises(InputError, match="this run is over"):
        train_folder(gray, **TINY, images="36", out="run")


@pytest.mark.parametrize(
    "about",
    [
        {},
        slow({"images": 5, "seconds": 1.0}),
        {"format": 99, "config": {}, "parts": {"clock": {"seen": 0, "elapsed": 0}}},
        slow({"format": 1, "config": 7, "parts": {"clock": {"seen": 0, "elapsed": 0}}}),
        {"format": 1, "config": {}, "parts": {"clock": {"seen": "x", "elapsed": "y"}}},
        slow({"format": 1, "config": {}, "parts": []}),
        slow([1]),
        "text",
    ],
    ids=str,
)
def test_a_state_of_another_kind_is_no_state(gray, tmp_path, about):
    (tmp_path / "runs" / "gray-1").mkdir(parents=True)
    save_tensors(tmp_path / "runs" / "gray-1" / run_folder.STATE, {"other/x": torch.zeros(1)}, about)
    with pytest.raises(InputError, match="not a state that this version can resume"):
        train_folder(gray, **TINY, images="40", out="runs/gray-1")
    assert train_folder(gray, **TINY, images="8").name == "gray-2"  # and it is no hindrance


def test_a_state_that_does_not_fit_is_refused(gray, tmp_path, monkeypatch):
    stopped(gray, out="run")
    saved, _ = read_state(tmp_path / "run")
    other = {**saved["network"], next(iter(saved["network"])): torch.zeros(1)}
    parts = {name: part for name, part in saved["parts"].items() if name != "log"}
    for harm in ({"network": other}, {"optimizer": {"x": {"step": 1}}}, {"parts": parts}):
        write_state(tmp_path / "run", saved | harm)
        with pytest.raises(InputError, match="does not fit this run"):
            train_folder(gray, **TINY, images="40", out="run")


def test_another_command_is_another_run(gray, monkeypatch):
    stopped(gray)
    assert train_folder(gray, **TINY, images="40", lr=1e-4).name == "gray-2"
    np.save(gray, np.random.default_rng(1).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    assert train_folder(gray, **TINY, images="40").name == "gray-3"


def test_in_a_named_folder_what_changed_is_listed(gray, monkeypatch):
    stopped(gray, out="run")
    before = (gray.parent / "run" / "state.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"lr was 0\.003, now 0\.0001.*--fresh"):
        train_folder(gray, **TINY, images="40", lr=1e-4, out="run")
    np.save(gray, np.random.default_rng(1).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    with pytest.raises(InputError, match="the images are not the same"):
        train_folder(gray, **TINY, images="40", out="run")
    assert (gray.parent / "run" / "state.safetensors").read_bytes() == before


def test_a_run_that_is_over_goes_on_when_it_is_given_more(gray, tmp_path, monkeypatch, capsys):
    run = train_folder(gray, **TINY, images="40", decay="none", out="run")
    with pytest.raises(InputError, match="this run is over"):
        train_folder(gray, **TINY, images="40", decay="none", out="run")
    with pytest.raises(InputError, match="this run is over"):
        train_folder(gray, **TINY, images="20", decay="none", out="run")
    train_folder(gray, **TINY, images="60", decay="none", out="run")
    assert "--images was 40, now 60" in capsys.readouterr().out
    assert yaml.safe_load((run / "config.yaml").read_text())["images"] == "60"
    assert_same(train_folder(gray, **TINY, images="60", decay="none", out="whole"), tmp_path / "run")


def test_fresh_sets_aside_what_a_named_folder_holds(gray, tmp_path, monkeypatch, capsys):
    stopped(gray, out="run")
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    train_folder(gray, **TINY, images="40", out="run", fresh=True)
    assert "is now in run-before-1" in capsys.readouterr().out
    assert (tmp_path / "run-before-1" / "state.safetensors").read_bytes() == before
    assert_same(train_folder(gray, **TINY, images="40", out="whole"), tmp_path / "run")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", ["flipped", slow("header"), "torn", slow("empty"), slow("gone")])
def test_a_damaged_state_is_passed_over(gray, tmp_path, monkeypatch, often, capsys, harm):
    whole = train_folder(gray, **TINY, images="40", out="whole")
    stopped(gray, out="run")
    path = tmp_path / "run" / "state.safetensors"
    size = path.stat().st_size
    match harm:
        case "flipped":
            flip(path, size - 1000)
        case "header":
            flip(path, 60)
        case "torn" | "empty":
            os.truncate(path, size // 2 if harm == "torn" else 0)
        case "gone":
            path.unlink()
    assert_same(whole, train_folder(gray, **TINY, images="40", out="run"))
    out = capsys.readouterr().out
    assert ("not used" in out) == (harm != "gone")
    assert (tmp_path / "run" / "state-damaged.safetensors").exists() == (harm != "gone")
    assert "resume    from" in out


def test_where_no_state_is_whole_nothing_is_touched(gray, tmp_path, monkeypatch, often):
    stopped(gray, out="run")
    for name in (run_folder.STATE, run_folder.STATE_BEFORE):
        flip(tmp_path / "run" / name, -1)
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"no state of run is whole .*--fresh"):
        train_folder(gray, **TINY, images="40", out="run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == model


def test_two_programs_never_train_in_one_folder(gray, tmp_path, monkeypatch):
    stopped(gray)
    with FileLock(tmp_path / "runs" / "gray-1" / LOCK):
        with pytest.raises(InputError, match="in use by another program"):
            train_folder(gray, **TINY, images="40", out=str(tmp_path / "runs" / "gray-1"))
        with pytest.raises(InputError, match="in use by another program"):
            train_folder(gray, **TINY, images="40", out=str(tmp_path / "runs" / "gray-1"), fresh=True)
        assert train_folder(gray, **TINY, images="40").name == "gray-2"
    assert (tmp_path / "runs" / "gray-1").exists()


def test_leftovers_of_a_killed_write_are_swept(gray, tmp_path, monkeypatch):
    stopped(gray, out="run")
    ours = f".model.safetensors.{os.getpid()}.part.safetensors"  # of a program that lives
    for name in (".state.safetensors.99999999.part.safetensors", "samples/.final.png.99999999.part.png", ours):
        (tmp_path / "run" / "samples").mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_bytes(b"half")
    remove_leftovers(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").rglob(".*.part*")] == [ours]
    (tmp_path / "run" / ".state.safetensors.99999999.part.safetensors").write_bytes(b"half")
    (tmp_path / "run" / ours).unlink()
    train_folder(gray, **TINY, images="40", out="run")
    assert not list((tmp_path / "run").rglob(".*.part*"))


def test_a_run_killed_before_its_first_state_starts_in_its_folder(gray, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".state.safetensors.123.part.safetensors").write_bytes(b"half")
    assert_same(
        train_folder(gray, **TINY, images="40", out="run"), train_folder(gray, **TINY, images="40", out="whole")
    )


def breaking(harm):
    """Return Muon with a switch; a step of it while the switch is on does `harm` to (network, optimizer), once."""
    switch = []

    def breaking_muon(network, lr, weight_decay):
        made = muon(network, lr, weight_decay)

        def after_step(*_):
            if switch:
                switch.clear()
                with torch.no_grad():
                    harm(network, made)

        made.register_step_post_hook(after_step)
        return made

    return breaking_muon, [At(4, lambda _: switch.append(True))]


def test_weights_that_broke_are_never_saved_and_taken_back(gray, often, capsys):
    """Momentum that overflows makes weights infinite though loss and gradient were finite."""
    optimizer, monitors = breaking(lambda network, _: next(network.parameters()).fill_(float("inf")))
    run = train_folder(gray, **TINY, images="80", out="run", optimizer=optimizer, monitors=monitors)
    out = capsys.readouterr().out
    assert "are no longer finite; back to the state of" in out
    assert "at 0.5 of the learning rate" in out
    saved, _ = read_state(run)
    assert saved["parts"]["trainer"]["caution"] == 0.5
    assert saved["parts"]["clock"]["seen"] == 80
    tensors, _ = take_apart({name: saved[name] for name in ("network", "average", "optimizer")})
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_state_of_the_optimizer_that_broke_is_taken_back(gray, often, capsys):
    def harm(_, optimizer):
        next(iter(optimizer.state.values()))["exp_avg"].fill_(float("nan"))

    optimizer, monitors = breaking(harm)
    train_folder(gray, **TINY, images="80", out="run", optimizer=optimizer, monitors=monitors)
    assert re.search(r"the state of the optimizer for \S+ is no longer finite; back to", capsys.readouterr().out)


def test_after_four_tries_training_stops_with_a_diagnosis(gray, tmp_path, monkeypatch, capsys):
    """Here a layer that gives NaN from the third step on: the message names it, the image and the level."""
    monkeypatch.setattr(loop, "PATIENCE", 3)

    def poison(model):  # without an average, this is the network in training
        layer = dict(model.backbone.named_modules())["conv_in"]
        layer.register_forward_hook(lambda *_: torch.tensor(float("nan")).expand(_[-1].shape))

    told = r"training stopped: 3 steps in a row.*image \d+ at level .*layer conv_in.*of 0 images.*--init run"
    with pytest.raises(InputError, match=told):
        train_folder(gray, **TINY, images="800", out="run", ema_halflife=0.0, monitors=[At(3, poison)])
    assert capsys.readouterr().out.count("of the learning rate") == 3
    saved, _ = read_state(tmp_path / "run")
    assert saved["parts"]["clock"]["seen"] == 0  # the last good one
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "run" / "model.safetensors").values())


def test_a_disk_that_is_full_for_a_while_stops_nothing(gray, tmp_path, monkeypatch, often, capsys):
    write, full = write_state, []

    def sometimes(folder, saved):
        if 24 <= saved["parts"]["clock"]["seen"] < 48:
            full.append(1)
            raise OSError(28, "No space left on device")
        write(folder, saved)

    monkeypatch.setattr("unnoise.training.job.write_state", sometimes)
    run = train_folder(gray, **TINY, images="80", out="run")
    assert len(full) >= 2
    assert "warning: not saved, and tried again soon: [Errno 28]" in capsys.readouterr().out
    monkeypatch.setattr("unnoise.training.job.write_state", write)
    assert_same(train_folder(gray, **TINY, images="80", out="whole"), run)


def test_data_that_cannot_be_read_any_more_ends_a_run_that_goes_on(gray, tmp_path, monkeypatch):
    """What was learned until then is saved, though no state was due."""
    pixels, asked = DecodedImages.pixels, []

    def vanishing(self, rows, among=None):
        if len(rows) == 8:  # a batch
            asked.append(1)
            if len(asked) == 6:
                raise InputError("the decoded images are gone")
        return pixels(self, rows, among)

    monkeypatch.setattr(DecodedImages, "pixels", vanishing)
    settings = {**TINY, "images": "80", "held_out": 0}
    with pytest.raises(InputError, match="images are gone"):
        train_folder(gray, **settings, out="run")
    assert 16 < read_state(tmp_path / "run")[0]["parts"]["clock"]["seen"] < 60
    whole = train_folder(gray, **settings, out="whole")
    assert_same(whole, train_folder(gray, **settings, out="run"))


@pytest.mark.parametrize("full", ["state", slow("config.yaml"), slow("model")])
def test_a_disk_that_is_full_at_the_first_save_leaves_a_folder_to_start_in(gray, tmp_path, monkeypatch, full):
    def never(path, *_given, **_named):
        if Path(path).name.startswith(full):
            raise OSError(28, "No space left on device")
        return given(path, *_given, **_named)

    given = files.replacing
    for module in ("unnoise.tensors", "unnoise.training.job"):
        monkeypatch.setattr(f"{module}.replacing", never)
    with pytest.raises(OSError, match="No space"):
        train_folder(gray, **TINY, images="16", out="run")
    monkeypatch.undo()
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    whole = train_folder(gray, **TINY, images="16", out="whole")
    assert_same(whole, train_folder(gray, **TINY, images="16", out="run"))


def test_no_state_is_saved_in_the_middle_of_trouble(gray, tmp_path, monkeypatch, often):
    """Steps that are skipped are no progress to go on from."""
    broken = []

    def breaks(model, batch):
        return simple(model, batch) * (math.nan if broken else 1)

    with pytest.raises(InputError, match="training stopped"):
        train_folder(gray, **TINY, images="2000", out="run", objective=breaks, monitors=[At(6, broken.append)])
    assert read_state(tmp_path / "run")[0]["parts"]["clock"]["seen"] <= 48


OFTEN = """
import sys
from unnoise import cli
from unnoise.training import loop
loop.SAVE_EVERY, loop.SAVE_SHARE = 0.1, 1.0
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(gray, tmp_path):
    """SIGKILL from outside, in the middle of anything; benchmarks/robustness/kills.py does it a hundred times."""
    argv = [sys.executable, "-c", OFTEN, "train", str(gray), "--images", "4000"]
    argv += [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    subprocess.run([*argv, "--out", "whole"], check=True, capture_output=True)
    rng, kills = random.Random(0), 0
    while kills < 8:
        process = subprocess.Popen([*argv, "--out", "torn"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(rng.uniform(1.0, 6.0))
        if process.poll() is None:
            process.kill()
            kills += 1
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        if process.returncode == 0:
            break
    else:
        subprocess.run([*argv, "--out", "torn"], check=True, capture_output=True)
    assert kills > 1
    assert_same(tmp_path / "whole", tmp_path / "torn")


def test_short_memory_makes_parts_of_the_batch_and_the_batch_stays(gray, monkeypatch, capsys):
    """At most three images are held at a time, as by a GPU that is too small; the curve is that of whole batches."""
    settings = {**TINY, "images": "40", "optimizer": "adamw"}
    whole = train_folder(gray, out="whole", **settings)
    sizes = []

    def short(model, batch):
        if torch.is_grad_enabled():  # not when the held-out loss is measured
            sizes.append(len(batch.x0))
            if sizes[-1] > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return capped_v(model, batch)

    parts = train_folder(gray, out="parts", objective=short, **settings)
    assert sizes[:3] == [8, 4, 2]
    assert max(sizes[3:]) == 2
    assert "out of memory; 2 images at a time" in capsys.readouterr().out
    one, two = ends(whole)[2], ends(parts)[2]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-4)


def test_objectives_are_told_how_far_the_training_is(gray, monkeypatch):
    told = []

    def listening(model, batch):
        if torch.is_grad_enabled():
            told.append(batch.progress)
        return simple(model, batch)

    train_folder(gray, out="run", objective=listening, **TINY, images="40")
    assert (told[:3], told[-1]) == ([8 / 40, 16 / 40, 18 / 40], 1.0)  # of 18 images, 8 in a batch
    told.clear()
    train_folder(gray, out="even", objective=listening, **TINY, images="40", decay="none")
    assert set(told) == {0.5}  # without decay, nothing goes by the length


def test_memory_for_not_even_one_image_is_told(gray, monkeypatch):
    def short(model, batch):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")

    with pytest.raises(InputError, match="out of memory even for one image"):
        train_folder(gray, out="run", objective=short, **TINY, images="40")


def test_a_resumed_run_takes_as_many_images_at_a_time_as_memory_holds_now(gray, monkeypatch):
    """The machine of before may have had more, and a plan in parts is kept where it has more again."""
    settings = {**TINY, "out": "run", "images": "80"}
    for stop, (planned, expected) in enumerate([(ALL, ALL), (3, 3), (ALL, 3)], 1):
        monkeypatch.setattr(
            "unnoise.training.train.make_plan",
            lambda *given, planned=planned: (found := make_plan(*given))._replace(
                plan=found.plan._replace(at_once=planned)
            ),
        )
        with pytest.raises(Interrupted):
            train_folder(gray, monitors=stopped_at(stop), **settings)
        assert read_facts(Path("run"))["parts"]["trainer"]["at_once"] == expected
