"""From stored pixels to what the model sees."""

import torch
from jaxtyping import Bool
from torch import Tensor

from unnoise.types import Images, Pixels


def to_float(pixels: Pixels) -> Images:
    """Scale uint8 or uint16 to [-1, 1]."""
    half = 32767.5 if pixels.dtype == torch.uint16 else 127.5
    return pixels.to(torch.float32) / half - 1


def flip(x: Images, mirrored: Bool[Tensor, " b"]) -> Images:
    """Mirror these images."""
    return torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(-1), x)
