"""Spacings: the times that a sampler visits, [steps], decreasing; some spacings give times between the integers."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.diffusion.schedule import Schedule
from unnoise.errors import InputError
from unnoise.registry import spacing


@spacing
def trailing(schedule: Schedule, steps: int) -> Float64[Tensor, " steps"]:
    """Space times evenly from the noisiest level on, Lin et al. 2023 (arXiv:2305.08891), table 2."""
    return (schedule.T - torch.arange(steps, dtype=torch.float64) * schedule.T / steps).round() - 1


@spacing
def leading(schedule: Schedule, steps: int) -> Float64[Tensor, " steps"]:
    """Visit every (T // steps)-th level from 0 on, Song et al. 2021 (arXiv:2010.02502), appendix D.2."""
    return torch.arange(steps, dtype=torch.float64).flip(0) * (schedule.T // steps)


@spacing
def linspace(schedule: Schedule, steps: int) -> Float64[Tensor, " steps"]:
    """Space times evenly, both ends included, Nichol & Dhariwal 2021 (arXiv:2102.09672), section 4."""
    return torch.linspace(schedule.T - 1, 0, steps, dtype=torch.float64).round()


@spacing
def quadratic(schedule: Schedule, steps: int) -> Float64[Tensor, " steps"]:
    """Space the square roots of the times evenly, Song et al. 2021 (arXiv:2010.02502), appendix D.2."""
    return (schedule.T - 1) * torch.linspace(1, 0, steps, dtype=torch.float64).square()


@spacing
def log_snr(schedule: Schedule, steps: int, *, highest: float = 80.0) -> Float64[Tensor, " steps"]:
    """Space half_log_snr evenly, Lu et al. 2022 (arXiv:2206.00927), section 3.3.

    Args:
        highest: Above this noise-to-signal ratio nothing can be seen; only the first level lies there.
    """
    low, high = ends(schedule, highest)
    return from_noisiest(schedule, torch.linspace(low, high, steps, dtype=torch.float64))


@spacing
def karras(schedule: Schedule, steps: int, *, rho: float = 7.0, highest: float = 80.0) -> Float64[Tensor, " steps"]:
    """Space the rho-th root of the noise-to-signal ratio evenly, Karras et al. 2022 (arXiv:2206.00364), eq. 5.

    Args:
        rho: The larger it is, the more levels are nearly clean.
        highest: Above this noise-to-signal ratio nothing can be seen; only the first level lies there.

    Raises:
        InputError: rho is not above 0.
    """
    if not rho > 0:
        raise InputError(f"spacing karras: rho is above 0, got {rho}")
    low, high = ends(schedule, highest)
    first, last = torch.tensor([-low / rho, -high / rho], dtype=torch.float64).exp().tolist()
    roots = torch.linspace(first, last, steps, dtype=torch.float64)
    return from_noisiest(schedule, -rho * roots.log())


def ends(schedule: Schedule, highest: float) -> tuple[float, float]:
    """Return the lowest and the highest half_log_snr to visit."""
    if not highest > 0:
        raise InputError(f"the highest noise-to-signal ratio is above 0, got {highest}")
    low, high = float(schedule.half_log_snr[-1]), float(schedule.half_log_snr[0])
    return (max(low, -math.log(highest)) if -math.log(highest) < high else low), high


def from_noisiest(schedule: Schedule, half_log_snr: Float64[Tensor, " steps"]) -> Float64[Tensor, " steps"]:
    """Return the times of these levels; the first is moved to the noisiest level, from which sampling starts."""
    if not (half_log_snr.isfinite().all() and (half_log_snr.diff() > 0).all()):
        raise InputError("these options of the spacing give noise levels that are not finite, or equal; choose others")
    times = schedule.time(half_log_snr)
    times[0] = schedule.T - 1
    return times
