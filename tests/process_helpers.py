"""Every schedule, spacing and target, float64 images, and an exact comparison."""

from itertools import product

import torch
from torch.testing import assert_close

from unnoise import registry

SCHEDULES = registry.schedule.names()
SPACINGS = registry.spacing.names()
TARGETS = registry.target.names()
f64 = torch.float64


def schedule(spec):
    return registry.schedule.get(spec)()


def solvable(target, table):
    """Return True if the image follows from the noisy image and the output, at every level of the schedule."""
    level = table.level(torch.arange(table.T))
    a, b = target(level)
    return bool(((level.alpha * b - level.sigma * a).abs() > 1e-6).all())


def images(*shape):
    return torch.randn(shape, dtype=f64)


def close(a, b, atol):
    assert_close(torch.as_tensor(a, dtype=f64), torch.as_tensor(b, dtype=f64), rtol=0, atol=atol)


PAIRS = [  # from which an image follows; the others are refused, as test_target.py shows
    (scheduled, target)
    for scheduled, target in product(SCHEDULES, TARGETS)
    if solvable(registry.target.get(target), schedule(scheduled))
]
