"""A network that trains in a second, and images for it."""

from pathlib import Path

import numpy as np
import torch

import unnoise

TINY = {"backbone": "unet:widths=8,layers=1,groups=4,head=8", "batch": 8, "steps": 2, "precision": "fp32"}


def smooth(count, size, seed, channels=3):
    """Pictures of soft colours: coarse noise, enlarged."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.random((count, channels, 3, 3), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (255 * fine).round().byte().permute(0, 2, 3, 1).numpy()


def train_folder(*data, **settings):
    """Train, and return the run folder."""
    return Path(unnoise.train(*data, **settings))
