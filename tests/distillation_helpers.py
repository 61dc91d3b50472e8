"""A teacher that is exact, and batches for it."""

import torch

from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.times import Visited
from unnoise.distillation.teacher import Teacher

SHAPE = (2, 3, 3)


class Exact(Teacher):
    """A teacher whose denoiser is exact, instead of a run."""

    schedule = visited = None

    def __init__(self, world, table, taught=None):
        vars(self).update(world=world, schedule=table, visited=table.grid(taught) if taught else None)

    def denoiser(self, label):
        return self.world


def batch_of(table, steps, n=12):
    """Return a batch of images, each at one of the levels that a student of so many steps visits."""
    levels = Visited(table.grid(steps)).levels(n, torch.Generator().manual_seed(1))
    x0, eps = torch.randn(2, n, *SHAPE, dtype=torch.float64)
    return add_noise(x0, eps, levels)


def land(batch):
    """Return where the student's step of DDIM ends if it predicts the target."""
    return batch.s.alpha * batch.x0 + batch.s.sigma * batch.eps
