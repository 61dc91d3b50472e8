"""Networks: (x, time, label) -> output of x's size, with x's channels or `outputs`. They know nothing of diffusion."""

from unnoise.backbones.dit import DiT
from unnoise.backbones.unet import UNet
from unnoise.backbones.unet2d import UNet2D

__all__ = ["DiT", "UNet", "UNet2D"]
