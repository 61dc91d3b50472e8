"""Networks: (x, time, label) -> output of x's size, with x's channels or `outputs`. They know nothing of diffusion."""

from unnoise.backbones import dit, unet, unet2d

__all__ = ["dit", "unet", "unet2d"]
