"""Does a training that is killed again and again end like one that never was? Kills it at random moments.

    python -m benchmarks.robustness.kills OUT [--kills 100] [--images 1000 for each] [--seed 0]

Each kill is a SIGKILL at any moment from the start of the process on, every second time while a file is being written.
States are saved every fifth of a second here, not every minute. The script prints the number of kills, how many of them
happened while a file was written, and if weights, average, optimizer and the losses of all epochs are the same bit by
bit.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.robustness.trainings import images_seen
from unnoise.training.state import read_state, take_apart

CODE = """
import sys
from unnoise import cli
from unnoise.training import loop
loop.SAVE_EVERY, loop.SAVE_SHARE = 0.2, 1.0
sys.exit(cli.main(sys.argv[1:]))
"""
NET = "unet:widths=16-32,layers=1,patch=4,groups=4,head=8"
TRAIN = ["train", "faces", "--limit", "500", "--backbone", NET, "--batch", "16", "--precision", "fp32", "--steps", "4"]


def start_training(out: Path, images: int) -> subprocess.Popen:
    """Start a training that saves often."""
    line = [sys.executable, "-c", CODE, *TRAIN, "--images", str(images), "--out", str(out)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def all_tensors(out: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the state and of the model file of a run, by name."""
    saved, _ = read_state(out)
    tensors, _ = take_apart({name: saved[name] for name in ("network", "average", "optimizer")})
    return tensors | {f"model/{name}": tensor for name, tensor in load_file(out / "model.safetensors").items()}


def epoch_rows(out: Path) -> list[str]:
    """Return the rows of metrics.jsonl that tell the loss of an epoch."""
    return [line for line in (out / "metrics.jsonl").read_text().splitlines() if '"epoch"' in line]


def kill_after(process: subprocess.Popen, out: Path, seconds: float, *, writing: bool) -> bool:
    """Kill a process after some seconds, if asked for while it writes a file; return False if it ended before."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() >= end and (not writing or any(out.glob(".*.part*"))):
            process.kill()
            process.wait()
            return True
        time.sleep(0.001)
    if process.returncode:
        raise SystemExit(f"the training failed: {process.stderr.read()}")
    return False


def kill_often(run: Path, images: int, kills: int, rng: random.Random) -> str:
    """Start the training and kill it, `kills` times; return what happened in words."""
    writing, before, early = 0, 0, 0
    for done in range(kills):
        # some are killed while they start, the others once they train
        seconds = rng.uniform(0, 4) if rng.random() < 0.2 else rng.uniform(4, 8)
        if not kill_after(start_training(run, images), run, seconds, writing=done % 2 == 1):
            raise SystemExit(f"the training ended after {done} kills: give it more --images")
        writing += bool(list(run.glob(".*.part*")))
        now = images_seen(run)
        if now < before:
            raise SystemExit(f"the training went back, from {before} to {now} images")
        early, before = early + (now == before), now
        print(f"{done + 1} kills, {writing} while a file was written, {now:,} of {images:,} images", flush=True)
    return f"{kills} kills, {writing} while a file was written, {early} before a new state"


def main(arguments: argparse.Namespace) -> None:
    """Train once without a kill and once with many, and compare."""
    folder = Path(arguments.out)
    folder.mkdir(parents=True)
    images = arguments.images or 1000 * arguments.kills
    if start_training(folder / "whole", images).wait():
        raise SystemExit("the training failed without being killed")
    told = kill_often(folder / "killed", images, arguments.kills, random.Random(arguments.seed))
    if start_training(folder / "killed", images).wait():
        raise SystemExit("the training failed at the end")
    one, two = all_tensors(folder / "whole"), all_tensors(folder / "killed")
    same = one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    same = same and epoch_rows(folder / "whole") == epoch_rows(folder / "killed")
    print(f"{told}; the same bit by bit: {same}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="a new folder")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, help="length of the training (default: 1000 for each kill)")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
