"""Posterior samplers: each turns a sampler into one whose images agree with a measurement y = A x."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Prediction, with_x0
from unnoise.diffusion.process import q_step
from unnoise.diffusion.schedule import Levels
from unnoise.editing.measurements import Measured, Measurement
from unnoise.errors import InputError
from unnoise.registry import posterior
from unnoise.samplers.base import Sampler, Step
from unnoise.types import Images, RandnLike


@dataclass(frozen=True, eq=False)
class Known:
    """Hold a measurement y = A x of the images that are sought."""

    measure: Measurement
    y: Measured

    def surprise(self, x: Images) -> Images:
        """Return the smallest change that makes x agree with the measurement: A+ (y - A x)."""
        return self.measure.inverse(self.y.to(x) - self.measure(x))

    def keep(self, x: Images) -> Images:
        """Return x, changed to agree with the measurement."""
        return x + self.surprise(x)


@posterior
def replace(sampler: Sampler, known: Known) -> Sampler:
    """Replace the known part in every predicted image: DDNM, Wang et al. 2023 (arXiv:2212.00490), eq. 13.

    For pixels it is the replacement of Song et al. 2021 (arXiv:2011.13456), appendix I.2, with noise along one path.
    The part that is filled in hardly depends on the pixels around it.
    """

    def replaced(denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]:
        return ended(sampler(keeping(denoise, known), x, levels, randn_like=randn_like), known)

    return replaced


@posterior
def repaint(sampler: Sampler, known: Known, *, resamplings: int = 5, jump: int = 2) -> Sampler:
    """Replace the known part, repeatedly: RePaint, Lugmayr et al. 2022 (arXiv:2201.09865), algorithm 1.

    The known part is replaced as in `replace`, and each group of steps is made several times. After a group, noise
    takes the image back to the start of the group, so that the filled part comes to agree with the known part.

    Args:
        resamplings: How often each group is made; the evaluations of the network grow in proportion.
        jump: Steps of a group; the sampler starts anew with each group.

    Raises:
        InputError: resamplings or jump is below 1.
    """
    for name, value in (("resamplings", resamplings), ("jump", jump)):
        if value < 1:
            raise InputError(f"repaint: {name} takes 1 or more, got {value}")

    def resampled(denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]:
        denoise = keeping(denoise, known)
        for begin in range(0, len(levels) - 1, jump):
            part = levels[begin : begin + jump + 1]
            for turn in range(resamplings):
                x = q_step(x, randn_like(x), part[-1], part[0]) if turn else x
                for step in ended(sampler(denoise, x, part, randn_like=randn_like), known):
                    x = step.x
                    yield step

    return resampled


@posterior
def pigdm(sampler: Sampler, known: Known, *, std: float = 0.5) -> Sampler:
    """Guide by the known part: PiGDM, Song et al. 2023 (ICLR, "Pseudoinverse-guided diffusion models"), eq. 7.

    The Jacobian of the predicted image tells how the rest depends on the known part; it costs a backward pass per step.
    For images of independent Gaussian pixels with standard deviation std, the result is exact.

    Args:
        std: The standard deviation of the images.

    Raises:
        InputError: std is not above 0, or not finite.
    """
    if not 0 < std < math.inf:
        raise InputError(f"pigdm: std is above 0, and finite, got {std:g}")

    def guided(denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]:
        return ended(sampler(pulled(denoise, known, std), x, levels, randn_like=randn_like), known)

    return guided


def keeping(denoise: Denoiser, known: Known) -> Denoiser:
    """Return a denoiser whose predicted images agree with the measurement."""

    def kept(x_t: Images, level: Level) -> Prediction:
        predicted = denoise(x_t, level)
        return with_x0(predicted, known.keep(predicted.x0), x_t, level)

    return kept


def pulled(denoise: Denoiser, known: Known, std: float) -> Denoiser:
    """Return the denoiser E[x0 | x_t, y], by Tweedie's formula x0 + sigma^2 / alpha * d log p(y | x_t) / d x_t."""

    def guided(x_t: Images, level: Level) -> Prediction:
        if level.alpha == 0:  # pure noise tells nothing about the image: only the measurement counts
            return keeping(denoise, known)(x_t, level)
        with torch.inference_mode(mode=False), torch.enable_grad():
            x_t = x_t.clone().requires_grad_()
            predicted = denoise(x_t, level)
            surprise = known.surprise(predicted.x0.detach())
            (pull,) = torch.autograd.grad(predicted.x0, x_t, surprise)
        # var(x0 | x_t) = (std sigma)^2 / total; multiplied by sigma^2 / alpha, the factor of `pull` remains
        total = (std * level.alpha).square() + level.sigma.square()
        x0 = predicted.x0.detach() + (total / (level.alpha * std**2)).to(x_t) * pull
        return with_x0(predicted, x0, x_t.detach(), level)

    return guided


def ended(steps: Iterator[Step], known: Known) -> Iterator[Step]:
    """Yield the steps; the last image, which is clean, is changed to agree exactly."""
    for step in steps:
        yield step._replace(x=known.keep(step.x)) if step.level.sigma == 0 else step
