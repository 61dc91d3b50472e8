"""From seeds to images: per-image noise, and one batch run through a sampler."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from unnoise.config import Sampling
from unnoise.diffusion.guidance import guide
from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Diffusion, Prediction, clip_x0
from unnoise.diffusion.schedule import Schedule
from unnoise.errors import InputError
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.samplers.precision import Precision, with_precision
from unnoise.types import Images, Labels, RandnLike

FAINT = 0.2  # what may be left of the image where pure noise takes its place


def seeded_noise(seeds: Sequence[int]) -> RandnLike:
    """One CPU generator per image, so image i has the same noise at any batch size and on any device."""
    generators = [Generator().manual_seed(seed) for seed in seeds]

    def randn_like(x: Tensor) -> Tensor:
        noise = [torch.randn(x.shape[1:], generator=generator) for generator in generators]
        return torch.stack(noise).to(x)

    return randn_like


def labels_in_turn(classes: Sequence[str], seeds: Sequence[int]) -> Labels | None:
    """The classes in turn, by seed; None where there are none."""
    return torch.tensor(seeds) % len(classes) if classes else None


def check_settings(how: Sampling, schedule: Schedule, learned_variance: bool) -> None:
    """Refuse a way of sampling before any work is done: one step of it on one pixel, and where it starts."""

    def nothing(x_t: Images, _: Level) -> Prediction:
        return Prediction(x_t, x_t, x_t if learned_variance else None)

    levels, pixel = schedule.grid(how.steps, how.spacing), torch.zeros(1, 1, 1, 1)
    next(iter(sampler.get(how.sampler)(nothing, pixel, levels, randn_like=torch.randn_like)))
    if levels[0].alpha > FAINT:
        raise InputError(
            f"sampling starts from pure noise, but the first level visited still has {levels[0].alpha:.2f} of the "
            f"image; choose trailing spacing, or a schedule with more levels or a larger end"
        )
    parse_interval(how.guidance_interval)
    if not 0 <= how.guidance < math.inf:
        raise InputError(f"--guidance takes 0 or more (1 is off, 2 a usual value), got {how.guidance:g}")


def parse_interval(text: str) -> tuple[float, float]:
    """Read LOW-HIGH, two noise-to-signal ratios."""
    low, dash, high = text.partition("-")
    try:
        ratios = float(low), float(high)
    except ValueError:
        dash = ""
    if not dash or not 0 <= ratios[0] < ratios[1]:
        raise InputError(f"--guidance-interval takes LOW-HIGH, two noise-to-signal ratios, such as 0.3-5, got {text!r}")
    return ratios


def make_denoiser(model: Diffusion, how: Sampling, labels: Labels | None, weaker: Diffusion | None) -> Denoiser:
    """The model with its labels, guided and clipped as asked for; `weaker` takes the place of the unlabelled model."""
    known = model.given(labels)
    if how.guidance != 1:
        poor = weaker.given(labels if weaker.classes else None) if weaker else model
        known = guide(known, poor, how.guidance, parse_interval(how.guidance_interval))
    return clip_x0(known) if how.clip else known


def draw(
    model: Diffusion,
    seeds: Sequence[int],
    how: Sampling,
    labels: Labels | None = None,
    weaker: Diffusion | None = None,
    precision: Precision = "fp32",
) -> Iterator[Step]:
    """Yield each step from pure noise to images, [len(seeds), *model.shape]."""
    levels = model.schedule.grid(how.steps, how.spacing)
    randn_like, start = initial_noise(model, seeds)
    denoise = with_precision(precision, make_denoiser(model, how, labels, weaker))
    return without_grad(sampler.get(how.sampler)(denoise, start, levels, randn_like=randn_like))


def initial_noise(model: Diffusion, seeds: Sequence[int]) -> tuple[RandnLike, Images]:
    """The source of each image's noise, and what is drawn first: pure noise, [len(seeds), *model.shape]."""
    randn_like = seeded_noise(seeds)
    return randn_like, randn_like(torch.empty(len(seeds), *model.shape, device=model.device))


def without_grad(steps: Iterator[Step]) -> Iterator[Step]:
    """The same without a record for gradients."""
    while True:
        with torch.inference_mode():  # never held across a yield
            step = next(steps, None)
        if step is None:
            return
        yield step
