"""Noise schedules: the tables of alpha and sigma over T levels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.diffusion.level import CLEAN, Level
from unnoise.errors import InputError
from unnoise.options import Spec
from unnoise.registry import schedule, spacing

FAR = -20.0  # half_log_snr that stands for minus infinity where a level is made between two


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

    @property
    def half_log_snr(self) -> Float64[Tensor, " T"]:
        """log(alpha / sigma) of each level; a level without any image counts as FAR."""
        return (self.alpha / self.sigma).log().clamp(min=FAR)

    def level(self, time: Tensor | float) -> Level:
        """The level at `time` ([] or [b]): the table at integers, linear in half_log_snr between, -1 is clean."""
        time = torch.as_tensor(time, dtype=torch.float64)
        assert time.ge(-1).all()
        assert time.le(self.T - 1).all()
        low, high = time.floor().clamp(min=0).long(), time.ceil().clamp(min=0).long()
        log_snr, norm = self.half_log_snr, torch.hypot(self.alpha, self.sigma)
        lam, scale = torch.lerp(log_snr[low], log_snr[high], time - low), torch.lerp(norm[low], norm[high], time - low)
        exact = low == high
        alpha = torch.where(exact, self.alpha[low], scale * torch.sigmoid(2 * lam).sqrt())
        sigma = torch.where(exact, self.sigma[low], scale * torch.sigmoid(-2 * lam).sqrt())
        alpha, sigma = torch.where(time < 0, CLEAN.alpha, alpha), torch.where(time < 0, CLEAN.sigma, sigma)
        shape = (-1, 1, 1, 1) if time.ndim else ()
        return Level(time, alpha.reshape(shape), sigma.reshape(shape))

    def time(self, half_log_snr: Tensor | float) -> Float64[Tensor, "*b"]:
        """The inverse of `level` for [] or [b], within 0..T-1."""
        rising = self.half_log_snr.flip(0)
        wanted = torch.as_tensor(half_log_snr, dtype=torch.float64).clamp(rising[0], rising[-1])
        if self.T == 1:
            return torch.zeros_like(wanted)
        high = torch.searchsorted(rising, wanted.contiguous()).clamp(min=1)
        part = (wanted - rising[high - 1]) / (rising[high] - rising[high - 1])
        return self.T - 1 - (high - 1 + part)

    def at(self, half_log_snr: Tensor | float) -> Level:
        """The level of that half_log_snr, or the nearest one there is."""
        return self.level(self.time(half_log_snr))

    def grid(self, steps: int, spaced: Spec = "trailing") -> "Levels":
        """The steps + 1 levels a sampler visits, decreasing, the last one clean."""
        if not 1 <= steps <= self.T:
            raise InputError(f"steps must be from 1 to {self.T} (the schedule's levels), got {steps}")
        times = spacing.get(spaced)(self, steps)
        return Levels((*map(self.level, times), CLEAN), self)


@dataclass(frozen=True, eq=False)
class Levels(Sequence[Level]):
    """The levels a sampler visits, and the schedule they lie on: `levels.schedule.at(...)` makes those between."""

    visited: tuple[Level, ...]
    schedule: Schedule

    def __len__(self) -> int:
        return len(self.visited)

    @overload
    def __getitem__(self, i: int) -> Level: ...
    @overload
    def __getitem__(self, i: slice) -> "Levels": ...
    def __getitem__(self, i: int | slice) -> "Level | Levels":
        """One level, or a part of the way: `levels[5:]` starts from the sixth."""
        return Levels(self.visited[i], self.schedule) if isinstance(i, slice) else self.visited[i]


@schedule
def linear(*, T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """Ho et al. 2020 (arXiv:2006.11239), section 4: betas grow linearly."""
    check(T, start, end)
    return Schedule.from_betas(torch.linspace(start, end, T, dtype=torch.float64))


@schedule
def scaled_linear(*, T: int = 1000, start: float = 0.00085, end: float = 0.012) -> Schedule:
    """Rombach et al. 2022 (arXiv:2112.10752), as released: the square roots of the betas grow linearly."""
    check(T, start, end)
    return Schedule.from_betas(torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64).square())


@schedule
def cosine(*, T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17: alphas_cumprod follows a squared cosine."""
    check(T, s, max_beta)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    return along(torch.cos((u + s) / (1 + s) * math.pi / 2).square(), max_beta)


@schedule
def sigmoid(
    *, T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
) -> Schedule:
    """Jabri et al. 2022 (arXiv:2212.11972), as in Chen 2023 (arXiv:2301.10972): alphas_cumprod follows a sigmoid."""
    check(T, max_beta)
    if not (start < end and tau > 0):
        raise InputError(f"schedule sigmoid: start is below end and tau above 0, got {start}, {end} and {tau}")
    f = torch.sigmoid(-torch.linspace(start, end, T + 1, dtype=torch.float64) / tau)
    return along(f - f[-1], max_beta)


@schedule
def laplace(*, T: int = 1000, mu: float = 0.0, b: float = 1.0) -> Schedule:
    """Hang et al. 2024 (arXiv:2407.03297), table 1: log(SNR) at quantiles of a Laplace distribution.

    The paper's b of 0.5 leaves 18 % of the image at the last of 1000 levels, and as much noise at the first.
    """
    check(T)
    if not b > 0:
        raise InputError(f"schedule laplace: b is above 0, got {b}")
    u = (torch.arange(T, dtype=torch.float64) + 0.5) / T
    log_snr = mu + b * (u - 0.5).sign() * torch.log1p(-2 * (u - 0.5).abs())
    return Schedule(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


@schedule
def betas(*, values: tuple[float, ...] = (0.03, 0.12, 0.21, 0.3)) -> Schedule:
    """Any forward step variances, one a level (Ho et al. 2020, eq. 2), written 0.03-0.12-0.21-0.3."""
    check(len(values), *values)
    return Schedule.from_betas(torch.tensor(values, dtype=torch.float64))


@schedule
def zero_snr(*, of: str = "linear", T: int = 1000) -> Schedule:
    """Lin et al. 2023 (arXiv:2305.08891), algorithm 1: another schedule, rescaled to end in pure noise."""
    if T < 2:
        raise InputError(f"schedule zero_snr needs T of at least 2 levels, got {T}")
    alpha = schedule.get(f"{of}:T={T}")().alpha
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return Schedule(alpha, (1 - alpha.square()).sqrt())


@schedule
def flow(*, T: int = 1000) -> Schedule:
    """Liu et al. 2022 (arXiv:2209.03003), eq. 1, rectified flow: alpha = 1 - u, sigma = u; the last is pure noise."""
    check(T)
    u = (torch.arange(T, dtype=torch.float64) + 1) / T
    return Schedule(1 - u, u)


def along(curve: Float64[Tensor, " T_and_1"], max_beta: float) -> Schedule:
    """alphas_cumprod in proportion to a falling curve, its first value at the clean image; no beta above max_beta."""
    return Schedule.from_betas((1 - curve[1:] / curve[:-1]).clamp(max=max_beta))


def check(T: int, *between: float) -> None:
    if T < 1:
        raise InputError(f"a schedule needs T of at least 1 level, got {T}")
    for value in between:
        if not 0 < value < 1:
            raise InputError(f"a schedule's variances lie between 0 and 1, got {value}")
