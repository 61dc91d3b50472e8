"""The inputs of an edit: the model with its sampling settings, the seeds, and the images that were given."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from unnoise import registry
from unnoise.config import Sampling
from unnoise.data.decode import Content, TargetFormat, decode, upright
from unnoise.data.numbers import NO_SPANS, Spans
from unnoise.data.sources.arrays import channels_last, check_pixels
from unnoise.data.sources.sequence import as_array
from unnoise.data.sources.source import UnreadableImage
from unnoise.diffusion.model import Denoiser, Diffusion, clip_x0
from unnoise.diffusion.schedule import Levels
from unnoise.errors import InputError
from unnoise.files import user_path
from unnoise.images import to_float
from unnoise.options import Spec
from unnoise.progress import Say, mute
from unnoise.samplers.base import Sampler, Step
from unnoise.samplers.draw import make_denoiser
from unnoise.types import Images, RandnLike

# A path, a PIL image, or an array or tensor: floats [c, h, w] in [-1, 1], or 8-bit, 16-bit or boolean pixels
# [h, w], [h, w, c] or [c, h, w].
ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | Tensor | Any


class Edit(NamedTuple):
    """Hold the given images as the edit sees them, and the steps to the edited images."""

    given: Images
    steps: Iterator[Step]


@dataclass(frozen=True, eq=False)
class EditInputs:
    """Hold everything that an edit needs; there is one seed for each edited image."""

    model: Diffusion
    settings: Sampling
    mode: str
    seeds: Sequence[int]
    label: int = -1
    by: Spec | None = None
    images: tuple[ImageLike, ...] = ()
    mask: ImageLike | None = None
    fit: str = "crop"
    say: Say = mute  # called with a line for each thing that was done to an image
    spans: Spans = field(default_factory=dict)  # of the numbers of the training images

    @property
    def levels(self) -> Levels:
        """Return the levels that the sampler visits."""
        return self.model.schedule.grid(self.settings.steps, self.settings.spacing)

    @property
    def sampler(self) -> Sampler:
        """Return the run's sampler, which clips predicted images if the settings say so."""
        chosen: Sampler = registry.sampler.get(self.settings.sampler)
        return with_clipping(chosen) if self.settings.clip else chosen

    def denoise(self, count: int = 0) -> Denoiser:
        """Return the denoiser of `count` images (default: one per seed); only the sampler clips."""
        labels = torch.full((count or len(self.seeds),), self.label) if self.model.classes else None
        return make_denoiser(self.model, replace(self.settings, clip=False), labels, None)

    def image(self, which: int = 0, *, shrunk: int = 1, mode: str = "") -> Images:
        """Return a given image [1, c, h, w] in the run's format, `shrunk` times smaller, or in another mode."""
        channels, height, width = self.model.shape
        shape = (1 if mode else channels, height // shrunk, width // shrunk)
        image = self.images[which]
        return open_image(image, shape, mode or self.mode, self.fit, self.say, self.spans).to(self.model.device)


def with_clipping(sampler: Sampler) -> Sampler:
    """Return a sampler that clips every predicted image to [-1, 1]."""

    def clipped(denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]:
        return sampler(clip_x0(denoise), x, levels, randn_like=randn_like)

    return clipped


def open_image(
    image: ImageLike,
    shape: tuple[int, int, int],
    mode: str,
    fit: str = "crop",
    say: Say = mute,
    spans: Spans = NO_SPANS,
) -> Images:
    """Return an image as [1, c, h, w] in [-1, 1], fitted to `shape` [c, h, w] as training images are.

    `spans` belong to the run; numbers of other types have the span of this image.
    `say` is called with a line for each thing that was done to the image beyond decoding. Raises InputError if the
    image cannot be read, or if floats are of another shape.
    """
    if is_float(image):
        return float_image(image, shape)
    if not mode:
        raise InputError("this run is of arrays, not of image files; from Python, give floats [c, h, w] in [-1, 1]")
    try:
        pixels, done = decode(content_of(image), TargetFormat(mode, (shape[2], shape[1]), fit, spans=spans))
    except (UnreadableImage, OSError) as error:  # OSError: an opened PIL image whose file is cut off
        raise InputError(f"{image} cannot be read: {error}") from error
    for note in done:
        hint = " (--fit pad keeps all of the image)" if note.startswith("center-cropped") else ""
        say(f"{name_of(image)}: {note.format(n=1).removesuffix('s')}{hint}")
    return to_float(torch.tensor(pixels)[None])


def name_of(image: ImageLike) -> str:
    """Return the name of an image in messages."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else "the image"


def is_float(image: ImageLike) -> bool:
    """Return True for a tensor or array of floats."""
    return is_array(image) and as_array(image).dtype.kind == "f"


def is_array(image: ImageLike) -> bool:
    """Return True for a tensor or an array; PIL images count as images."""
    return isinstance(image, Tensor) or (hasattr(image, "__array__") and not isinstance(image, Image.Image))


def float_image(image: ImageLike, shape: tuple[int, int, int]) -> Images:
    """Return floats [c, h, w] in [-1, 1] as [1, c, h, w]; raise InputError for another shape or range."""
    x = image if isinstance(image, Tensor) else torch.from_numpy(as_array(image))
    if tuple(x.shape) != shape:
        raise InputError(f"an image of floats must have the shape [c, h, w] of {shape}, got {tuple(x.shape)}")
    if not x.abs().max() <= 2:  # an image that was sampled without clipping may reach beyond 1; also if it is nan
        raise InputError(f"an image of floats must lie in [-1, 1], got values up to {float(x.abs().max()):g}")
    return x[None].float()


def content_of(image: ImageLike) -> Content:
    """Return an image as `decode` takes it."""
    if isinstance(image, Image.Image):
        return lambda _: upright(image)
    if isinstance(image, str | os.PathLike):
        return user_path(image)
    if not is_array(image):
        raise InputError(f"an image is a path, a PIL image, an array or a tensor, got {type(image).__name__}")
    array = as_array(image)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"an image array is [h, w], [h, w, c] or [c, h, w], got {array.shape}")
    check_pixels("the image", array.dtype, array.shape)
    return channels_last(array)
