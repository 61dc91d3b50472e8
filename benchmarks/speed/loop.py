"""How much of a training step is neither the network nor the optimizer?

    python -m benchmarks.speed.loop DATA [--images 12800] [--backbone SPEC]

The script trains by `unnoise.train` and measures the forward and backward pass of the network and the step of the
optimizer. The rest is the loop: data, noise, loss, clipping, average, log. It prints medians over the steps, so that
the first steps, previews, measurements and saved states do not count.
"""

import unnoise.cli  # isort: skip  # before torch: it sets how long threads spin, as for `unnoise train`

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from unnoise import registry
from unnoise.config import TrainConfig
from unnoise.device import synchronize
from unnoise.diffusion.model import Diffusion
from unnoise.training.monitors import Outcome


class Stopwatch:
    """A monitor that notes the time after each step, and how much of it was spent in timed functions."""

    name = "stopwatch"

    def __init__(self) -> None:
        self.inside, self.marks = 0.0, list[tuple[float, float]]()

    def due(self, _: object) -> bool:
        """Note the time; return False, since there is nothing to run."""
        self.marks.append((time.perf_counter(), self.inside))
        return False

    def run(self, *_: object) -> Outcome:
        """Return nothing; this is never called."""
        return Outcome()

    def timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, whose time is counted."""

        def call(*given: Any, **named: Any) -> Any:
            begun = synchronize()
            result = work(*given, **named)
            self.inside += synchronize() - begun
            return result

        return call

    def summary(self) -> str:
        """Return the number of steps, their length, and the share that no timed function took."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        steps = [(now - before, inside - earlier) for (before, earlier), (now, inside) in pairs]
        length = statistics.median(seconds for seconds, _ in steps)
        share = statistics.median(1 - inside / seconds for seconds, inside in steps)
        return f"{len(steps)} steps of {1000 * length:.1f} ms; {share:.1%} is neither the network nor the optimizer"


def main(arguments: argparse.Namespace) -> None:
    """Train and print the summary."""
    watch = Stopwatch()

    def timed_optimizer(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        optimizer = registry.optimizer.get(TrainConfig().optimizer)(network, lr, weight_decay)
        optimizer.step = watch.timed(optimizer.step)
        return optimizer

    given: dict[str, Any] = {"backbone": arguments.backbone} if arguments.backbone else {}
    given |= {"images": str(arguments.images), "held_out": 0, "optimizer": timed_optimizer, "monitors": [watch]}
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(Diffusion, "output", watch.timed(Diffusion.output)),
        patch.object(torch.Tensor, "backward", watch.timed(torch.Tensor.backward)),
    ):
        unnoise.train(arguments.data, out=str(Path(folder) / "run"), **given)
    print(watch.summary())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="what `unnoise train` takes")
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--backbone", help="default: what unnoise chooses")
    main(parser.parse_args())
