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
from unnoise.options import Spec, short_repr
from unnoise.registry import schedule, spacing

FAR = -20.0  # half_log_snr that stands for minus infinity in an interpolation between two levels


@dataclass(frozen=True, eq=False)
class Schedule:
    """Hold immutable float64 tables on the CPU; they are no buffers of a module, so nothing averages or casts them."""

    alpha: Float64[Tensor, " T"]
    sigma: Float64[Tensor, " T"]

    @classmethod
    def from_betas(cls, betas: Float64[Tensor, " T"]) -> "Schedule":
        """Make a schedule of forward variances, Ho et al. 2020 (arXiv:2006.11239), eq. 4.

        alpha-bar is the product of (1 - beta). Raises InputError if nothing of the image is left at the last level.
        """
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        if not alphas_cumprod[-1] > 0:
            raise InputError("these variances leave nothing of the image at the last level; choose smaller ones")
        return cls(alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())

    @property
    def T(self) -> int:  # noqa: N802  # the papers' name
        """Return the number of levels."""
        return len(self.alpha)

    @property
    def alphas_cumprod(self) -> Float64[Tensor, " T"]:
        """Return alpha-bar of each level, alpha^2."""
        return self.alpha.square()

    @property
    def betas(self) -> Float64[Tensor, " T"]:
        """Return the forward step variances, 1 - alphas_cumprod[t] / alphas_cumprod[t-1]."""
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        return 1 - self.alphas_cumprod / before

    @property
    def half_log_snr(self) -> Float64[Tensor, " T"]:
        """Return log(alpha / sigma) of each level; a level without any image counts as FAR."""
        return (self.alpha / self.sigma).log().clamp(min=FAR)

    def level(self, time: Tensor | float) -> Level:
        """Return the level at `time` ([] or [b]): -1 is clean; half_log_snr is linear between integers."""
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
        """Return the time of a half_log_snr, [] or [b]: the inverse of `level`, within 0..T-1."""
        rising = self.half_log_snr.flip(0)
        wanted = torch.as_tensor(half_log_snr, dtype=torch.float64).clamp(rising[0], rising[-1])
        if self.T == 1:
            return torch.zeros_like(wanted)
        high = torch.searchsorted(rising, wanted.contiguous()).clamp(min=1)
        part = (wanted - rising[high - 1]) / (rising[high] - rising[high - 1])
        return self.T - 1 - (high - 1 + part)

    def at(self, half_log_snr: Tensor | float) -> Level:
        """Return the level with this half_log_snr, or the nearest level of the schedule."""
        return self.level(self.time(half_log_snr))

    def grid(self, steps: int, spaced: Spec = "trailing") -> "Levels":
        """Return the steps + 1 levels that a sampler visits, decreasing; the last one is clean.

        Raises InputError if there are fewer levels than steps.
        """
        if not 1 <= steps <= self.T:
            raise InputError(f"steps must be from 1 to {self.T} (the schedule's levels), got {steps}")
        times = spacing.get(spaced)(self, steps)
        if not all(0 <= time < self.T for time in times):
            raise InputError(f"spacing {short_repr(spaced)} gives no levels of this schedule; choose other options")
        return Levels((*map(self.level, times), CLEAN), self)


@dataclass(frozen=True, eq=False)
class Levels(Sequence[Level]):
    """Hold the levels that a sampler visits, and their schedule: `levels.schedule.at(...)` makes levels in between."""

    visited: tuple[Level, ...]
    schedule: Schedule

    def __len__(self) -> int:
        return len(self.visited)

    @overload
    def __getitem__(self, i: int) -> Level: ...
    @overload
    def __getitem__(self, i: slice) -> "Levels": ...
    def __getitem__(self, i: int | slice) -> "Level | Levels":
        """Return one level, or some of them: `levels[5:]` starts from the sixth."""
        return Levels(self.visited[i], self.schedule) if isinstance(i, slice) else self.visited[i]


@schedule
def linear(*, T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """Let betas grow linearly, Ho et al. 2020 (arXiv:2006.11239), section 4.

    Args:
        T: The number of levels.
        start, end: The first and the last beta.
    """
    check_values(T, start, end)
    return Schedule.from_betas(torch.linspace(start, end, T, dtype=torch.float64))


@schedule
def scaled_linear(*, T: int = 1000, start: float = 0.00085, end: float = 0.012) -> Schedule:
    """Let the square roots of the betas grow linearly, Rombach et al. 2022 (arXiv:2112.10752), as released.

    Args:
        T: The number of levels.
        start, end: The first and the last beta.
    """
    check_values(T, start, end)
    return Schedule.from_betas(torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64).square())


@schedule
def cosine(*, T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Let alphas_cumprod follow a squared cosine, Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17.

    Args:
        T: The number of levels.
        s: The offset that keeps the first betas from being too small.
        max_beta: The largest beta.
    """
    check_values(T, s, max_beta)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    return along(torch.cos((u + s) / (1 + s) * math.pi / 2).square(), max_beta)


@schedule
def sigmoid(
    *, T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
) -> Schedule:
    """Let alphas_cumprod follow a sigmoid, Jabri et al. 2022 (arXiv:2212.11972), as in Chen 2023 (arXiv:2301.10972).

    Args:
        T: The number of levels.
        start, end: The part of the sigmoid that is used.
        tau: The temperature, by which start and end are divided.
        max_beta: The largest beta.

    Raises:
        InputError: start is not below end, or tau is not above 0.
    """
    check_values(T, max_beta)
    if not (start < end and tau > 0):
        raise InputError(f"schedule sigmoid: start is below end and tau above 0, got {start}, {end} and {tau}")
    f = torch.sigmoid(-torch.linspace(start, end, T + 1, dtype=torch.float64) / tau)
    return along(f - f[-1], max_beta)


@schedule
def laplace(*, T: int = 1000, mu: float = 0.0, b: float = 1.0) -> Schedule:
    """Place log(SNR) at quantiles of a Laplace distribution, Hang et al. 2024 (arXiv:2407.03297), table 1.

    The paper's b of 0.5 leaves 18 % of the image at the last of 1000 levels, and 18 % noise at the first.

    Args:
        T: The number of levels.
        mu, b: The mean and the scale of the distribution.

    Raises:
        InputError: b is not above 0.
    """
    check_values(T)
    if not b > 0:
        raise InputError(f"schedule laplace: b is above 0, got {b}")
    u = (torch.arange(T, dtype=torch.float64) + 0.5) / T
    log_snr = mu + b * (u - 0.5).sign() * torch.log1p(-2 * (u - 0.5).abs())
    return Schedule(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


@schedule
def betas(*, values: tuple[float, ...] = (0.03, 0.12, 0.21, 0.3)) -> Schedule:
    """Take any forward step variances, Ho et al. 2020 (arXiv:2006.11239), eq. 2.

    Args:
        values: One beta per level, written 0.03-0.12-0.21-0.3.
    """
    check_values(len(values), *values)
    return Schedule.from_betas(torch.tensor(values, dtype=torch.float64))


@schedule
def zero_snr(*, of: str = "linear", T: int = 1000) -> Schedule:
    """Rescale another schedule to end in pure noise, Lin et al. 2023 (arXiv:2305.08891), algorithm 1.

    Args:
        of: The name of the other schedule.
        T: The number of levels.

    Raises:
        InputError: T is below 2.
    """
    if T < 2:
        raise InputError(f"schedule zero_snr needs T of at least 2 levels, got {T}")
    alpha = schedule.get(f"{of}:T={T}")().alpha
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return Schedule(alpha, (1 - alpha.square()).sqrt())


@schedule
def flow(*, T: int = 1000) -> Schedule:
    """Let alpha fall and sigma rise linearly: rectified flow, Liu et al. 2022 (arXiv:2209.03003), eq. 1.

    alpha = 1 - u and sigma = u; the last level is pure noise.

    Args:
        T: The number of levels.
    """
    check_values(T)
    u = (torch.arange(T, dtype=torch.float64) + 1) / T
    return Schedule(1 - u, u)


def along(curve: Float64[Tensor, " T_and_1"], max_beta: float) -> Schedule:
    """Make a schedule whose alphas_cumprod is in proportion to a falling curve, with no beta above max_beta.

    The first value of the curve belongs to the clean image.
    """
    return Schedule.from_betas((1 - curve[1:] / curve[:-1]).clamp(max=max_beta))


def check_values(T: int, *between: float) -> None:
    """Raise InputError if there is no level, or if a value does not lie between 0 and 1."""
    if T < 1:
        raise InputError(f"a schedule needs T of at least 1 level, got {T}")
    for value in between:
        if not 0 < value < 1:
            raise InputError(f"a schedule's variances lie between 0 and 1, got {value}")
