"""What of a training step is not the network or the optimizer.

    python benchmarks/loop.py DATA [--images 12800] [--backbone SPEC]

Trains by `unnoise.train` and measures the network's forward and backward pass and the optimizer's step in it; the rest
is the loop's: data, noise, loss, clipping, average, log. The first steps are left out, and previews, measurements and
checkpoints.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import accelerate
import torch

import unnoise
from unnoise.diffusion.model import Diffusion
from unnoise.training.train import Training

SKIPPED = 20  # steps


def main(arguments: argparse.Namespace) -> None:
    inside, ends, seen = [0.0], list[tuple[float, float]](), itertools.count()

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            result = work(*given, **named)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            inside[0] += time.perf_counter() - begun
            return result

        return run

    step, prepare = Training.step, accelerate.Accelerator.prepare

    def marked(run: Training, *batch: Any) -> Any:
        result = step(run, *batch)
        if next(seen) >= SKIPPED:
            ends.append((time.perf_counter(), inside[0]))
        return result

    def prepared(accelerator: accelerate.Accelerator, network: Any, optimizer: Any) -> Any:
        network, optimizer = prepare(accelerator, network, optimizer)
        optimizer.step = timed(optimizer.step)
        return network, optimizer

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(Diffusion, "output", timed(Diffusion.output)),
        patch.object(accelerate.Accelerator, "backward", timed(accelerate.Accelerator.backward)),
        patch.object(accelerate.Accelerator, "prepare", prepared),
        patch.object(Training, "step", marked),
        patch.object(Training, "preview", lambda *_: []),
        patch.object(Training, "score", lambda *_: None),
        patch.object(Training, "save", lambda *_: None),
    ):
        given = {"backbone": arguments.backbone} if arguments.backbone else {}
        unnoise.train(arguments.data, images=str(arguments.images), held_out=0, out=str(Path(folder) / "run"), **given)
    (first, before), (last, after) = ends[0], ends[-1]
    each = (last - first) / (len(ends) - 1)
    share = 1 - (after - before) / (last - first)
    print(f"{len(ends)} steps of {1000 * each:.1f} ms; {share:.1%} of it is not the network or the optimizer")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--backbone")
    main(parser.parse_args())
