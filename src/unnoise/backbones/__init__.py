"""Networks: (x, time, label) -> an output of x's size, with x's channels or `outputs`. They know no diffusion."""

from unnoise.backbones.dit import DiT, dit_b, dit_l, dit_s, dit_xl
from unnoise.backbones.unet import UNet
from unnoise.backbones.unet2d import UNet2D

__all__ = ["DiT", "UNet", "UNet2D", "dit_b", "dit_l", "dit_s", "dit_xl"]
