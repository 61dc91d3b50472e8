"""The examples work as their text says."""

import runpy
from pathlib import Path

import torch

from unnoise import registry
from unnoise.diffusion.schedule import linear
from worlds import Gaussian

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_adding_a_sampler_takes_one_function():
    before = set(registry.sampler.names())
    try:
        runpy.run_path(str(EXAMPLES / "add_a_sampler.py"))
        assert set(registry.sampler.names()) - before == {"heun2"}
        world = Gaussian(torch.full((1, 4, 4), 0.3).double(), torch.full((1, 4, 4), 0.5).double())
        errors = [end_error("heun2", world, steps) for steps in (10, 20, 40)]
        assert errors[0] / errors[1] > 3  # second order: four times smaller with twice the steps
        assert errors[1] / errors[2] > 3
        assert end_error("heun2:average=0.0", world, 20) > 2 * errors[1]  # Euler's method
    finally:
        registry.sampler.entries.pop("heun2", None)


def end_error(spec, world, steps):
    """Distance from the exact solution of the probability-flow ODE between two inner levels."""
    levels = [linear().level(time) for time in torch.linspace(800, 200, steps + 1, dtype=torch.float64)]
    x = torch.linspace(-3, 3, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    *_, last = registry.sampler.get(spec)(world, x, levels)
    return float((last.x - world.flow(x, levels[0], levels[-1])).abs().max())
