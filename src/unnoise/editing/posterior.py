"""Samplers of pictures of which something is known: each takes a sampler, and makes one that keeps to it."""

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
    """y = A x of the pictures that are looked for."""

    measure: Measurement
    y: Measured

    def surprise(self, x: Images) -> Images:
        """What must be added to x so that it agrees, and no more: A+ (y - A x)."""
        return self.measure.inverse(self.y.to(x) - self.measure(x))

    def keep(self, x: Images) -> Images:
        return x + self.surprise(x)


@posterior
def replace(sampler: Sampler, known: Known) -> Sampler:
    """Wang et al. 2023 (arXiv:2212.00490), eq. 13, DDNM: what is known takes its place in every predicted image.

    Of pixels it is the replacement of Song et al. 2021 (arXiv:2011.13456), appendix I.2, with noise that stays one
    path: what is filled in hardly looks at what lies around it.
    """

    def replaced(denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]:
        return ended(sampler(keeping(denoise, known), x, levels, randn_like=randn_like), known)

    return replaced


@posterior
def repaint(sampler: Sampler, known: Known, *, resamplings: int = 5, jump: int = 2) -> Sampler:
    """Lugmayr et al. 2022 (arXiv:2201.09865), algorithm 1: replacement, and each part of the way several times.

    Replacement is that of `replace`. jump: steps of a part, which the sampler begins anew. After it noise takes the
    image back to where the part began, so that what is filled in and what is known come to agree; costs `resamplings`
    times the evaluations.
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
    """Song et al. 2023 (ICLR, "Pseudoinverse-guided diffusion models"), eq. 7: guided by what is known, through J.

    J, the Jacobian of the predicted image, says how the rest depends on what is known; its price is a backward pass.
    std: of images; where they are independent Gaussian pixels of this deviation, this is exact.
    """
    if not 0 < std < math.inf:
        raise InputError(f"pigdm: std is above 0, and finite, got {std:g}")

    def guided(denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]:
        return ended(sampler(pulled(denoise, known, std), x, levels, randn_like=randn_like), known)

    return guided


def keeping(denoise: Denoiser, known: Known) -> Denoiser:
    """Predictions that agree with what is known."""

    def kept(x_t: Images, level: Level) -> Prediction:
        predicted = denoise(x_t, level)
        return with_x0(predicted, known.keep(predicted.x0), x_t, level)

    return kept


def pulled(denoise: Denoiser, known: Known, std: float) -> Denoiser:
    """E[x0 | x_t, y], by Tweedie's formula x0 + sigma^2 / alpha * d log p(y | x_t) / d x_t."""

    def guided(x_t: Images, level: Level) -> Prediction:
        if level.alpha == 0:  # pure noise says nothing of the picture, and what is known says all
            return keeping(denoise, known)(x_t, level)
        with torch.inference_mode(mode=False), torch.enable_grad():
            x_t = x_t.clone().requires_grad_()
            predicted = denoise(x_t, level)
            surprise = known.surprise(predicted.x0.detach())
            (pull,) = torch.autograd.grad(predicted.x0, x_t, surprise)
        # var(x0 | x_t) = (std sigma)^2 / total; times sigma^2 / alpha this is left
        total = (std * level.alpha).square() + level.sigma.square()
        x0 = predicted.x0.detach() + (total / (level.alpha * std**2)).to(x_t) * pull
        return with_x0(predicted, x0, x_t.detach(), level)

    return guided


def ended(steps: Iterator[Step], known: Known) -> Iterator[Step]:
    """The last image, which is clean, agrees exactly."""
    for step in steps:
        yield step._replace(x=known.keep(step.x)) if step.level.sigma == 0 else step
