"""A network that trains in a second, images for it, and ways to disturb its training."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import unnoise
from unnoise.training.monitors import Outcome
from unnoise.training.state import read_state, take_apart

TINY = {"backbone": "unet:widths=8,layers=1,groups=4,head=8", "batch": 8, "steps": 2, "precision": "fp32"}


def train_folder(*given, **settings):
    """Train, by an objective that needs no other network if none is named; return the run folder."""
    return Path(unnoise.train(*given, **{"objective": "capped_v", **settings}))


class At:
    """A monitor that acts once, after a number of steps."""

    name = "at"

    def __init__(self, steps, act):
        self.steps, self.act, self.taken = steps, act, 0

    def due(self, clock):
        self.taken += 1
        return self.taken == self.steps

    def run(self, model, clock, stop):
        self.act(model)
        return Outcome()


def smooth(count, size, seed, channels=3):
    """Return images of soft colours [n, h, w, c]: coarse noise, enlarged."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.random((count, channels, 3, 3), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (255 * fine).round().byte().permute(0, 2, 3, 1).numpy()


class KilledError(Exception):
    """Stands for the end of the process."""


def killed_at(steps):
    """Return a monitor that ends the process after this many steps."""

    def kill(_):
        raise KilledError

    return [At(steps, kill)]


def ends(run):
    """Everything a run is at its end, but for the time it took."""
    saved, _ = read_state(run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    tensors, _ = take_apart({name: saved[name] for name in ("network", "average", "optimizer")})
    epochs = [row for row in rows if "epoch" in row]
    return tensors, load_file(run / "model.safetensors"), epochs, saved["parts"]["clock"]["seen"]


def assert_same(a, b):
    for one, two in zip(ends(a), ends(b), strict=True):
        if isinstance(one, dict):
            assert one.keys() == two.keys()
            assert all(torch.equal(one[name], two[name]) for name in one)
        else:
            assert one == two
