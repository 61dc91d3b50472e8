"""Several processes on one machine, by gloo: the same numbers as one process, whatever their number."""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unnoise.evaluation.paired import read_contributions
from unnoise.training.state import read_state

NET = "unet:widths=8,layers=1,groups=4,head=8"
TINY = ["--backbone", NET, "--batch", "8", "--steps", "2", "--precision", "fp32", "--held-out", "0"]
TRAIN = [*TINY, "--images", "76", "--decay", "none"]
KEPT = """
import sys
from pathlib import Path
from unnoise import cli, distributed
from unnoise.tensors import save_tensors
from unnoise.training import loop, train

loop.SAVE_EVERY, loop.SAVE_SHARE = 0.3, float("inf")
end = train.run_to_the_end

def keep(job):
    try:
        return end(job)
    finally:
        network = job.trainer.ema.network
        save_tensors(Path(f"average-{distributed.rank()}.safetensors"), network.state_dict(), {})

train.run_to_the_end = keep
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with 19 pictures: each epoch ends with a batch of three."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    images = np.random.default_rng(0).integers(0, 256, (19, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array(["a", "b"] * 9 + ["a"]))
    (tmp_path / "kept.py").write_text(KEPT)
    return tmp_path


def spawn(world, *line, **env):
    return subprocess.Popen(
        [sys.executable, *line],
        cwd=world,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(world, count, *argv):
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    return spawn(world, *launch, "kept.py", *argv)


def done(world, count, *argv):
    process = start(world, count, *argv)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def epochs(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "epoch" in row]


def assert_alike(one, two, tolerance=1e-4):
    """The same curve within a ten-thousandth: sums are taken in another order."""
    assert len(epochs(one)) == len(epochs(two)) > 0
    torch.testing.assert_close(torch.tensor(epochs(one)), torch.tensor(epochs(two)), rtol=tolerance, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--flip", "--classes", "--recompute"], id="muon, flips, classes and blocks computed once more"),
        pytest.param(["--optimizer", "adamw"], id="adamw", marks=pytest.mark.slow),
        pytest.param(
            ["--times", "importance:history=1", "--schedule", "cosine:T=10"],
            id="levels by importance",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_learn_as_one(world, options):
    said = done(world, 2, "train", "data.npz", *TRAIN, *options, "--out", "two")
    assert said.count("trained 76 images") == 1  # one speaks
    averages = [load_file(world / f"average-{rank}.safetensors") for rank in range(2)]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])
    model = load_file(world / "two" / "model.safetensors")
    assert all(torch.equal(averages[0][name], model[name]) for name in model)
    done(world, 1, "train", "data.npz", *TRAIN, *options, "--out", "one")
    assert_alike(world / "one", world / "two")
    for name in ("one", "two"):  # in a process of its own the plan knows its memory
        assert json.loads((world / name / "metrics.jsonl").read_text().splitlines()[-1])["planned_peak_bytes"] > 0


@pytest.mark.slow
def test_four_processes_learn_as_one(world):
    """The last batch of an epoch has three images: one process has none."""
    done(world, 4, "train", "data.npz", *TRAIN, "--out", "four")
    done(world, 1, "train", "data.npz", *TRAIN, "--out", "one")
    assert_alike(world / "one", world / "four")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(world):
    done(world, 2, "train", "data.npz", *TINY, "--images", "38", "--decay", "none", "--out", "run")
    done(world, 1, "train", "data.npz", *TRAIN, "--out", "run")
    done(world, 1, "train", "data.npz", *TRAIN, "--out", "one")
    assert_alike(world / "one", world / "run")


def seen(run):
    try:
        return read_state(run)[0]["parts"]["clock"]["seen"]
    except Exception:  # noqa: BLE001  # not there yet
        return 0


def start_each(world, count, *argv):
    """As start, without torchrun, which ends the others before they can say what they saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    return [spawn(world, "kept.py", *argv, **meet, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(count)]


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_the_same_command_goes_on(world):
    more = [*TINY, "--images", "1900", "--decay", "none"]
    process, other = start_each(world, 2, "train", "data.npz", *more, "--out", "run")
    wait_for(lambda: seen(world / "run") > 100, process)
    other.kill()
    other.communicate()
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "unnoise: another process of this training has ended; the state in run is whole" in err, err
    before = seen(world / "run")
    assert before > 100
    said = done(world, 2, "train", "data.npz", *more, "--out", "run")
    assert f"resume    from {before:,} images" in said
    done(world, 1, "train", "data.npz", *TINY, "--images", "190", "--decay", "none", "--out", "one")
    torch.testing.assert_close(
        torch.tensor(epochs(world / "one")[:10]), torch.tensor(epochs(world / "run")[:10]), rtol=1e-3, atol=0
    )


@pytest.mark.slow
def test_a_preempted_job_saves_and_leaves(world):
    """SIGTERM, as a scheduler sends it, to the launcher."""
    process = start(world, 2, "train", "data.npz", *TINY, "--images", "100000", "--out", "run")
    wait_for(lambda: seen(world / "run") > 50, process)
    process.terminate()
    out, _ = process.communicate(timeout=120)
    assert "stopped by SIGTERM" in out
    assert seen(world / "run") > 50


@pytest.mark.slow
def test_what_one_process_refuses_is_told_once(world):
    process = start(world, 2, "train", "nowhere.npz", *TRAIN)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "nowhere.npz" in err
    (world / "taken").mkdir()
    (world / "taken" / "mine.txt").write_text("mine")
    process = start(world, 2, "train", "data.npz", *TRAIN, "--out", "taken")
    _, err = process.communicate(timeout=120)
    assert err.count("already holds files") == 1


@pytest.mark.slow
def test_two_processes_draw_the_files_of_one(world):
    done(world, 1, "train", "data.npz", *TRAIN, "--out", "run")
    for count in (1, 2):
        done(world, count, "sample", "run", "-n", "14", "--batch", "4", "--out", f"drawn-{count}")
    names = [f"{i:06d}.png" for i in range(14)]
    assert sorted(path.name for path in (world / "drawn-2").glob("*.png")) == names
    for name in names:
        assert (world / "drawn-1" / name).read_bytes() == (world / "drawn-2" / name).read_bytes()
    assert (world / "drawn-1-grid.png").read_bytes() == (world / "drawn-2-grid.png").read_bytes()


@pytest.mark.slow
def test_two_processes_score_as_one(world):
    """60 pictures against 19: the sums are added in another order, the features kept are the same."""
    images = np.random.default_rng(1).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(world / "other.npz", images=images)
    varied = ["--backbone", f"{NET},zero_init=false"]  # pictures that are all the same have no interval
    done(world, 1, "train", "data.npz", *TRAIN, *varied, "--out", "run")
    found = []
    for count in (1, 2):
        asked = ["-n", "60", "--batch", "7", "--metrics", "kid,fid,colour", "--features", "efficientnet:size=32"]
        said = done(world, count, "eval", "run", "other.npz", *asked, "--json", f"{count}.json")
        assert said.count("kid x 1000") == 1
        found.append(json.loads((world / f"{count}.json").read_text())["scores"])
        for kept in (world / "cache" / "statistics").glob("*"):  # those of the data, or of a stop
            assert not kept.name.startswith("partial-")
            kept.unlink()
    one, two = (scores["values"] for scores in found)
    for name in ("kid", "fid"):
        assert one[name]["value"] == pytest.approx(two[name]["value"], rel=1e-7)
    assert one["kid"]["standard_error"] == pytest.approx(two["kid"]["standard_error"], rel=1e-6)
    assert one["fid"]["standard_error"] is two["fid"]["standard_error"] is None, "too few images"
    places = sorted((world / "run" / "evaluations").glob("*.json"))
    one, two = (
        read_contributions(path.with_suffix(".safetensors"), json.loads(path.read_text())["scores"]["of"])
        for path in places
    )
    assert list(one) == list(two) == ["efficientnet-lite0:size=32"]
    for found, again in zip(*one.values(), *two.values(), strict=True):  # the seeds have the same order
        assert torch.allclose(found, again, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_two_processes_learn_as_one_from_a_stream(world):
    """Each reads its own part of every batch; one image cannot be read, and its stand-in is the same."""
    images = np.load(world / "data.npz")["images"]
    (world / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(world / "pictures" / f"{i:02d}.png")
    (world / "pictures" / "07.png").write_bytes(b"no image")
    for count, out in ((2, "two"), (1, "one")):
        done(world, count, "train", "pictures", *TRAIN, "--stream", "--out", out)
    assert_alike(world / "one", world / "two")
