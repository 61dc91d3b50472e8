"""The U-Net of the DDPM paper's family."""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from unnoise.backbones.layers import (
    Attention,
    Features,
    LabelEmbedding,
    Maps,
    Recomputed,
    ResBlock,
    TimeEmbedding,
    TransformEmbedding,
    Up,
    norm,
    pad,
)
from unnoise.errors import InputError
from unnoise.registry import backbone
from unnoise.types import Images, Labels, Output, PerImage, Transform


class Block(Recomputed):
    """Compute a residual block, then attention if the scale has it."""

    def __init__(self, res: ResBlock, attention: Attention | None) -> None:
        super().__init__()
        self.res, self.attention = res, attention

    def compute(self, x: Maps, emb: Features) -> Maps:
        x = self.res(x, emb)
        return x if self.attention is None else self.attention(x)


@backbone
class UNet(nn.Module):
    """Build the residual U-Net of Ho et al. 2020 (arXiv:2006.11239), appendix B, for images of any size from 8 px.

    Args:
        channels: Channels of the images.
        classes: The number of classes; 0 for none.
        outputs: Channels of the output (default: the channels of the images).
        widths: Channels at each scale; each scale is half the size of the scale before.
        layers: Residual blocks per scale; one more in the upward half.
        attention: Scales with attention, such as 4 for a quarter of the image's size; the middle always has it.
        patch: The network works on patch x patch pixels, folded into channels.
        groups: Groups of the norms.
        head: Channels of an attention head.
        up: Upsampling by "nearest" neighbour and a convolution, or by a "transposed" convolution.
        dropout: The probability of dropout in residual blocks.
        direct: Add a linear map of the features before the last norm to the output. The norm hides how strong they
            are; this map does not.
        zero_init: Start each residual branch and the output at zero.
        transforms: Numbers of a transform that the network is conditioned on (`training/augmentation.py`); 0 for none.

    Raises:
        InputError: The options do not fit each other.
    """

    def __init__(  # noqa: C901, PLR0913  # the whole shape of the network in one place
        self,
        channels: int,
        classes: int = 0,
        outputs: int | None = None,
        *,
        widths: tuple[int, ...] = (64, 128, 256),
        layers: int = 2,
        attention: tuple[int, ...] = (),
        patch: int = 1,
        groups: int = 32,
        head: int = 8,
        up: Literal["nearest", "transposed"] = "nearest",
        dropout: float = 0.0,
        direct: bool = False,
        zero_init: bool = True,
        transforms: int = 0,
    ) -> None:
        super().__init__()
        if not widths or min(*widths, layers, patch, groups, head) < 1 or widths[0] % 2:
            raise InputError(
                f"unet: widths {widths} must be positive, the first even; layers, patch, groups, head >= 1"
            )
        if not 0 <= dropout < 1:
            raise InputError(f"unet: dropout is a probability, 0 or more and below 1, got {dropout}")
        scales = [patch * 2**i for i in range(len(widths))]
        if not set(attention) <= set(scales):
            raise InputError(f"unet: attention is at scales among {scales}, got {sorted(attention)}")
        self.patch, self.multiple, width_time = patch, scales[-1], 4 * widths[0]

        def block(c_in: int, c_out: int, attend: bool) -> Block:
            res = ResBlock(c_in, c_out, width_time, groups, dropout)
            return Block(res, Attention(c_out, head, groups) if attend else None)

        self.time, self.label = TimeEmbedding(widths[0]), LabelEmbedding(classes, width_time) if classes else None
        self.transform = TransformEmbedding(transforms, width_time) if transforms else None
        self.conv_in = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        c, skips = widths[0], [widths[0]]
        for i, (width, scale) in enumerate(zip(widths, scales, strict=True)):
            for _ in range(layers):
                self.down.append(block(c, width, scale in attention))
                skips.append(c := width)
            if i < len(widths) - 1:
                self.down.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
        self.middle = nn.ModuleList([block(c, c, attend=True), block(c, c, attend=False)])
        for i, (width, scale) in reversed(list(enumerate(zip(widths, scales, strict=True)))):
            for _ in range(layers + 1):
                self.up.append(block(c + skips.pop(), width, scale in attention))
                c = width
            if i:
                self.up.append(Up(c, up))
        self.norm_out, folded = norm(c, groups), (outputs or channels) * patch**2
        self.conv_out = nn.Conv2d(c, folded, 3, padding=1)
        self.direct = nn.Conv2d(c, folded, 1, bias=False) if direct else None
        if zero_init:
            self.zero_init()

    def zero_init(self) -> None:
        """Set the last layer of each residual branch and the output to zero: the network starts near the identity."""
        last = [
            m.conv2 if isinstance(m, ResBlock) else m.out for m in self.modules() if isinstance(m, ResBlock | Attention)
        ]
        for layer in [*last, self.conv_out, *([self.direct] if self.direct else [])]:
            for p in layer.parameters():
                nn.init.zeros_(p)

    def forward(
        self, x: Images, time: PerImage, label: Labels | None = None, transform: Transform | None = None
    ) -> Output:
        padded, (rows, columns) = pad(x, self.multiple)
        emb = self.time(time)
        if self.label is not None and label is not None:
            emb = emb + self.label(label)
        if self.transform is not None and transform is not None:
            emb = emb + self.transform(transform)
        h = self.conv_in(F.pixel_unshuffle(padded, self.patch))
        skips = [h]
        for module in self.down:
            h = module(h, emb) if isinstance(module, Block) else module(h)
            skips.append(h)
        for module in self.middle:
            h = module(h, emb)
        for module in self.up:
            h = module(torch.cat([h, skips.pop()], dim=1), emb) if isinstance(module, Block) else module(h)
        out = self.conv_out(F.silu(self.norm_out(h)))
        if self.direct is not None:
            out = out + self.direct(h)
        return F.pixel_shuffle(out, self.patch)[..., rows, columns]
