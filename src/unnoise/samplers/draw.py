"""Draw images by a sampler: check the settings, seed the noise of each image, and run one batch."""

import inspect
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import torch
from torch import Generator, Tensor

from unnoise.config import Sampling
from unnoise.diffusion.guidance import guide
from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Diffusion, Prediction, clip_x0
from unnoise.diffusion.schedule import Levels, Schedule
from unnoise.errors import InputError
from unnoise.options import Spec
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.samplers.precision import Precision, with_precision
from unnoise.types import Images, Labels, RandnLike

GOLDEN = 11_400_714_819_323_198_485  # the golden ratio less 1, times 2^64
MAX_SIGNAL = 0.2  # share of the image that may be left at the first level, which pure noise takes the place of


class NonfiniteError(InputError):
    """Drawn images are no numbers."""


def seeded_noise(seeds: Sequence[int]) -> RandnLike:
    """Return a source of noise with one CPU generator per image.

    Image i gets the same noise at any batch size and on any device.
    """
    generators = [Generator().manual_seed(seed) for seed in seeds]

    def randn_like(x: Tensor) -> Tensor:
        noise = [torch.randn(x.shape[1:], generator=generator) for generator in generators]
        return torch.stack(noise).to(x)

    return randn_like


def labels_in_turn(classes: Sequence[str], seeds: Sequence[int]) -> Labels | None:
    """Return a label for each seed, every class in turn; None if there are no classes."""
    return torch.tensor(seeds) % len(classes) if classes else None


def labels_for(classes: Sequence[str], seeds: Sequence[int], counts: Sequence[int] | None) -> Labels | None:
    """Return a label for each seed: in the proportions of the counts, or in turn if there are none."""
    return labels_by_count(counts, seeds) if counts else labels_in_turn(classes, seeds)


def labels_by_count(counts: Sequence[int], seeds: Sequence[int]) -> Labels:
    """Return a label for each seed, in the proportions of the counts; the last count is of images without a label, -1.

    The label of a seed depends on no other seed. The multiples of the golden ratio fill [0, 1) evenly (Weyl 1916), so
    seeds in a row have each class as often as it should be, up to one or two images.
    """
    ends = [*accumulate(counts)]
    places = (seed * GOLDEN % 2**64 * ends[-1] >> 64 for seed in seeds)  # whole numbers: the same on every machine
    labels = torch.tensor([bisect_right(ends, place) for place in places])
    return labels.where(labels < len(counts) - 1, -1)


def check_settings(settings: Sampling, schedule: Schedule, learned_variance: bool) -> None:
    """Raise InputError for sampling settings that cannot work, before any image is drawn."""
    levels = schedule.grid(settings.steps, settings.spacing)
    check_sampler(settings.sampler, levels, learned_variance)
    if levels[0].alpha > MAX_SIGNAL:
        raise InputError(
            f"sampling starts from pure noise, but the first level visited still has {levels[0].alpha:.2f} of the "
            f"image; choose trailing spacing, or a schedule with more levels or a larger end"
        )
    parse_interval(settings.guidance_interval)
    if not 0 <= settings.guidance < math.inf:
        raise InputError(f"--guidance takes 0 or more (1 is off, 2 a usual value), got {settings.guidance:g}")


def check_sampler(spec: Spec, levels: Levels, learned_variance: bool) -> None:
    """Raise InputError if a sampler cannot be called as one, or refuses its options.

    A registered sampler makes one step on one pixel. Only the signature of your own sampler is checked, since it may
    need larger images.
    """
    made, pixel = sampler.get(spec), torch.zeros(1, 1, 1, 1)

    def predict_nothing(x_t: Images, _: Level) -> Prediction:
        return Prediction(x_t, x_t, x_t if learned_variance else None)

    try:
        inspect.signature(made).bind(predict_nothing, pixel, levels, randn_like=torch.randn_like)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"sampler {sampler.text(spec)} must take (denoise, x, levels, *, randn_like) and yield Step(x, x0, level): "
            f"{error}"
        ) from error
    if made.func in sampler.entries.values():
        next(iter(made(predict_nothing, pixel, levels, randn_like=seeded_noise([0]))))


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


def make_denoiser(model: Diffusion, settings: Sampling, labels: Labels | None, weaker: Diffusion | None) -> Denoiser:
    """Return the denoiser of a model with its labels, guided and clipped as the settings say.

    Guidance leads away from `weaker`, or from the model without labels if `weaker` is None.
    """
    good = model.given(labels)
    if settings.guidance != 1:
        poor = weaker.given(labels if weaker.classes else None) if weaker else model
        good = guide(good, poor, settings.guidance, parse_interval(settings.guidance_interval))
    return clip_x0(good) if settings.clip else good


def draw(
    model: Diffusion,
    seeds: Sequence[int],
    settings: Sampling,
    labels: Labels | None = None,
    weaker: Diffusion | None = None,
    precision: Precision = "fp32",
) -> Iterator[Step]:
    """Yield each step from pure noise to images, [len(seeds), *model.shape]."""
    levels = model.schedule.grid(settings.steps, settings.spacing)
    randn_like, start = initial_noise(model, seeds)
    denoise = with_precision(precision, make_denoiser(model, settings, labels, weaker))
    return without_grad(sampler.get(settings.sampler)(denoise, start, levels, randn_like=randn_like))


def initial_noise(model: Diffusion, seeds: Sequence[int]) -> tuple[RandnLike, Images]:
    """Return the source of noise of each image, and the pure noise to start from, [len(seeds), *model.shape]."""
    randn_like = seeded_noise(seeds)
    return randn_like, randn_like(torch.empty(len(seeds), *model.shape, device=model.device))


def refuse_nonfinite(images: Images) -> None:
    """Raise NonfiniteError for images that are no numbers, since files would show them black."""
    if wrong := int((~images.isfinite()).flatten(1).any(1).sum()):
        raise NonfiniteError(
            f"{wrong} of {len(images)} images are not finite (NaN or infinity): the network or the sampler overflows; "
            f"try --precision fp32, more --steps, another --sampler or less --guidance"
        )


def without_grad(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the same steps, computed without a record for gradients.

    Raises InputError if a sampler makes no step, or yields anything else than a `Step`, and NonfiniteError if the last
    images are no numbers.
    """
    iterator, step = iter(steps), None
    while True:
        with torch.inference_mode():  # never held across a yield
            following = next(iterator, None)
        if following is None and step is not None:
            refuse_nonfinite(step.x)
            return
        if not isinstance(following, Step):
            raise InputError(f"a sampler must yield Step(x, x0, level) after each step, got {type(following).__name__}")
        yield (step := following)
