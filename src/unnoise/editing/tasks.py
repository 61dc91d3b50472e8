"""The edits: each takes what is worked with, and makes the steps to the pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from unnoise import registry
from unnoise.config import Sampling
from unnoise.data.decode import TargetFormat, decode, upright
from unnoise.data.sources.source import UnreadableImage
from unnoise.diffusion.model import Denoiser, Diffusion, clip_x0
from unnoise.diffusion.process import q_sample
from unnoise.diffusion.schedule import Levels
from unnoise.editing.interpolation import interpolated, slerp
from unnoise.editing.measurements import Blurred, Gray, Measured, Measurement, Pixels, Shrunk
from unnoise.editing.posterior import Known
from unnoise.errors import InputError
from unnoise.images import to_float
from unnoise.options import Spec
from unnoise.registry import edit
from unnoise.samplers.base import Sampler, Step
from unnoise.samplers.ddim import ddim, invert
from unnoise.samplers.draw import initial_noise, make_denoiser, seeded_noise
from unnoise.types import Images, RandnLike

Picture: TypeAlias = str | Path | Image.Image | Tensor  # a tensor is [c, h, w] in [-1, 1]


class Edit(NamedTuple):
    """What was given, as it is seen, and the steps to the pictures that are made of it."""

    given: Images
    steps: Iterator[Step]


@dataclass(frozen=True, eq=False)
class Work:
    """What an edit works with: a model, how it is sampled, seeds (one a picture), and the pictures that were given."""

    model: Diffusion
    how: Sampling
    mode: str
    seeds: Sequence[int]
    label: int = -1
    by: Spec | None = None
    pictures: tuple[Picture, ...] = ()
    mask: Picture | None = None
    fit: str = "crop"

    @property
    def levels(self) -> Levels:
        return self.model.schedule.grid(self.how.steps, self.how.spacing)

    @property
    def sampler(self) -> Sampler:
        """That of the run, with its clipping."""
        chosen: Sampler = registry.sampler.get(self.how.sampler)
        return clipping(chosen) if self.how.clip else chosen

    def denoise(self, count: int = 0) -> Denoiser:
        """For so many images at once; not clipped, which is the sampler's."""
        labels = torch.full((count or len(self.seeds),), self.label) if self.model.classes else None
        return make_denoiser(self.model, replace(self.how, clip=False), labels, None)

    def picture(self, which: int = 0, *, shrunk: int = 1, mode: str = "") -> Images:
        """One that was given, [1, c, h, w], as those of the run are, or smaller, or gray."""
        channels, height, width = self.model.shape
        shape = (1 if mode else channels, height // shrunk, width // shrunk)
        return read(self.pictures[which], shape, mode or self.mode, self.fit).to(self.model.device)


def clipping(sampler: Sampler) -> Sampler:
    """Of predicted images, whatever they are made of."""

    def clipped(denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]:
        return sampler(clip_x0(denoise), x, levels, randn_like=randn_like)

    return clipped


def read(picture: Picture, shape: tuple[int, int, int], mode: str, fit: str = "crop") -> Images:
    """A picture as [1, c, h, w] in [-1, 1], fitted as training images are."""
    if isinstance(picture, Tensor):
        if tuple(picture.shape) != shape:
            raise InputError(f"a picture of shape {tuple(picture.shape)} was given; this takes {shape}")
        return picture[None].float()
    if not mode:
        raise InputError("this run is of arrays, not pictures; from Python, give tensors [c, h, w] in [-1, 1]")
    try:
        content = (lambda _: upright(picture)) if isinstance(picture, Image.Image) else Path(picture).expanduser()
        pixels = decode(content, TargetFormat(mode, (shape[2], shape[1]), fit)).pixels
    except (UnreadableImage, OSError) as error:  # the latter of an image that is opened, and cut off
        raise InputError(f"{picture} cannot be read: {error}") from error
    return to_float(torch.tensor(pixels)[None])


# What is known of a picture, and the rest made up


@edit.declare(pictures=1, mask=True, by=True)
def inpaint(work: Work) -> Edit:
    """Fill in what is white in the mask, or transparent in the picture; all else stays as it is."""
    picture, hidden = work.picture(), unknown_pixels(work)
    if not hidden.any():
        raise InputError("nothing is to be filled in; paint it white in --mask, or make it transparent")
    known = Pixels(~hidden)(picture)
    return Edit(known, restored(work, Pixels(~hidden), known, "repaint"))


@edit.declare(pictures=1, by=True)
def colorize(work: Work) -> Edit:
    """Colours for a gray picture: its luma stays as it is."""
    if work.model.shape[0] != 3:
        raise InputError(f"colorize needs a run of RGB pictures; this one has {work.model.shape[0]} channels")
    gray = work.picture(mode="L")
    return Edit(gray.expand(1, 3, -1, -1), restored(work, Gray(), gray))


@edit.declare(pictures=1, by=True)
def enlarge(work: Work, *, factor: int = 4) -> Edit:
    """Make a small picture as large as those of the run; the means of squares stay as they are."""
    _, height, width = work.model.shape
    if factor < 2 or height % factor or width % factor:
        raise InputError(f"enlarge: factor is 2 or more and divides {width} and {height}, got {factor}")
    small, measure = work.picture(shrunk=factor), Shrunk(factor)
    return Edit(measure.inverse(small), restored(work, measure, small))


@edit.declare(pictures=1, by=True)
def deblur(work: Work, *, sigma: float = 1.5) -> Edit:
    """Sharpen a picture that was blurred by a Gaussian of this deviation, in pixels of the run."""
    if not 0 < sigma <= min(work.model.shape[1:]):
        raise InputError(f"deblur: sigma is above 0 and at most the size of the pictures, got {sigma:g}")
    blurred = work.picture()
    return Edit(blurred, restored(work, Blurred(sigma), blurred))


def restored(work: Work, measure: Measurement, y: Measured, by: str = "replace") -> Iterator[Step]:
    """Pictures of which y is known, by the posterior sampler asked for, or the one named here."""
    method = registry.posterior.get(work.by or by)(work.sampler, Known(measure, y))
    randn_like, start = initial_noise(work.model, work.seeds)
    steps: Iterator[Step] = method(work.denoise(), start, work.levels, randn_like=randn_like)
    return steps


def unknown_pixels(work: Work) -> Tensor:
    """[1, 1, h, w], true where the picture is to be filled in."""
    shape = (1, *work.model.shape[1:])
    if isinstance(work.mask, Tensor):
        return read(work.mask, shape, "L").to(work.model.device) > 0
    if work.mask is not None:
        return (read(work.mask, (2, *shape[1:]), "LA", work.fit).to(work.model.device) > 0).all(dim=1, keepdim=True)
    given = work.pictures[0]
    if isinstance(given, Tensor):
        raise InputError("inpaint needs a mask, white where the picture is to be filled in")
    return read(given, (4, *shape[1:]), "RGBA", work.fit).to(work.model.device)[:, 3:] < 1


# From one picture to others


@edit.declare(pictures=1)
def vary(work: Work, *, strength: float = 0.5) -> Edit:
    """Meng et al. 2022 (arXiv:2108.01073), SDEdit: noise the picture so far, and denoise it again.

    strength: share of the levels that it is taken back; near 0 the picture itself, 1 a new one.
    """
    if not 0 < strength <= 1:
        raise InputError(f"vary: strength is above 0 and at most 1, got {strength:g}")
    picture, levels = work.picture(), work.levels
    first = levels.schedule.level(strength * (levels.schedule.T - 1))
    rest = tuple(level for level in levels if level.time < first.time)
    randn_like, eps = initial_noise(work.model, work.seeds)
    start = q_sample(picture.expand_as(eps), eps, first)
    way = Levels((first, *rest), levels.schedule)
    return Edit(picture, work.sampler(work.denoise(), start, way, randn_like=randn_like))


@edit.declare(pictures=0)
def interpolate(work: Work, *, to: int = 1) -> Edit:
    """From the picture of one seed to that of another: all noise is turned from that of `--seed` to that of `to`."""
    if not 0 <= to < 2**63 or to == work.seeds[0]:
        raise InputError(f"interpolate: to is another seed than {work.seeds[0]}, 0 or more and below 2^63, got {to}")
    randn_like = interpolated(seeded_noise([work.seeds[0]]), seeded_noise([to]), len(work.seeds))
    start = randn_like(torch.empty(len(work.seeds), *work.model.shape, device=work.model.device))
    return Edit(start[:0], work.sampler(work.denoise(), start, work.levels, randn_like=randn_like))


@edit.declare(pictures=2, sampler=False)
def morph(work: Work, *, iterations: int = 3) -> Edit:
    """From one picture to another: the noise that DDIM makes of each (Song et al. 2021, arXiv:2010.02502, section 5.3).

    The level of pure noise is left out: nothing that is found there would lead back to the picture.
    iterations: of the fixed point at each step backwards; see `invert`.
    """
    ends = torch.cat([work.picture(0), work.picture(1)])
    levels = work.levels[1:]
    if len(levels) < 2:
        raise InputError("morph needs 2 steps or more")

    def steps() -> Iterator[Step]:
        for step in invert(work.denoise(2), ends, levels, iterations=iterations):
            start = step.x
        start = slerp(start[:1], start[1:], torch.linspace(0, 1, len(work.seeds)).to(start))
        yield from ddim(work.denoise(), start, levels)

    return Edit(ends, steps())
