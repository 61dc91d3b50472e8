"""Which of the T levels a sampler visits: decreasing integer times, [steps]."""

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.registry import spacing


@spacing
def trailing(T: int, steps: int) -> Float64[Tensor, " steps"]:
    """Lin et al. 2023 (arXiv:2305.08891), table 2: always starts from the noisiest level."""
    return (T - torch.arange(steps, dtype=torch.float64) * T / steps).round() - 1


@spacing
def leading(T: int, steps: int) -> Float64[Tensor, " steps"]:
    """Song et al. 2021 (arXiv:2010.02502), appendix D.2: every (T // steps)-th level, from 0."""
    return torch.arange(steps, dtype=torch.float64).flip(0) * (T // steps)


@spacing
def linspace(T: int, steps: int) -> Float64[Tensor, " steps"]:
    """Nichol & Dhariwal 2021 (arXiv:2102.09672), section 4: evenly spaced, both ends included."""
    return torch.linspace(T - 1, 0, steps, dtype=torch.float64).round()
