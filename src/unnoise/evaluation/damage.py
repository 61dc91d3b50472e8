"""Make images worse in known ways: JPEG, blur, and noise. Pixels are 8-bit."""

from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image, ImageFilter

from unnoise.evaluation.statistics import content_keys
from unnoise.images import Uint8Images

Damage = Callable[[Uint8Images], Uint8Images]  # of gray or RGB images


def jpeg(pixels: Uint8Images, quality: int) -> Uint8Images:
    """Return images after JPEG compression as Pillow does it; the quality is from 1 to 95."""

    def compressed(image: Image.Image) -> Image.Image:
        image.save(file := BytesIO(), "JPEG", quality=quality)
        return Image.open(file)

    return change_each(pixels, compressed)


def blur(pixels: Uint8Images, radius: float) -> Uint8Images:
    """Return images after a Gaussian blur; the radius is its standard deviation in pixels."""
    return change_each(pixels, lambda image: image.filter(ImageFilter.GaussianBlur(radius)))


def noise(pixels: Uint8Images, std: float) -> Uint8Images:
    """Return images with normal noise that follows from the image; `std` is a share of the range of a pixel."""
    made = []
    for image, key in zip(pixels, content_keys(pixels).tolist(), strict=True):
        normal = torch.randn(image.shape, generator=torch.Generator().manual_seed(key))
        made.append((image + 255 * std * normal).round().clamp(0, 255).to(torch.uint8))
    return torch.stack(made)


def change_each(pixels: Uint8Images, change: Callable[[Image.Image], Image.Image]) -> Uint8Images:
    """Return gray or RGB images that were changed one by one by Pillow."""
    made = []
    for one in pixels.permute(0, 2, 3, 1).contiguous().numpy():
        image = np.array(change(Image.fromarray(one.squeeze(-1) if one.shape[-1] == 1 else one)))
        made.append(torch.from_numpy(image).reshape(one.shape).permute(2, 0, 1))
    return torch.stack(made)


RUNGS: Mapping[str, Damage] = MappingProxyType(
    {
        "JPEG 90": partial(jpeg, quality=90),
        "JPEG 50": partial(jpeg, quality=50),
        "JPEG 10": partial(jpeg, quality=10),
        "blur 0.5 px": partial(blur, radius=0.5),
        "blur 1 px": partial(blur, radius=1.0),
        "blur 2 px": partial(blur, radius=2.0),
        "noise 2 %": partial(noise, std=0.02),
        "noise 10 %": partial(noise, std=0.1),
    }
)
