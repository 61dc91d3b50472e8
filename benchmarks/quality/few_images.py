"""What becomes of a training with few images? KID, recall and copies at marks of each training.

    python -m benchmarks.quality.few_images run DATA OUT CONTENDER... [--sets celeba] [--counts 200] [--seeds 0]
                                            [--images 40000] [--init RUN]
    python -m benchmarks.quality.few_images table OUT

DATA is a folder with the sets of yardstick.py. A training has COUNT images of a set; unnoise holds out a tenth of
them. Its averaged weights are measured at marks, each 1.6 times as far as the one before: 300 drawn images against
held-out images of the set, and the share of copies among them beside the share of held-out images that look like
copies. Copies of mirrored images count too. With --init the trainings start from the weights of a run, and the
contender is named CONTENDER-after-RUN.
OUT/SET-COUNT-CONTENDER-LENGTH-SEED.json holds all marks; what is there is not made again.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unnoise
from benchmarks.lib.machine import machine
from benchmarks.quality.judges import JUDGES
from benchmarks.quality.yardstick import SETS, UNET, by_all_judges, open_set
from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset, default_held_out
from unnoise.diffusion.model import Diffusion
from unnoise.evaluation.copies import copied
from unnoise.files import write_json
from unnoise.images import grid, to_uint8
from unnoise.training.clock import Clock
from unnoise.training.few_images import copy_horizon, later
from unnoise.training.monitors.drawing import draw_images
from unnoise.training.monitors.monitor import Outcome
from unnoise.training.resume import FIRST_DEFAULTS
from unnoise.training.signals import Stop

FIRST, GROWTH, DRAWN, NEW = 5_000, 1.6, 300, 300
SMALL = UNET.format("32-32-48", 2)
METRICS = "kid,precision_recall"
CONTENDERS: dict[str, dict[str, Any]] = {
    "default": {},  # mirrors images that look alike in a mirror
    "no-flip": {"flip": False},
    # the default of version 0.1.0
    "first": {"flip": False, "backbone": UNET.format("32-64-128", 1), **FIRST_DEFAULTS},
    "augment": {"augment": 0.12},
    "wide": {"flip": False, "backbone": UNET.format("96-96-144", 2)},
    "small": {"flip": False, "backbone": SMALL},
    "small-augment": {"augment": 0.12, "backbone": SMALL},
}


class Marks:
    """A monitor that measures at marks of the training, and writes what it found."""

    name, remembered = "few images", ("next", "rows")

    def __init__(self, trained: np.ndarray, real: Dataset, path: Path) -> None:
        self.trained, self.real, self.path = trained, real, path
        self.next, self.rows = float(FIRST), list[dict[str, Any]]()

    def due(self, clock: Clock) -> bool:
        """Return True at a mark, and at the end."""
        at_the_end = clock.progress >= 1 and (not self.rows or self.rows[-1]["images"] != clock.seen)
        return clock.seen >= self.next or at_the_end

    def run(self, model: Diffusion, clock: Clock, stop: Stop) -> Outcome:
        """Measure the averaged weights, and write all rows."""
        self.next *= GROWTH
        images = draw_images(model, DRAWN, unnoise.config.Sampling(steps=20), stop)
        if images is None:
            return Outcome()
        row: dict[str, Any] = {"images": clock.seen, "seconds": clock.elapsed}
        row |= by_all_judges(images, self.real, METRICS)
        new = torch.from_numpy(self.real.read(np.arange(NEW)))
        row["copies"] = copied(to_uint8(images), new, torch.from_numpy(self.trained), mirrored=True)
        self.rows.append(row)
        grid(images[:64]).save(self.path.with_name(f"{self.path.stem}-{clock.seen}.png"))
        self.path.with_suffix(".part").write_text(json.dumps(self.rows), "utf-8")
        return Outcome(messages=[tell(row)])


def tell(row: dict[str, Any]) -> str:
    """Return the numbers of a mark on one line."""
    kids = " ".join(f"{1000 * row[judge]['kid'][0]:.0f}" for judge in JUDGES)
    copies = [f"{row['copies'][name]['value']:.3f}" for name in ("drawn", "new")] if row["copies"] else ["-", "-"]
    return (
        f"{row['images']} images: KID {kids}, recall {row['lite0']['recall'][0]:.3f}, copies {' of new '.join(copies)}"
    )


def run(given: argparse.Namespace) -> None:
    """Train what is not there yet."""
    (Path(given.out) / "runs").mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        pool, real = open_set(given.data, name)
        for count in given.counts:
            images = pool.read(np.sort(np.random.default_rng(0).permutation(len(pool))[:count]))
            for seed in given.seeds:
                for contender in given.contenders:
                    started = f"{contender}-after-{Path(given.init).name}" if given.init else contender
                    path = Path(given.out) / f"{name}-{count}-{started}-{given.images}-{seed}.json"
                    if not path.exists():
                        train(images, real, path, given.images, seed, CONTENDERS[contender] | {"init": given.init})


def train(images: np.ndarray, real: Dataset, path: Path, length: str, seed: int, options: dict[str, Any]) -> None:
    """Train on images [n, c, h, w], and write the marks."""
    marks = Marks(images, real, path)
    trained = unnoise.train(
        np.moveaxis(images, 1, 3),
        images=length,
        seed=seed,
        out=str(path.parent / "runs" / path.stem),
        monitors=[marks],
        **{**options, "allow_copies": True},
    )
    options = options | {"flip": trained.card.training["config"]["flip"]}  # as it was chosen
    options |= {"init": options["init"] and Path(options["init"]).name}
    about = {"images": len(images), "options": options, "network": trained.card.backbone, "seed": seed}
    write_json(path, about | {"marks": marks.rows, "machine": machine("unnoise")})


def horizon(marks: list[dict[str, Any]]) -> float | None:
    """Return the images seen when as many drawn images look like copies as new ones may, at most; None if never.

    It lies between two marks, and is interpolated by the logarithm of the images.
    """
    for before, after in pairwise(mark for mark in marks if mark["copies"]):
        low, high = (mark["copies"]["drawn"]["value"] for mark in (before, after))
        most = after["copies"]["new"]["interval"][1]
        if low <= most < high:
            return float(before["images"] * (after["images"] / before["images"]) ** ((most - low) / (high - low)))
    return None


def table(given: argparse.Namespace) -> None:
    """Print the marks of every training, and where its copies begin."""
    for path in sorted(Path(given.out).glob("*.json")):
        found = json.loads(path.read_text("utf-8"))
        for row in found["marks"]:
            print(f"{path.stem:44} {tell(row)}")
        trained = found["images"] - default_held_out(found["images"])
        if begin := horizon(found["marks"]):
            expected = copy_horizon(trained, later(TrainConfig(**found["options"])))
            said = f"each seen {begin / trained:.0f} times; expected at {expected:,.0f}"
            print(f"{path.stem:44} copies begin at {begin:,.0f} images, {said}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    training = parts.add_parser("run")
    for argument in ("data", "out"):
        training.add_argument(argument)
    training.add_argument("contenders", nargs="+", choices=CONTENDERS)
    training.add_argument("--sets", nargs="+", default=["celeba"], choices=SETS)
    training.add_argument("--counts", nargs="+", type=int, default=[200])
    training.add_argument("--seeds", nargs="+", type=int, default=[0])
    training.add_argument("--images", default="40000")
    training.add_argument("--init")
    parts.add_parser("table").add_argument("out")
    arguments = parser.parse_args()
    {"run": run, "table": table}[arguments.part](arguments)
