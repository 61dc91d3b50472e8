"""The forward process q and its posterior between any two levels s (cleaner) and t (noisier)."""

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.diffusion.level import Level
from unnoise.errors import InputError
from unnoise.types import Images

Variance: TypeAlias = Literal["small", "large", "learned"]  # of the reverse step


def transition(s: Level, t: Level) -> tuple[Float64[Tensor, "*b1"], Float64[Tensor, "*b1"]]:
    """Return scale and variance of q(x_t | x_s); if t = s + 1, Ho et al. 2020, eq. 2: sqrt(1 - beta_t) and beta_t."""
    scale = t.alpha / s.alpha
    return scale, t.sigma.square() - (scale * s.sigma).square()


def q_step(x_s: Images, eps: Images, s: Level, t: Level) -> Images:
    """Sample q(x_t | x_s); Ho et al. 2020, eq. 2."""
    scale, variance = transition(s, t)
    return scale.to(x_s) * x_s + variance.sqrt().to(x_s) * eps


def q_sample(x0: Images, eps: Images, t: Level) -> Images:
    """Sample q(x_t | x0) in closed form; Ho et al. 2020, eq. 4."""
    return t.alpha.to(x0) * x0 + t.sigma.to(x0) * eps


def noise_of(x_t: Images, x0: Images, t: Level) -> Images:
    """Return the eps with which x0 becomes x_t; Ho et al. 2020, eq. 4, solved for the noise."""
    return (x_t - t.alpha.to(x_t) * x0) / t.sigma.to(x_t)


def posterior_mean(x0: Images, x_t: Images, t: Level, s: Level) -> Images:
    """Return the mean of q(x_s | x_t, x0) for any s cleaner than t; Ho et al. 2020, eq. 7 if t = s + 1."""
    scale, variance = transition(s, t)
    from_x0 = s.alpha * variance / t.sigma.square()
    from_x_t = scale * s.sigma.square() / t.sigma.square()
    return from_x0.to(x0) * x0 + from_x_t.to(x_t) * x_t


def posterior_variance(t: Level, s: Level) -> Float64[Tensor, "*b1"]:
    """Return the variance of q(x_s | x_t, x0), beta-tilde (Ho et al. 2020, eq. 7); it is 0 if s is clean."""
    _, variance = transition(s, t)
    return variance * s.sigma.square() / t.sigma.square()


def reverse_variance(
    name: Variance, mix: Images | None, t: Level, s: Level, floor: Float64[Tensor, ""] | None = None
) -> Tensor:
    """Return the variance of p(x_s | x_t), Ho et al. 2020, section 3.2.

    Args:
        name: "small" is the variance of the posterior, "large" of the transition. "learned" lies between them; Nichol &
            Dhariwal 2021 (arXiv:2102.09672), eq. 15.
        mix: The learned variance, log-linear from 0 (small) to 1 (large), or None if the model learned none.
        t: The noisier level.
        s: The cleaner level.
        floor: The small variance if s is clean, for which the posterior has no variance.

    Raises:
        InputError: name is "learned" and mix is None.
    """
    small, large = posterior_variance(t, s), transition(s, t)[1]
    if floor is not None:
        small = torch.where(s.sigma > 0, small, floor)
    if name != "learned":
        return small if name == "small" else large
    if mix is None:
        raise InputError("this model learned no variance; choose variance=small or variance=large")
    return torch.lerp(small.log().to(mix), large.log().to(mix), mix).exp()
