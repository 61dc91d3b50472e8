"""Measurements, a network that returns its input, and images as arrays, for the tests of editing."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from unnoise import registry
from unnoise.editing.measurements import Blurred, Gray, Pixels, Shrunk

SCHEDULE = registry.schedule.get("cosine")()
KNOWN = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
KNOWN[..., :5] = True
MEASUREMENTS = {"pixels": Pixels(KNOWN), "gray": Gray(), "shrunk": Shrunk(4), "blurred": Blurred(1.5)}


class Echo(nn.Module):
    """Believes that every image is clean."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, time, label=None):
        return self.weight * x


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def tensor_of(image):
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1) / 127.5 - 1


def unnoise_cli(*arguments):
    from unnoise.cli import main

    return main([str(argument) for argument in arguments])
