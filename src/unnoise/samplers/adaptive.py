"""Heun's method on the probability-flow ODE, with steps for each image that are as long as a tolerance allows."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.schedule import Levels, Schedule
from unnoise.errors import InputError
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.types import Images, RandnLike

Angles: TypeAlias = Float64[Tensor, " b"]  # one for each image, on the CPU
Look: TypeAlias = Callable[[Images, Angles], tuple[Images, Images]]

FIRST = 0.1  # radians of the quarter circle from noise to image
SHORTEST = 3e-3  # share of the angle: nothing changes faster than the noise that is left, and this bounds the steps


@sampler.declare(order=2, adaptive=True)
def adaptive(
    denoise: Denoiser,
    x: Images,
    levels: Levels,
    *,
    tolerance: float = 0.02,
    randn_like: RandnLike = torch.randn_like,  # noqa: ARG001  # deterministic
) -> Iterator[Step]:
    """Sample with own steps for each image, Jolicoeur-Martineau et al. 2021 (arXiv:2105.14080), algorithm 1 on the ODE.

    The ODE describes y = x / norm in `level.angle`; its slope v is finite at both ends. The exponent of the step
    control is 1/2, since the error is of order h^2. Every given level is reached exactly; a grid of one step leaves
    all choices to the tolerance.

    Args:
        tolerance: The root mean square difference between Euler and Heun in one step, for pixels of about size 1.

    Raises:
        InputError: tolerance is not above 0.
    """
    if not tolerance > 0:
        raise InputError(f"adaptive: tolerance is above 0, got {tolerance}")
    look = partial(seen, denoise, levels.schedule)
    y, angle = x / levels[0].norm.to(x), levels[0].angle.repeat(len(x))
    x0, v = look(y, angle)
    h = torch.full_like(angle, FIRST)
    for s in levels[1:]:
        goal = s if s.sigma > 0 else levels.schedule.level(0)
        while (angle > goal.angle).any():
            y, angle, h = attempt(look, y, v, angle, goal.angle, h, tolerance)
            x0, v = look(y, angle)
        yield Step(s.norm.to(y) * y if s.sigma > 0 else x0, x0, s)


def attempt(
    look: Look, y: Images, v: Images, angle: Angles, end: Float64[Tensor, ""], h: Angles, tolerance: float
) -> tuple[Images, Angles, Angles]:
    """Try a step of at most h for each image; return the images, their angles, and the next h.

    An image stays where it was if its error is above 1.
    """
    shortest = SHORTEST * angle
    h = torch.maximum(h, shortest)
    whole = h < angle - end  # else the step ends exactly at `end`
    ahead = torch.where(whole, angle - h, end)
    step = angle - ahead
    euler = y - wide(step).to(y) * v
    heun = y - wide(step).to(y) * (v + look(euler, ahead)[1]) / 2
    pixel = torch.maximum(y.abs(), heun.abs()).clamp(min=1)
    error = ((heun - euler) / (tolerance * pixel)).square().mean(dim=(1, 2, 3)).sqrt().cpu().double()
    error = error.nan_to_num(nan=0.0, posinf=0.0)  # a shorter step would not help these: let them pass
    good = (error <= 1) | (h <= shortest)
    longer = step * (0.9 / error.sqrt()).clamp(0.2, 5)
    h = torch.where(good & ~whole, torch.maximum(h, longer), longer)
    moved = good & (step > 0)
    return torch.where(wide(moved).to(y.device), heun, y), torch.where(moved, ahead, angle), h


def seen(denoise: Denoiser, schedule: Schedule, y: Images, angle: Angles) -> tuple[Images, Images]:
    """Return x0 and the slope of y in the angle, at these angles."""
    level = schedule.at(-angle.tan().log())
    x0, eps, _ = denoise(level.norm.to(y) * y, level)
    return x0, level.angle.cos().to(y) * eps - level.angle.sin().to(y) * x0


def wide(each: Shaped[Tensor, " b"]) -> Shaped[Tensor, "b 1 1 1"]:
    """Reshape one value per image so that it broadcasts over pixels."""
    return each.reshape(-1, 1, 1, 1)
