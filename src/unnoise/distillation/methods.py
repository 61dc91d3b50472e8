"""All methods of distillation, so that the registry finds them."""

from unnoise.distillation.progressive import progressive

__all__ = ["progressive"]
