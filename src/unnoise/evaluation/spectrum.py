"""The power spectrum of images: grids, blocks, haze and grain, measured and planted. Pixels are 8-bit.

A grid is a pattern with a period of 2 pixels, as transposed convolutions make it (Odena et al. 2016,
doi:10.23915/distill.00003). Haze is missing power at high frequencies, and grain is noise in flat parts.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unnoise.evaluation.damage import noise
from unnoise.images import Uint8Images

BANDS = 8  # rings of frequencies of equal width, from 0 to the highest frequency along an axis
LOW = 2  # the lowest bands, which haze and grain hardly change
HIGH = 4  # the highest bands, whose power is haze or grain
FLAT = 0.25  # of the pixels of an image are in flat parts
STEP = 0.5  # 8-bit steps that rounding adds, about
ROUNDING = 0.1  # power that rounding to 8 bits adds, about
FLOOR = 1e-3  # power in squared 8-bit steps that is nothing: rounding alone has 1 / 12

Bands = Float64[Tensor, "_ _"]  # [n, k], a row for each image
Means = Float64[Tensor, " _"]  # [k], the mean of the rows


def power(pixels: Uint8Images) -> Float64[Tensor, "n h w"]:
    """Return the power at each frequency, the mean over the channels; the mean of an image has none."""
    x = pixels.double()
    spectrum: Tensor = torch.fft.fft2(x - x.mean(dim=(-2, -1), keepdim=True), norm="ortho").abs().square()
    return spectrum.mean(dim=1)


def radii(height: int, width: int) -> Float64[Tensor, "h w"]:
    """Return the length of each frequency; 1 is the highest frequency along an axis, a period of 2 pixels."""
    down, right = (2 * torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    return torch.hypot(down[:, None], right[None])


def grid_points(height: int, width: int) -> list[tuple[int, int]]:
    """Return the three frequencies with a period of 2 pixels: down, right and both; of an odd side the nearest."""
    down, right = height // 2, width // 2
    return [(down, 0), (0, right), (down, right)]


def near_points(height: int, width: int) -> Iterator[Tensor]:
    """Yield for each point of the grid a mask [h, w] of its neighbours, at most two frequencies away."""
    points = grid_points(height, width)
    for down, right in points:
        mask = torch.zeros(height, width, dtype=torch.bool)
        rows = torch.arange(down - 2, down + 3).remainder(height)
        mask[rows[:, None], torch.arange(right - 2, right + 3).remainder(width)[None]] = True
        for point in (*points, (0, 0)):
            mask[point] = False
        yield mask


def grid_power(pixels: Uint8Images) -> Bands:
    """Return the power at the three points of the grid, then the mean power of the neighbours of each."""
    found, (height, width) = power(pixels), pixels.shape[-2:]
    points = [found[:, down, right] for down, right in grid_points(height, width)]
    return torch.stack([*points, *(found[:, mask].mean(dim=1) for mask in near_points(height, width))], dim=1)


def grid_numbers(drawn: Means, real: Means) -> Float64[Tensor, " 3"]:
    """Return the power at the points of the grid over what real images have; 1 is clean.

    Haze and grain change the neighbours too. So what the neighbours have in excess is taken off, as noise adds its
    power to all, and what they have lost is a factor, as of a filter.
    """
    points, near, real_points, real_near = (
        some.clamp(min=FLOOR) for some in (drawn[:3], drawn[3:], real[:3], real[3:])
    )
    clear = torch.where(near > real_near, points - (near - real_near), points * real_near / near)
    return clear.clamp(min=FLOOR) / real_points


def grid_excess(drawn: Means, real: Means) -> Float64[Tensor, " 3"]:
    """Return the power that the grid adds at its three points."""
    return (grid_numbers(drawn, real) - 1).clamp(min=0) * real[:3].clamp(min=FLOOR)


def mirrored(x: Tensor) -> Tensor:
    """Return images [n, c, h, w] with their mirror images to the right and below, [n, c, 2h, 2w]: no edge is a jump."""
    wide = torch.cat([x, x.flip(-1)], dim=-1)
    return torch.cat([wide, wide.flip(-2)], dim=-2)


def cosine_power(pixels: Uint8Images) -> Float64[Tensor, "n h w"]:
    """Return the square of each coefficient of the cosine transform (DCT-II), the mean over the channels."""
    height, width = pixels.shape[-2:]
    spectrum: Tensor = torch.fft.rfft2(mirrored(pixels.double()), norm="ortho").abs().square().mean(dim=1)
    found = spectrum[:, :height, :width]
    found[:, 0] /= 2
    found[:, :, 0] /= 2
    return found


def ring_power(pixels: Uint8Images) -> Bands:
    """Return the mean power in each ring of frequencies, and then the logarithms, [n, 2k].

    The frequencies belong to the cosine transform. The corner of the highest ones belongs to the last ring.
    """
    height, width = pixels.shape[-2:]
    down, right = (torch.arange(side, dtype=torch.float64) / side for side in (height, width))
    ring = (torch.hypot(down[:, None], right[None]) * BANDS).long().clamp(max=BANDS - 1)
    ring[0, 0] = BANDS  # the mean of an image is in no ring
    member = torch.nn.functional.one_hot(ring.flatten(), BANDS + 1)[:, :BANDS].double()
    count = member.sum(dim=0)
    member /= count.clamp(min=1)
    rings = torch.cat([cosine_power(part).flatten(1) @ member for part in torch.split(pixels, 256)])
    for k in (count == 0).nonzero().flatten().flip(0).tolist():  # in small images: it gets the power of the next ring
        rings[:, k] = rings[:, min(k + 1, BANDS - 1)]
    return torch.cat([rings, (rings + ROUNDING).log()], dim=1)


def ring_ratios(drawn: Means, real: Means) -> Means:
    """Return the power in each ring over the power of real images; the lowest rings have 1, so contrast counts not."""
    drawn, real = drawn[:BANDS].clamp(min=FLOOR), real[:BANDS].clamp(min=FLOOR)
    return drawn / real / (drawn[:LOW].sum() / real[:LOW].sum())


def high_power(drawn: Means, real: Means) -> float:
    """Return the power of the high rings over the power of real images: below 1 is haze.

    It is the mean over the images in logarithms, so smooth images count as much as rough ones. The power of the low
    rings is divided out, so contrast does not count.
    """
    ratio = (drawn - real)[BANDS:]
    return float((ratio[-HIGH:].mean() - ratio[:LOW].mean()).exp())


# Grain


def flat_steps(pixels: Uint8Images) -> Bands:
    """Return the size of the diagonal steps that a quarter of the pixels of each image stay below, [n, 1].

    Edges do not reach this quarter, so a little noise in flat parts shows (as in Donoho & Johnstone 1994).
    """
    x = pixels.double()
    steps = (x[..., 1:, 1:] - x[..., 1:, :-1] - x[..., :-1, 1:] + x[..., :-1, :-1]) / 2
    return steps.abs().flatten(1).quantile(FLAT, dim=1)[:, None]


def grain(drawn: Means, real: Means) -> float:
    """Return the steps in flat parts over the steps of real images; above 1 is grain."""
    return float((drawn + STEP) / (real + STEP))


# Plant grids, haze and grain


def add_grid(pixels: Uint8Images, strength: float, drawn: Means, real: Means) -> Uint8Images:
    """Return images with patterns of 2 px that have the excess power of the drawn images, at a strength of 1."""
    (height, width), excess = pixels.shape[-2:], grid_excess(drawn, real)
    down, right = ((1 - 2 * torch.arange(side).remainder(2)).double() for side in (height, width))
    patterns = torch.stack([down[:, None].expand(-1, width), right.expand(height, -1), torch.outer(down, right)])
    return to_pixels(pixels + strength * torch.tensordot((excess / (height * width)).sqrt(), patterns, 1))


def remove_detail(pixels: Uint8Images, strength: float, drawn: Means, real: Means) -> Uint8Images:
    """Return images with as little power in the rings of frequencies as the drawn images have, at a strength of 1."""
    height, width = pixels.shape[-2:]
    gains = ring_ratios(drawn, real).clamp(max=1) ** (strength / 2)
    gain = between_rings(gains, radii(2 * height, 2 * width))
    return filtered(mirrored(pixels), gain)[..., :height, :width].contiguous()


def add_grain(pixels: Uint8Images, std: float) -> Uint8Images:
    """Return images with white noise that follows from each image; `std` is in 8-bit steps."""
    return noise(pixels, std / 255)


def between_rings(gains: Means, radius: Float64[Tensor, "h w"]) -> Float64[Tensor, "h w"]:
    """Return the gain at each length of a frequency; it is linear between the middles of the rings."""
    place = (radius * BANDS - 0.5).clamp(0, BANDS - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=BANDS - 1)
    return torch.lerp(gains[low], gains[high], place - low)


def filtered(pixels: Uint8Images, gain: Float64[Tensor, "h w"]) -> Uint8Images:
    """Return images whose spectrum is multiplied by a gain; their means stay."""
    gain = gain.clone()
    gain[0, 0] = 1.0
    parts = [torch.fft.ifft2(torch.fft.fft2(part.double()) * gain).real for part in torch.split(pixels, 256)]
    return to_pixels(torch.cat(parts))


def to_pixels(x: Float[Tensor, "n c h w"]) -> Uint8Images:
    """Round values to 8-bit pixels."""
    return x.round().clamp(0, 255).to(torch.uint8)


# Blocks


def seam_power(pixels: Uint8Images) -> Bands:
    """Return the mean squared step from each column to the next and from each row to the next; first, their count."""
    x = pixels.double()
    right, down = x.diff(dim=-1).square().mean(dim=(1, 2)), x.diff(dim=-2).square().mean(dim=(1, 3))
    return torch.cat([torch.full((len(x), 1), right.shape[1], dtype=torch.float64), right, down], dim=1)


def seams(drawn: Means, real: Means, period: int) -> tuple[float, tuple[int, int]]:
    """Return how much larger the steps between blocks are than inside, against real images; 1 is clean.

    The blocks may begin anywhere: the phases, right and down, with the largest number are returned too.
    """
    ratio, count = drawn[1:].clamp(min=FLOOR) / real[1:].clamp(min=FLOOR), round(float(real[0]))
    numbers, phases = [], []
    for part in (ratio[:count], ratio[count:]):
        place = torch.arange(len(part)).remainder(period)
        found = [
            float(part[place == phase].mean() / part[place != phase].mean()) if (place == phase).sum() > 0 else 1.0
            for phase in range(min(period, len(part)))
        ]
        numbers.append(max(found))
        phases.append(found.index(max(found)))
    return math.sqrt(numbers[0] * numbers[1]), (phases[0], phases[1])


def make_blocks(pixels: Uint8Images, period: int, phases: tuple[int, int], share: float) -> Uint8Images:
    """Return images that are moved towards the means of their blocks: a share of 1 leaves only the blocks."""
    x = pixels.double()
    right, down = (
        (torch.arange(side) - phase - 1).div(period, rounding_mode="floor") + 1
        for side, phase in ((x.shape[-1], phases[0]), (x.shape[-2], phases[1]))
    )
    means = block_means(block_means(x, right).transpose(-1, -2), down).transpose(-1, -2)
    return to_pixels(torch.lerp(x, means, share))


def block_means(x: Float64[Tensor, "n c h w"], block: Tensor) -> Float64[Tensor, "n c h w"]:
    """Return each row with the means of its blocks; `block` [w] is the number of the block of each column."""
    member = torch.nn.functional.one_hot(block).double()
    return x @ (member / member.sum(0).clamp(min=1)) @ member.T
