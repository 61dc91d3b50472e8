"""Closed-form worlds: data whose best denoiser is known exactly, so that nothing needs training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Prediction


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent pixels, N(mean, std^2) each; `mean` and `std` are [c, h, w]. A call is the exact `Denoiser`."""

    mean: Tensor
    std: Tensor

    def variance(self, level: Level) -> Tensor:
        """Return the variance of x_t."""
        return (level.alpha * self.std).square() + level.sigma.square()

    def draw(self, count: int, level: Level) -> Tensor:
        """Draw samples of x_t, float64."""
        noise = torch.randn(count, *self.mean.shape, dtype=torch.float64)
        return level.alpha * self.mean + self.variance(level).sqrt() * noise

    def flow(self, x_t: Tensor, t: Level, s: Level) -> Tensor:
        """Return the exact solution of the probability-flow ODE from t to s: it keeps quantiles."""
        scale = (self.variance(s) / self.variance(t)).sqrt()
        return s.alpha * self.mean + scale * (x_t - t.alpha * self.mean)

    def __call__(self, x_t: Tensor, level: Level) -> Prediction:
        """Return E[x0 | x_t] and E[eps | x_t] by linear regression on x_t."""
        surprise = (x_t.double() - level.alpha * self.mean) / self.variance(level)
        x0 = self.mean + level.alpha * self.std.square() * surprise
        return Prediction(x0.to(x_t.dtype), (level.sigma * surprise).to(x_t.dtype), torch.zeros_like(x_t))


@dataclass(frozen=True, eq=False)
class Correlated:
    """N(mean, covariance) of all pixels, [c, h, w] and [c h w, c h w]. A call is the exact `Denoiser`."""

    mean: Tensor
    covariance: Tensor

    def __call__(self, x_t: Tensor, level: Level) -> Prediction:
        """Return E[x0 | x_t] and E[eps | x_t] by linear regression on x_t."""
        noisy = level.alpha.square() * self.covariance + level.sigma.square() * torch.eye(len(self.covariance))
        surprise = torch.linalg.solve(noisy, (x_t - level.alpha * self.mean).flatten(1).T).T
        x0 = self.mean + (level.alpha * surprise @ self.covariance).view_as(x_t)
        return Prediction(x0, level.sigma * surprise.view_as(x_t), torch.zeros_like(x_t))


@dataclass(frozen=True, eq=False)
class Points:
    """A finite set of equally likely images; `points` is [n, c, h, w]. A call is the exact `Denoiser`."""

    points: Tensor

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return each image's distance to its nearest point (the largest of any pixel), and the index of the point."""
        apart = (x.double()[:, None] - self.points).abs().amax(dim=(2, 3, 4))
        return apart.min(dim=1)

    def __call__(self, x_t: Tensor, level: Level) -> Prediction:
        """Return E[x0 | x_t]: the mean of the points, weighted by their likelihood of x_t."""
        apart = (x_t.double()[:, None] - level.alpha.reshape(-1, 1, 1, 1, 1) * self.points).square().sum(dim=(2, 3, 4))
        weight = torch.softmax(-apart / (2 * level.sigma.reshape(-1, 1).square()), dim=1)
        x0 = torch.einsum("bn,nchw->bchw", weight, self.points)
        eps = (x_t.double() - level.alpha * x0) / level.sigma
        return Prediction(x0.to(x_t.dtype), eps.to(x_t.dtype), torch.zeros_like(x_t))


@dataclass(frozen=True, eq=False)
class Flat:
    """Independent pixels of one of two values each, equally likely: one bit each. A call is the exact `Denoiser`."""

    low: float
    high: float

    def draw(self, *shape: int) -> Tensor:
        """Draw images, float64."""
        return torch.where(torch.rand(*shape) < 0.5, self.low, self.high).double()

    def __call__(self, x_t: Tensor, level: Level) -> Prediction:
        """Return E[x0 | x_t] and E[eps | x_t]: the two values, weighted by their likelihood of x_t."""
        alpha, sigma = level.alpha.to(x_t), level.sigma.to(x_t)
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        x0 = middle + half * torch.tanh(alpha * half * (x_t - alpha * middle) / sigma.square())
        return Prediction(x0, (x_t - alpha * x0) / sigma, torch.zeros_like(x_t))
