"""Networks: (x, time, label) -> output of x's shape. They know nothing of diffusion."""

from unnoise.backbones import unet

__all__ = ["unet"]
