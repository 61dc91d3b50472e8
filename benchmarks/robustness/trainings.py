"""Small trainings in processes of their own, for faults.py: start one, wait for it, look at what it left."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from unnoise.checkpoint import load
from unnoise.errors import InputError
from unnoise.run_folder import MODEL
from unnoise.training.state import read_state

IMAGES = 800  # the length of a training
RUN = Path("run/here")  # in the folder of a training
TRAIN = ["--images", str(IMAGES), "--backbone", "unet:widths=8-16,layers=1,groups=4,head=8", "--batch", "8"]
TRAIN += ["--steps", "2", "--precision", "fp32", "--held-out", "0", "--decay", "none", "--out", str(RUN)]
TRAIN += ["--plugin", str(Path(__file__).with_name("disturbed.py")), "--objective", "disturbed", "--optimizer", "kept"]

Process = subprocess.Popen


def write_data(place: Path) -> None:
    """Write the same 40 images as an array and as a folder."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.save(place / "data.npy", images)
    (place / "images").mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(place / "images" / f"{i:02d}.png")


def start_training(place: Path, data: str, options: tuple[str, ...] = (), fault: str = "") -> Process:
    """Start `unnoise train` in the folder `place`; `fault` is one of disturbed.py."""
    line = [sys.executable, "-m", "unnoise", "train", data, *TRAIN, *options]
    own = {"UNNOISE_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1", "FAULT": fault}
    return Process(line, cwd=place, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def images_seen(run: Path) -> int:
    """Return the images of the last whole state of a run, or 0 if there is none."""
    try:
        return int(read_state(run)[0]["parts"]["clock"]["seen"])
    except InputError:
        return 0


def wait_for_images(process: Process, place: Path, images: int = 240) -> None:
    """Wait until a state of this many images is saved."""
    while images_seen(place / RUN) < images:
        if process.poll() is not None:
            raise SystemExit(f"the training ended too early: {process.communicate()[0]}")
        time.sleep(0.02)


def what_survives(place: Path) -> tuple[int, bool]:
    """Return the images of the last whole state, and True if there is a model file whose weights are finite."""
    try:
        model = load(place / RUN, "cpu").model
        finite = all(bool(p.isfinite().all()) for p in model.parameters())
    except InputError:
        finite = False
    return images_seen(place / RUN), finite


def read_weights(place: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the model file by name."""
    return load_file(place / RUN / MODEL)
