"""unnoise: train a diffusion model on your own pictures, on the machine you have, and trust every number it prints.

run = unnoise.train("photos", budget="20m")
images = unnoise.sample(run, 16)
unnoise.show(images)
"""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.config import SampleConfig, TrainConfig
from unnoise.errors import InputError

if TYPE_CHECKING:
    from unnoise.card import Run
    from unnoise.checkpoint import load
    from unnoise.data.cache import open_data
    from unnoise.editing.edit import edit
    from unnoise.images import show
    from unnoise.sampling import sample

# Read when torch is loaded: how long the threads of GNU's OpenMP stay awake waiting for each other. Its own choice, 30
# times as long, is no faster on an idle machine, and beside other busy programs a step can take ten times the time.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
__all__ = ["InputError", "Run", "SampleConfig", "TrainConfig", "edit", "load", "open_data", "sample", "show", "train"]

LAZY = {  # loaded on first use, so that importing unnoise does not import torch
    "Run": "unnoise.checkpoint",
    "edit": "unnoise.editing.edit",
    "load": "unnoise.checkpoint",
    "open_data": "unnoise.data.cache",
    "sample": "unnoise.sampling",
    "show": "unnoise.images",
}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'unnoise' has no attribute {name!r}")


def train(data: str | Path = "faces", *, recipe: str | None = None, **settings: Any) -> Path:
    """Train on `data` and return the run folder; settings are the fields of TrainConfig, e.g. `budget="20m"`."""
    from unnoise.recipes import train_config  # noqa: PLC0415
    from unnoise.training.train import train as run  # noqa: PLC0415

    return run(train_config(recipe, {"data": str(data), **settings}))
