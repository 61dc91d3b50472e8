"""Pixel ranges, and images as files: PNG in the data's own mode, grids, GIFs, figures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unnoise.errors import InputError
from unnoise.types import MODES, Images, Pixels

WHOLE_RANGE = ("unnoise:range", "0 is black, 65535 is white")  # a text in 16-bit PNG


def to_pil(x: Float[Tensor, "c h w"], mode: str = "") -> Image.Image:
    """Convert an image [c, h, w] in [-1, 1] to a Pillow image of `mode` (16-bit gray is I;16).

    The first three channels of more than four are shown.
    """
    x = x.detach().cpu().float()
    mode = mode or MODES.get(len(x), "RGB")
    if mode == "I;16":
        return Image.fromarray(((x[0] + 1) * 32767.5).round().clamp(0, 65535).numpy().astype(np.uint16))
    pixels = ((x[: len(Image.new(mode, (1, 1)).getbands())] + 1) * 127.5).round().clamp(0, 255).byte()
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if mode == "L" else array)


def tile(images: Images, columns: int | None = None, gap: int = 2) -> Float[Tensor, "c H W"]:
    """Arrange images [b, c, h, w] in one image [c, H, W], row by row; the grid is nearly square without `columns`."""
    b, c, h, w = images.shape
    columns = columns or math.ceil(math.sqrt(b))
    rows = math.ceil(b / columns)
    sheet = torch.ones(c, rows * (h + gap) + gap, columns * (w + gap) + gap)
    for i, image in enumerate(images.detach().cpu().float()):
        y, x = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        sheet[:, y : y + h, x : x + w] = image
    return sheet


def grid(images: Images, mode: str = "", columns: int | None = None) -> Image.Image:
    """Return a grid of images [b, c, h, w] as one Pillow image; small images are enlarged by a whole factor."""
    factor = max(1, min(4, 128 // max(images.shape[-2:])))
    sheet = to_pil(tile(images, columns), mode)
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def save_gif(frames: Sequence[Images], path: Path, seconds: float = 0.1) -> None:
    """Write an endless GIF that plays the frames forwards and backwards, `seconds` each.

    A frame is a batch of images [b, c, h, w], which are shown side by side.
    """
    first, *rest = [grid(images, columns=len(images)).convert("RGB") for images in frames]
    first.save(path, save_all=True, append_images=rest + rest[-2::-1], duration=int(1000 * seconds), loop=0)


def save_image(x: Float[Tensor, "c h w"], path: Path, mode: str) -> Path:
    """Write one image [c, h, w] as PNG, or as .npy in [-1, 1] if PNG has no such number of channels; return the file.

    `mode` is empty for .npy.
    """
    if mode:
        about = PngInfo()
        if mode == "I;16":  # the images of every run span the whole range, also of a run of 12 bits
            about.add_text(*WHOLE_RANGE)
        to_pil(x, mode).save(path := path.with_suffix(".png"), pnginfo=about)
    else:
        np.save(path := path.with_suffix(".npy"), x.detach().cpu().float().numpy())
    return path


def read_image(path: Path) -> Float[Tensor, "c h w"]:
    """Read an image [c, h, w] in [-1, 1] that `save_image` wrote."""
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False))
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.asarray(image, np.float32))
    x = pixels / (32767.5 if image.mode == "I;16" else 127.5) - 1
    return x[None] if x.ndim == 2 else x.permute(2, 0, 1)


def is_readable(path: Path) -> bool:
    """Return True if the file holds an image that can be read."""
    try:
        read_image(path)
    except (OSError, EOFError, ValueError, SyntaxError):
        return False
    return True


def show(
    images: Images | Float[Tensor, "c h w"] | Sequence[Tensor],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    *,
    to: str | Path | None = None,
) -> None:
    """Show images in [-1, 1] side by side with their titles, or write them to a file.

    Args:
        images: Images [b, c, h, w], one image [c, h, w], or a list of images [c, h, w].
        titles: A title for each image.
        columns: Images per row (default: up to 8).
        to: The file to write, instead of showing a figure.

    Raises:
        InputError: There is no image, or the number of titles is another one.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415  # slow to import, and needed only here

    batch = [images] if isinstance(images, Tensor) and images.ndim == 3 else list(images)
    if not batch:
        raise InputError("show needs at least one image")
    if titles is not None and len(titles) != len(batch):
        raise InputError(f"show: {len(titles)} titles for {len(batch)} images; give one each")
    columns = columns or min(len(batch), 8)
    rows = math.ceil(len(batch) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.6 * columns, 1.6 * rows + 0.3 * bool(titles)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, image) in enumerate(zip(axes.flat, batch, strict=False)):
        axis.imshow(to_pil(image), cmap="gray", vmin=0, vmax=255)
        axis.set_title(titles[i] if titles else "", fontsize=9)
    figure.tight_layout()
    if to is not None:
        figure.savefig(to)
    elif plt.get_backend().lower() != "agg":  # agg has no window
        plt.show()
    plt.close(figure)


def to_float(pixels: Pixels) -> Images:
    """Scale uint8 or uint16 pixels to [-1, 1]."""
    half = 32767.5 if pixels.dtype == torch.uint16 else 127.5
    return pixels.to(torch.float32) / half - 1


def flip(x: Images, mirrored: Bool[Tensor, " b"]) -> Images:
    """Mirror the images for which `mirrored` is True."""
    return torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(-1), x)


Uint8Images: TypeAlias = UInt8[Tensor, "b _ _ _"]
Uint8Set: TypeAlias = UInt8[Tensor, "_ _ _ _"]  # one of several sets, which have different numbers of images


def to_uint8(x: Images) -> Uint8Images:
    """Round images in [-1, 1] to 8-bit pixels, as a file holds them."""
    return ((x + 1) * 127.5).round().clamp(0, 255).byte()


def as_uint8(pixels: Pixels) -> Uint8Images:
    """Return 8-bit pixels of a dataset; 16-bit gray is scaled to 8 bits."""
    return pixels if pixels.dtype == torch.uint8 else (pixels.to(torch.float32) / 257).round().byte()
