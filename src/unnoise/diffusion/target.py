"""Targets of the network: `output = a * x0 + b * eps`, one line each, and one 2x2 inverse for all."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor, hypot

from unnoise.diffusion.level import Level
from unnoise.diffusion.schedule import Schedule
from unnoise.errors import InputError
from unnoise.registry import target
from unnoise.types import Images

Coefficients: TypeAlias = tuple[Float64[Tensor, "*b1"], Float64[Tensor, "*b1"]]
Target: TypeAlias = Callable[[Level], Coefficients]  # (a, b)

SINGULAR = 1e-6  # a determinant as small as float32 is precise
MAX_STD = 100  # standard deviation of images


@target
def eps(level: Level) -> Coefficients:
    """Predict the noise, Ho et al. 2020 (arXiv:2006.11239), eq. 11."""
    return torch.zeros_like(level.alpha), torch.ones_like(level.alpha)


@target
def x0(level: Level) -> Coefficients:
    """Predict the clean image, Ho et al. 2020 (arXiv:2006.11239), section 3.2."""
    return torch.ones_like(level.alpha), torch.zeros_like(level.alpha)


@target
def v(level: Level, *, std: float = 1.0) -> Coefficients:
    """Predict v = alpha * eps - sigma * x0, Salimans & Ho 2022 (arXiv:2202.00512), appendix D.

    Another std than 1 gives the target of Karras et al. 2022 (arXiv:2206.00364), eq. 7, scaled to the length of v: x0
    less the share of x_t / alpha that they keep for images of this deviation.

    Args:
        std: The standard deviation of the images, 0 to 100; 0 gives -x0.

    Raises:
        InputError: std lies outside of 0 to 100.
    """
    if not 0 <= std <= MAX_STD:
        raise InputError(f"target v: std is 0 to {MAX_STD}, got {std:g}")
    scale = level.norm / hypot(level.sigma, std**2 * level.alpha)
    return -scale * level.sigma, scale * std**2 * level.alpha


@target
def flow(level: Level) -> Coefficients:
    """Predict eps - x0, the velocity of rectified flow towards noise, Liu et al. 2022 (arXiv:2209.03003), eq. 1."""
    return -torch.ones_like(level.alpha), torch.ones_like(level.alpha)


def check_target(target: Target, schedule: Schedule) -> None:
    """Raise InputError if a target does not determine the image at some level: `decode` would divide by zero."""
    level = schedule.level(torch.arange(schedule.T))
    a, b = target(level)
    if (level.alpha * b - level.sigma * a).abs().min() < SINGULAR:
        raise InputError(
            "this target says nothing of the image where the schedule leaves pure noise (eps is then x_t itself); "
            "choose the target v, x0 or flow, or a schedule that ends with a little of the image"
        )


def encode(clean: Images, noise: Images, level: Level, target: Target) -> Images:
    """Return the output of a perfect network for this image and noise."""
    a, b = target(level)
    return a.to(clean) * clean + b.to(clean) * noise


def decode(output: Images, x_t: Images, level: Level, target: Target) -> tuple[Images, Images]:
    """Solve `x_t = alpha * x0 + sigma * eps` and `output = a * x0 + b * eps` for (x0, eps)."""
    a, b = target(level)
    determinant = level.alpha * b - level.sigma * a
    clean = (b / determinant).to(x_t) * x_t - (level.sigma / determinant).to(x_t) * output
    noise = (level.alpha / determinant).to(x_t) * output - (a / determinant).to(x_t) * x_t
    return clean, noise
