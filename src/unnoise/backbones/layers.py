"""Layers of the networks: time embedding, residual block, attention, norms, padding, upsampling."""

import math
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unnoise.errors import InputError
from unnoise.types import Images, Labels, PerImage, Transform

FEW_TOKENS = 64

Features = Float[Tensor, "b k"]
Heads = Float[Tensor, "b heads tokens _"]
Maps = Float[Tensor, "b _ _ _"]  # channels and size change from layer to layer


class Recomputed(nn.Module):
    """Wrap a block `compute(x, emb)` for gradient checkpointing, Chen et al. 2016 (arXiv:1604.06174).

    If `recompute` is set, the backward pass computes the block again, and nothing inside the block is kept.
    """

    recompute = False

    def forward(self, x: Tensor, emb: Features) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.compute, x, emb, use_reentrant=False)  # type: ignore[no-any-return]
        out: Tensor = self.compute(x, emb)
        return out

    def compute(self, x: Any, emb: Any) -> Any:
        """Return the output of the block for x and the embedding of time and label."""
        raise NotImplementedError


def recompute(network: nn.Module) -> None:
    """Enable gradient checkpointing in all blocks of a network: less memory for about a third more time.

    Raises InputError if the network has no such blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, Recomputed)]
    if not blocks:
        raise InputError(f"--recompute: {type(network).__name__.lower()} has no blocks for gradient checkpointing")
    for block in blocks:
        block.recompute = True


class TimeEmbedding(nn.Module):
    """Embed times [b] by `width` sinusoids and two layers, Ho et al. 2020, appendix B: [b, outputs or 4 * width]."""

    def __init__(self, width: int, outputs: int | None = None) -> None:
        super().__init__()
        self.pairs, outputs = width // 2, outputs or 4 * width
        self.mlp = nn.Sequential(nn.Linear(2 * self.pairs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))

    def forward(self, time: PerImage) -> Features:
        index = torch.arange(self.pairs, device=time.device, dtype=torch.float32)
        angles = time.float()[:, None] * torch.exp(-math.log(10_000) * index / self.pairs)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))  # type: ignore[no-any-return]


class LabelEmbedding(nn.Embedding):
    """Embed each class by a vector; the label -1 is no class and gets zeros."""

    def forward(self, label: Labels) -> Features:
        return super().forward(label.clamp(min=0)) * (label >= 0)[:, None]


class TransformEmbedding(nn.Linear):
    """Embed the numbers of a transform of an image; zeros, which are no transform, get zeros."""

    def __init__(self, numbers: int, outputs: int) -> None:
        super().__init__(numbers, outputs, bias=False)
        nn.init.zeros_(self.weight)

    def forward(self, transform: Transform) -> Features:
        return super().forward(transform)


def pad(x: Images, multiple: int) -> tuple[Maps, tuple[slice, slice]]:
    """Pad images evenly, by repeating their edges, to a size that `multiple` divides; return them and their place."""
    height, width = x.shape[-2:]
    more_h, more_w = -height % multiple, -width % multiple
    top, left = more_h // 2, more_w // 2
    if more_h or more_w:
        x = F.pad(x, (left, more_w - left, top, more_h - top), mode="replicate")
    return x, (slice(top, top + height), slice(left, left + width))


@lru_cache
def means(groups: int, channels: int) -> Float[Tensor, "c c"]:
    """Return the matrix that replaces channels by the means of their groups.

    It lies on the CPU even if a network is planned on the device `meta`.
    """
    each = channels // groups
    blocks = torch.eye(groups, dtype=torch.float32, device="cpu")
    return torch.kron(blocks, torch.full((each, each), 1 / each, dtype=torch.float32, device="cpu"))


class GroupNorm(nn.GroupNorm):
    """Normalise groups of channels, Wu & He 2018 (arXiv:1803.08494), eqs. 1 and 7.

    For torch.compile it is written out: sums over pixels, and a small product that spreads them over the channels of a
    group. PyTorch's own norm is compiled to loops over a group, which took 1.2 to 2.4 times as long on CPUs with
    channels last.
    """

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels)
        self.means = means(groups, channels)  # shared by all norms of this size, and not part of the state

    def forward(self, x: Tensor) -> Tensor:  # [b, c, h, w]; its check could not be compiled
        if not torch.compiler.is_compiling():
            return super().forward(x)
        over_group = self.means.to(x.device)
        with torch.autocast(x.device.type, enabled=False):
            centred = x.float() - (x.float().mean((2, 3)) @ over_group)[:, :, None, None]
            variance = centred.square().mean((2, 3)) @ over_group
            scale = self.weight * torch.rsqrt(variance + self.eps)
            out: Tensor = centred * scale[:, :, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)


def norm(channels: int, groups: int) -> GroupNorm:
    """Return a GroupNorm with `groups` groups, or fewer if `groups` does not divide the channels."""
    return GroupNorm(math.gcd(groups, channels), channels)


class ResBlock(nn.Module):
    """Compute norm, SiLU, conv, + time, norm, SiLU, dropout, conv, + input."""

    def __init__(self, c_in: int, c_out: int, width_time: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(c_in, groups), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(width_time, c_out)
        self.norm2, self.conv2 = norm(c_out, groups), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Maps, emb: Features) -> Maps:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(emb))[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.skip(x) + h  # type: ignore[no-any-return]


def attend(q: Heads, k: Heads, v: Heads) -> Heads:
    """Return softmax(q k^T / sqrt(d)) v, Vaswani et al. 2017 (arXiv:1706.03762), eq. 1.

    For few tokens it is written out: on CPUs in bf16, the backward pass of PyTorch's own takes up to 15 times as long.
    """
    if q.shape[2] > FEW_TOKENS:
        return F.scaled_dot_product_attention(q, k, v)
    return (q / math.sqrt(q.shape[3]) @ k.transpose(2, 3)).softmax(dim=3) @ v


class Attention(nn.Module):
    """Attend over the pixels, with a residual connection; a head has `head` channels if that divides the channels."""

    def __init__(self, channels: int, head: int, groups: int) -> None:
        super().__init__()
        self.heads = channels // math.gcd(head, channels)
        self.norm = norm(channels, groups)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Maps) -> Maps:
        _, c, h, w = x.shape
        tokens = self.qkv(self.norm(x).flatten(2).transpose(1, 2))  # [b, h*w, 3c]
        q, k, v = tokens.unflatten(2, (3, self.heads, c // self.heads)).permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(mixed).transpose(1, 2).unflatten(2, (h, w))  # type: ignore[no-any-return]


class Up(nn.Module):
    """Double the size: by nearest neighbour and a convolution, or by a transposed convolution."""

    def __init__(self, channels: int, kind: Literal["nearest", "transposed"]) -> None:
        super().__init__()
        self.nearest = kind == "nearest"
        self.conv: nn.Module = (
            nn.Conv2d(channels, channels, 3, padding=1)
            if self.nearest
            else nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        )

    def forward(self, x: Maps) -> Maps:
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.nearest else x)  # type: ignore[no-any-return]
