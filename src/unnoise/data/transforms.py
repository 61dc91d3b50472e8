"""From stored pixels to what the model sees."""

import torch

from unnoise.types import Images, Pixels


def to_float(pixels: Pixels) -> Images:
    """Scale uint8 or uint16 to [-1, 1]."""
    half = 32767.5 if pixels.dtype == torch.uint16 else 127.5
    return pixels.to(torch.float32) / half - 1


def flip(x: Images, generator: torch.Generator) -> Images:
    """Mirror each image with probability 1/2; drawn on the CPU, so that every device gets the same."""
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(-1), x)
