"""Noise schedules: the tables of alpha and sigma over T levels."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from unnoise.diffusion.level import CLEAN, Level
from unnoise.errors import InputError
from unnoise.registry import schedule, spacing


@dataclass(frozen=True, eq=False)
class Schedule:
    """Immutable float64 tables on the CPU; never a module's buffer, so nothing averages or casts them."""

    alpha: Float64[Tensor, " T"]
    sigma: Float64[Tensor, " T"]

    @classmethod
    def from_betas(cls, betas: Float64[Tensor, " T"]) -> "Schedule":
        """Ho et al. 2020 (arXiv:2006.11239), eq. 4: alpha-bar is the product of (1 - beta)."""
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        if not alphas_cumprod[-1] > 0:
            raise InputError("these variances leave nothing of the image at the last level; choose smaller ones")
        return cls(alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())

    @property
    def T(self) -> int:  # noqa: N802  # the papers' name
        """The number of levels."""
        return len(self.alpha)

    @property
    def alphas_cumprod(self) -> Float64[Tensor, " T"]:
        return self.alpha.square()

    @property
    def betas(self) -> Float64[Tensor, " T"]:
        """Forward step variances, 1 - alphas_cumprod[t] / alphas_cumprod[t-1]."""
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        return 1 - self.alphas_cumprod / before

    def level(self, time: Tensor | float) -> Level:
        """The level at `time` ([] or [b]): the table at integers, linear in half_log_snr between, -1 is clean."""
        time = torch.as_tensor(time, dtype=torch.float64)
        assert time.ge(-1).all()
        assert time.le(self.T - 1).all()
        low, high = time.floor().clamp(min=0).long(), time.ceil().clamp(min=0).long()
        log_snr, norm = (self.alpha / self.sigma).log(), torch.hypot(self.alpha, self.sigma)
        lam, scale = torch.lerp(log_snr[low], log_snr[high], time - low), torch.lerp(norm[low], norm[high], time - low)
        exact = low == high
        alpha = torch.where(exact, self.alpha[low], scale * torch.sigmoid(2 * lam).sqrt())
        sigma = torch.where(exact, self.sigma[low], scale * torch.sigmoid(-2 * lam).sqrt())
        alpha, sigma = torch.where(time < 0, CLEAN.alpha, alpha), torch.where(time < 0, CLEAN.sigma, sigma)
        shape = (-1, 1, 1, 1) if time.ndim else ()
        return Level(time, alpha.reshape(shape), sigma.reshape(shape))

    def draw(self, batch: int, generator: Generator) -> tuple[Level, Level]:
        """Training levels: t uniform on 0..T-1 for each image, and s one step cleaner."""
        t = torch.randint(self.T, (batch,), generator=generator)
        return self.level(t), self.level(t - 1)

    def grid(self, steps: int, spaced: str = "trailing") -> list[Level]:
        """The steps + 1 levels a sampler visits, decreasing, the last one clean."""
        if not 1 <= steps <= self.T:
            raise InputError(f"steps must be from 1 to {self.T} (the schedule's levels), got {steps}")
        return [*map(self.level, spacing.get(spaced)(self.T, steps)), CLEAN]


@schedule
def linear(*, T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """Ho et al. 2020 (arXiv:2006.11239), section 4: betas grow linearly."""
    check(T, start, end)
    return Schedule.from_betas(torch.linspace(start, end, T, dtype=torch.float64))


@schedule
def cosine(*, T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17: alphas_cumprod follows a squared cosine."""
    check(T, s, max_beta)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + s) / (1 + s) * math.pi / 2).square()
    return Schedule.from_betas((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def check(T: int, *between: float) -> None:
    if T < 1:
        raise InputError(f"a schedule needs T of at least 1 level, got {T}")
    for value in between:
        if not 0 < value < 1:
            raise InputError(f"a schedule's variances lie between 0 and 1, got {value}")
