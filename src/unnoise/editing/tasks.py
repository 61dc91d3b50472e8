"""The edits: each takes `EditInputs` and makes the steps to the edited images."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from unnoise import registry
from unnoise.diffusion.process import q_sample
from unnoise.diffusion.schedule import Levels
from unnoise.editing.inputs import Edit, EditInputs, is_float, open_image
from unnoise.editing.interpolation import interpolate_noise, slerp
from unnoise.editing.measurements import Blurred, Gray, Measured, Measurement, Pixels, Shrunk
from unnoise.editing.posterior import Known
from unnoise.errors import InputError
from unnoise.progress import Say
from unnoise.registry import edit
from unnoise.samplers.base import Step
from unnoise.samplers.ddim import ddim, invert
from unnoise.samplers.draw import initial_noise, seeded_noise
from unnoise.types import RandnLike

# Edits that keep the known part of an image, and make up the rest


@edit.declare(images=1, mask=True, by=True)
def inpaint(inputs: EditInputs) -> Edit:
    """Fill in the white part of the mask, or the transparent part of the image; the rest stays as it is.

    Raises:
        InputError: Nothing is to be filled in.
    """
    image, hidden = inputs.image(), unknown_pixels(inputs)
    if not hidden.any():
        raise InputError("nothing is to be filled in; paint it white in --mask, or make it transparent")
    known = Pixels(~hidden)(image)
    return Edit(known, restore(inputs, Pixels(~hidden), known, "repaint"))


@edit.declare(images=1, by=True)
def colorize(inputs: EditInputs) -> Edit:
    """Give colours to a gray image; its luma stays as it is.

    Raises:
        InputError: The run has no RGB images.
    """
    if inputs.model.shape[0] != 3:
        raise InputError(f"colorize needs a run of RGB images; the run has {inputs.model.shape[0]} channels")
    gray = inputs.image(mode="L")
    return Edit(gray.expand(1, 3, -1, -1), restore(inputs, Gray(), gray))


@edit.declare(images=1, by=True)
def enlarge(inputs: EditInputs, *, factor: int = 4) -> Edit:
    """Upscale a small image to the size of the run; the means of squares of pixels stay as they are.

    Args:
        factor: The side of a square: how many times larger the image becomes.

    Raises:
        InputError: factor is below 2, or does not divide the run's width and height.
    """
    _, height, width = inputs.model.shape
    if factor < 2 or height % factor or width % factor:
        raise InputError(f"enlarge: factor is 2 or more and divides {width} and {height}, got {factor}")
    small, measure = inputs.image(shrunk=factor), Shrunk(factor)
    return Edit(measure.inverse(small), restore(inputs, measure, small))


@edit.declare(images=1, by=True)
def deblur(inputs: EditInputs, *, sigma: float = 1.5) -> Edit:
    """Sharpen an image that was blurred by a Gaussian.

    Args:
        sigma: The standard deviation of the Gaussian, in pixels of the run.

    Raises:
        InputError: sigma is not above 0, or larger than the image.
    """
    if not 0 < sigma <= min(inputs.model.shape[1:]):
        raise InputError(f"deblur: sigma is above 0 and at most the size of the images, got {sigma:g}")
    blurred = inputs.image()
    return Edit(blurred, restore(inputs, Blurred(sigma), blurred))


def restore(inputs: EditInputs, measure: Measurement, y: Measured, by: str = "replace") -> Iterator[Step]:
    """Return the steps to images with measurement y, by the requested posterior sampler, or else by `by`."""
    method = registry.posterior.get(inputs.by or by)(inputs.sampler, Known(measure, y))
    randn_like, start = initial_noise(inputs.model, inputs.seeds)
    steps: Iterator[Step] = method(inputs.denoise(), start, inputs.levels, randn_like=randn_like)
    return steps


def unknown_pixels(inputs: EditInputs) -> Tensor:
    """Return a mask [1, 1, h, w] that is True for pixels to fill in."""
    shape, device = (1, *inputs.model.shape[1:]), inputs.model.device
    if inputs.mask is not None and is_float(inputs.mask):
        return open_image(inputs.mask, shape, "L").to(device) > 0
    if inputs.mask is not None:
        mask = open_image(inputs.mask, (2, *shape[1:]), "LA", inputs.fit, partial(say_fit, inputs.say))
        return (mask.to(device) > 0).all(dim=1, keepdim=True)
    image = inputs.images[0]
    if is_float(image):
        raise InputError("inpaint needs a mask, white where the image is to be filled in")
    return open_image(image, (4, *shape[1:]), "RGBA", inputs.fit).to(device)[:, 3:] < 1


def say_fit(say: Say, line: str) -> None:
    """Pass on a line about a mask, unless it tells of a conversion: what counts in a mask is where it is white."""
    if ": converted" not in line:
        say(line)


# Edits from one image to others


@edit.declare(images=1)
def vary(inputs: EditInputs, *, strength: float = 0.5) -> Edit:
    """Make variants by noising and denoising: SDEdit, Meng et al. 2022 (arXiv:2108.01073).

    Args:
        strength: The share of the levels that the image is noised by: near 0 it stays, at 1 it is a new image.

    Raises:
        InputError: strength is not in (0, 1].
    """
    if not 0 < strength <= 1:
        raise InputError(f"vary: strength is above 0 and at most 1, got {strength:g}")
    image, levels = inputs.image(), inputs.levels
    first = levels.schedule.level(strength * (levels.schedule.T - 1))
    rest = tuple(level for level in levels if level.time < first.time)
    randn_like, eps = initial_noise(inputs.model, inputs.seeds)
    start = q_sample(image.expand_as(eps), eps, first)
    visited = Levels((first, *rest), levels.schedule)
    return Edit(image, inputs.sampler(inputs.denoise(), start, visited, randn_like=randn_like))


@edit.declare(images=0)
def interpolate(inputs: EditInputs, *, to: int = 1) -> Edit:
    """Interpolate from the image of seed `--seed` to the image of seed `to`, by turning all noise.

    Args:
        to: The seed of the last image.

    Raises:
        InputError: to is not another seed.
    """
    if not 0 <= to < 2**63 or to == inputs.seeds[0]:
        raise InputError(f"interpolate: to is another seed than {inputs.seeds[0]}, 0 or more and below 2^63, got {to}")
    shares = torch.linspace(0, 1, len(inputs.seeds), dtype=torch.float64)
    return draw_from(inputs, interpolate_noise(seeded_noise(inputs.seeds[:1]), seeded_noise([to]), shares))


@edit.declare(images=0)
def blend(inputs: EditInputs, *, to: int = 1000, share: float = 0.5) -> Edit:
    """Blend the images of two seeds: image i lies between the images of seed `--seed` + i and of seed `to` + i.

    Args:
        to: The seed that the first image leads to.
        share: The share of the way: at 0 it is the image of `--seed`, at 1 the image of `to`.

    Raises:
        InputError: to is no seed, or share is not in [0, 1].
    """
    if not 0 <= to < 2**63 - len(inputs.seeds):
        raise InputError(f"blend: to is a seed, 0 or more and below 2^63, got {to}")
    if not 0 <= share <= 1:
        raise InputError(f"blend: share is from 0 to 1, got {share:g}")
    others = range(to, to + len(inputs.seeds))
    shares = torch.tensor([share], dtype=torch.float64)
    return draw_from(inputs, interpolate_noise(seeded_noise(inputs.seeds), seeded_noise(others), shares))


def draw_from(inputs: EditInputs, randn_like: RandnLike) -> Edit:
    """Return the steps from pure noise of a source to images."""
    start = randn_like(torch.empty(len(inputs.seeds), *inputs.model.shape, device=inputs.model.device))
    return Edit(start[:0], inputs.sampler(inputs.denoise(), start, inputs.levels, randn_like=randn_like))


@edit.declare(images=2, sampler=False)
def morph(inputs: EditInputs, *, iterations: int = 3) -> Edit:
    """Interpolate between the DDIM noise of two images, Song et al. 2021 (arXiv:2010.02502), section 5.3.

    The level of pure noise is left out, since nothing found there would lead back to the image.

    Args:
        iterations: Fixed-point iterations at each step of the inversion; see `invert`.

    Raises:
        InputError: There are fewer than 2 steps.
    """
    ends = torch.cat([inputs.image(0), inputs.image(1)])
    levels = inputs.levels[1:]
    if len(levels) < 2:
        raise InputError("morph needs 2 steps or more")

    def steps() -> Iterator[Step]:
        for step in invert(inputs.denoise(2), ends, levels, iterations=iterations):
            start = step.x
        start = slerp(start[:1], start[1:], torch.linspace(0, 1, len(inputs.seeds)).to(start))
        yield from ddim(inputs.denoise(), start, levels)

    return Edit(ends, steps())
