"""Do the transforms of --augment leak into the drawn images? A classifier of each kind of transform counts them.

    python -m benchmarks.quality.leak DATA SET OUT RUN... [--drawn 500]

DATA is a folder with the sets of yardstick.py, and each RUN was trained on images of SET. For each kind of transform, a
logistic regression on features of EfficientNet-Lite0 learns to tell images from transformed images. It is applied to
held-out images as they are, to the same images transformed, and to the drawn images of each run. "leak" is the share
of drawn images that are transformed: (drawn - real) / (transformed - real). Drawn images also differ from real ones by
other faults, so compare with a run that was trained without transforms. The script writes OUT/SET.json.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from benchmarks.lib.machine import machine
from benchmarks.quality.degradations import extract
from benchmarks.quality.yardstick import SETS, open_set
from unnoise import load, sample
from unnoise.evaluation.copies import share
from unnoise.evaluation.features import open_extractor
from unnoise.files import write_json
from unnoise.images import Uint8Images, to_float, to_uint8
from unnoise.training.augmentation import NUMBERS, draw_transforms, transform_images

KINDS = {  # name -> which numbers of a transform
    "mirrored": [0],
    "upside down": [1],
    "size": [2],
    "turned": [3, 4],
    "stretched": [5, 6],
    "shifted": [7, 8],
}
TAUGHT, TESTED = 2_000, 1_000  # images
DECAY, UPDATES = 1e-3, 100  # weight decay and steps of L-BFGS of each classifier
ALARM = 0.05  # share of real images that may be flagged


def transformed(pixels: Uint8Images, kind: str, seed: int) -> Uint8Images:
    """Return the images, each with a transform of this kind alone; a flip is certain."""
    transform = torch.zeros(len(pixels), NUMBERS)
    drawn = draw_transforms(len(pixels), 1.0, Generator().manual_seed(seed))
    flip = kind in ("mirrored", "upside down")
    transform[:, KINDS[kind]] = torch.ones(len(pixels), 1) if flip else drawn[:, KINDS[kind]]
    return to_uint8(transform_images(to_float(pixels), transform))


class Classifier:
    """A logistic regression that tells two sets of features apart."""

    def __init__(self, real: Tensor, changed: Tensor) -> None:
        self.mean, self.scale = real.mean(dim=0), real.std(dim=0) + 1e-6
        x = self.normalized(torch.cat([real, changed]))
        y = torch.cat([torch.zeros(len(real)), torch.ones(len(changed))])
        self.weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
        optimizer = torch.optim.LBFGS([self.weights], max_iter=UPDATES, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            found = F.binary_cross_entropy_with_logits(x @ self.weights[1:] + self.weights[0], y)
            found = found + DECAY * self.weights[1:].square().sum()
            torch.autograd.backward(found)
            return found

        optimizer.step(loss)

    def normalized(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Return a number for each image; the larger, the more it looks transformed."""
        return self.normalized(features) @ self.weights[1:] + self.weights[0]


def main(given: argparse.Namespace) -> None:
    """Teach a classifier for each kind, apply it to each run, and print a row for each pair."""
    pool, real = open_set(given.data, given.set)
    taught = torch.from_numpy(pool.read(np.arange(min(len(pool), TAUGHT))))
    tested = torch.from_numpy(real.read(np.arange(min(len(real), TESTED))))
    extractor = open_extractor("efficientnet")

    def describe(pixels: Uint8Images) -> Tensor:
        return extract(extractor, pixels)[0]

    runs = {Path(run).name: describe(to_uint8(sample(load(run), given.drawn))) for run in given.runs}
    known, new, found = describe(taught), describe(tested), dict[str, Any]()
    for kind in KINDS:
        classify = Classifier(known, describe(transformed(taught, kind, 0)))
        scores = classify(new)
        limit = scores.quantile(1 - ALARM)
        found[kind] = {
            "real": share(scores > limit),
            "transformed": share(classify(describe(transformed(tested, kind, 1))) > limit),
            **{name: share(classify(features) > limit) for name, features in runs.items()},
        }
        for name in runs:
            print(row(kind, name, found[kind]), flush=True)
    Path(given.out).mkdir(parents=True, exist_ok=True)
    write_json(Path(given.out) / f"{given.set}.json", {"kinds": found, "machine": machine("unnoise")})


def row(kind: str, run: str, shares: dict[str, Any]) -> str:
    """Return a row of the table: the flagged shares, and the share of drawn images that are transformed."""
    real, changed, drawn = (shares[name]["value"] for name in ("real", "transformed", run))
    leak = f"{(drawn - real) / (changed - real):+.3f}" if changed > 2 * ALARM else "cannot be told"
    return f"| {kind} | {run} | {real:.3f} | {changed:.3f} | {drawn:.3f} | {leak} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("set", choices=SETS)
    parser.add_argument("out")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--drawn", type=int, default=500)
    main(parser.parse_args())
