"""Kill a training at random moments, go on each time, and compare the end with that of a run that was never killed.

    python benchmarks/kills.py OUT [--kills 100] [--images 1000 for each] [--seed 0]

SIGKILL, at any moment from the start of the process on, every second time while a file is being written. States are
saved every fifth of a second here, not every minute. Says how many kills, how many of them while writing, and whether
weights, average, optimizer and the losses of all epochs are the same bit by bit.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from unnoise.errors import InputError
from unnoise.training import state

CODE = """
import sys
from unnoise import cli
from unnoise.training import loop
loop.SAVE_EVERY, loop.SAVE_SHARE = 0.2, 1.0
sys.exit(cli.main(sys.argv[1:]))
"""
NET = "unet:widths=16-32,layers=1,patch=4,groups=4,head=8"
TRAIN = ["train", "faces", "--limit", "500", "--backbone", NET, "--batch", "16", "--precision", "fp32", "--steps", "4"]


def start(out: Path, images: int) -> subprocess.Popen:
    line = [sys.executable, "-c", CODE, *TRAIN, "--images", str(images), "--out", str(out)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def seen(out: Path) -> int:
    try:
        return int(state.read(out)[0]["parts"]["clock"]["seen"])
    except InputError:
        return 0


def ends(out: Path) -> dict[str, torch.Tensor]:
    saved, _ = state.read(out)
    tensors, _ = state.parted({name: saved[name] for name in ("network", "average", "optimizer")})
    return tensors | {f"model/{name}": tensor for name, tensor in load_file(out / "model.safetensors").items()}


def epochs(out: Path) -> list[str]:
    return [line for line in (out / "metrics.jsonl").read_text().splitlines() if '"epoch"' in line]


def killed(process: subprocess.Popen, out: Path, after: float, *, writing: bool) -> bool:
    """Whether it was killed, after so many seconds and, if so wished, while it writes."""
    end = time.monotonic() + after
    while process.poll() is None:
        if time.monotonic() >= end and (not writing or any(out.glob(".*.part*"))):
            process.kill()
            process.wait()
            return True
        time.sleep(0.001)
    if process.returncode:
        raise SystemExit(f"it failed: {process.stderr.read()}")
    return False


def main(arguments: argparse.Namespace) -> None:
    folder, rng = Path(arguments.out), random.Random(arguments.seed)
    folder.mkdir(parents=True)
    images = arguments.images or 1000 * arguments.kills
    if start(folder / "whole", images).wait():
        raise SystemExit("it failed without being killed")
    done, writing, before, early = 0, 0, 0, 0
    while done < arguments.kills:
        process, wish = start(folder / "killed", images), done % 2 == 1
        # some while it starts, the others once it trains
        if not killed(
            process, folder / "killed", rng.uniform(0, 4) if rng.random() < 0.2 else rng.uniform(4, 8), writing=wish
        ):
            raise SystemExit(f"it ended after {done} kills: give it more --images")
        done, writing = done + 1, writing + bool(list((folder / "killed").glob(".*.part*")))
        now = seen(folder / "killed")
        if now < before:
            raise SystemExit(f"it went back, from {before} to {now} images")
        early, before = early + (now == before), now
        print(f"{done} kills, {writing} while writing, {now:,} of {images:,} images", flush=True)
    if start(folder / "killed", images).wait():
        raise SystemExit("it failed at the end")
    one, two = ends(folder / "whole"), ends(folder / "killed")
    same = one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    same = same and epochs(folder / "whole") == epochs(folder / "killed")
    print(f"{done} kills, {writing} while a file was written, {early} before a new state; the same bit by bit: {same}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
