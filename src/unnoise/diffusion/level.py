"""The noise level: the share of the image and the share of the noise."""

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor, atan2, hypot, tensor
from torch import float64 as f64


@dataclass(frozen=True, eq=False)
class Level:
    """Hold the coefficients of `x_t = alpha * x0 + sigma * eps`.

    A level belongs to a whole batch (0-d), or holds a value for each image ([b] and [b, 1, 1, 1]). Everything is
    float64 on the CPU; a coefficient is cast once, at the end, by `coefficient.to(x)`.
    """

    time: Float64[Tensor, "*b"]  # 0..T-1, and -1 for the clean image
    alpha: Float64[Tensor, "*b1"]  # signal scale, sqrt(alphas_cumprod)
    sigma: Float64[Tensor, "*b1"]  # noise std, sqrt(1 - alphas_cumprod)

    def part(self, rows: slice | Tensor) -> "Level":
        """Return the levels of some of the images."""
        return Level(self.time[rows], self.alpha[rows], self.sigma[rows])

    @property
    def ratio(self) -> Float64[Tensor, "*b1"]:
        """Return sigma / alpha, the noise-to-signal ratio: sigma of EDM and k-diffusion."""
        return self.sigma / self.alpha

    @property
    def snr(self) -> Float64[Tensor, "*b1"]:
        """Return alpha^2 / sigma^2, the signal-to-noise ratio; +inf at the clean level."""
        return (self.alpha / self.sigma).square()

    @property
    def half_log_snr(self) -> Float64[Tensor, "*b1"]:
        """Return log(alpha / sigma), lambda of DPM-Solver; +inf at the clean level."""
        return (self.alpha / self.sigma).log()

    @property
    def norm(self) -> Float64[Tensor, "*b1"]:
        """Return the length of (alpha, sigma): 1 if the variance is preserved."""
        return hypot(self.alpha, self.sigma)

    @property
    def angle(self) -> Float64[Tensor, "*b1"]:
        """Return the direction of (alpha, sigma): 0 is the clean image, pi / 2 is pure noise.

        In the angle, the ODE of y = x / norm is finite at both ends: d y / d angle = cos(angle) eps - sin(angle) x0;
        Salimans & Ho 2022 (arXiv:2202.00512).
        """
        return atan2(self.sigma, self.alpha)


CLEAN = Level(time=tensor(-1.0, dtype=f64), alpha=tensor(1.0, dtype=f64), sigma=tensor(0.0, dtype=f64))
