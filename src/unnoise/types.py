"""Names of tensor types, and the letters of their shapes.

b batch, c channels, h height, w width, T number of noise levels. Times are 0..T-1; the clean image has time -1.
"""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Float, Int, Shaped
from torch import Tensor

Images: TypeAlias = Float[Tensor, "b c h w"]  # float32 in [-1, 1]
Output: TypeAlias = Float[Tensor, "b k h w"]  # output of a network: k is c, or 2c if the variance is learned
Pixels: TypeAlias = Shaped[Tensor, "b c h w"]  # uint8 in 0..255 or uint16 in 0..65535
Labels: TypeAlias = Int[Tensor, " b"]  # index into the classes; -1 is no class
PerImage: TypeAlias = Float[Tensor, " b"]  # one number for each image
Transform = Float[Tensor, "b numbers"]  # how each image was transformed; zeros are no transform
RandnLike: TypeAlias = Callable[[Tensor], Tensor]  # source of noise: torch.randn_like, or one seed for each image

RGB, RGBA = 3, 4  # channels
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # number of channels -> Pillow's name for 8-bit images
