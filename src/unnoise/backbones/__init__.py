"""Networks: (x, time, label) -> output of x's size, with x's channels or `outputs`. They know nothing of diffusion."""

from unnoise.backbones import unet, unet2d

__all__ = ["unet", "unet2d"]
