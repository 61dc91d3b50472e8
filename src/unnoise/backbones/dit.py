"""DiT, the diffusion transformer, and the four sizes of its paper."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.backbones.layers import Features, Recomputed, TimeEmbedding, TransformEmbedding, attend, pad
from unnoise.errors import InputError
from unnoise.registry import backbone
from unnoise.types import Images, Labels, Output, PerImage, Transform

Tokens = Float[Tensor, "b n d"]  # n patches, row by row, of width d


def layer_norm(width: int) -> nn.LayerNorm:
    """Return a layer norm without scale and shift, which come from the embedding."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def positions(rows: int, columns: int, width: int, device: torch.device | None = None) -> Float[Tensor, "n d"]:
    """Return sin and cos of each patch's column, then of its row, He et al. 2021 (arXiv:2111.06377); never learned."""
    index = torch.arange(width // 4, device=device, dtype=torch.float32)
    frequencies = 10_000 ** (-index / (width // 4))

    def waves(count: int) -> Float[Tensor, "count k"]:
        angles = torch.arange(count, device=device, dtype=torch.float32)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    column, row = waves(columns)[None].expand(rows, -1, -1), waves(rows)[:, None].expand(-1, columns, -1)
    return torch.cat([column, row], dim=2).flatten(0, 1)


class Attention(nn.Module):
    """Attend over the tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(Recomputed):
    """Compute attention, then a two-layer network; the embedding shifts, scales and gates both (adaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.norm1, self.attention = layer_norm(width), Attention(width, heads)
        self.norm2 = layer_norm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def compute(self, x: Tokens, emb: Features) -> Tokens:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(emb)[:, None].chunk(6, dim=2)
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)  # type: ignore[no-any-return]


class Final(nn.Module):
    """Turn each token, shifted and scaled by the embedding, into the pixels of its patch."""

    def __init__(self, width: int, pixels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.norm, self.out = layer_norm(width), nn.Linear(width, pixels)

    def forward(self, x: Tokens, emb: Features) -> Float[Tensor, "b n pixels"]:
        shift, scale = self.modulation(emb)[:, None].chunk(2, dim=2)
        return self.out(self.norm(x) * (1 + scale) + shift)  # type: ignore[no-any-return]


@backbone
class DiT(nn.Module):
    """Build the transformer over patches of Peebles & Xie 2023 (arXiv:2212.09748), adaLN-zero, small, for 32 to 64 px.

    It takes images of any size.

    Args:
        channels: Channels of the images.
        classes: The number of classes; 0 for none.
        outputs: Channels of the output (default: the channels of the images).
        width: Features of a token; a multiple of 4 and of heads.
        depth: The number of blocks.
        heads: Attention heads.
        patch: A token holds patch x patch pixels; half the patch costs four times the tokens.
        transforms: Numbers of a transform that the network is conditioned on (`training/augmentation.py`); 0 for none.

    Raises:
        InputError: The options do not fit each other.
    """

    def __init__(  # the whole shape of the network in one place
        self,
        channels: int,
        classes: int = 0,
        outputs: int | None = None,
        *,
        width: int = 192,
        depth: int = 8,
        heads: int = 3,
        patch: int = 4,
        transforms: int = 0,
    ) -> None:
        super().__init__()
        if min(width, depth, heads, patch) < 1 or width % 4 or width % heads:
            raise InputError(
                f"dit: width {width} must be a multiple of 4 and of heads {heads}; depth, heads, patch >= 1"
            )
        self.width, self.patch = width, patch
        self.conv_in = nn.Conv2d(channels, width, patch, stride=patch)
        self.time = TimeEmbedding(256, width)
        self.label = nn.Embedding(classes + 1, width) if classes else None  # the last is no class
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final = Final(width, (outputs or channels) * patch**2)
        self.initialize()
        self.transform = TransformEmbedding(transforms, width) if transforms else None

    def initialize(self) -> None:
        """Initialise as the paper does: each block starts as the identity, and the output at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for part in [*self.blocks, self.final]:
            nn.init.zeros_(part.modulation.weight)
        for layer in self.time.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.final.out.weight)

    def embed(self, time: PerImage, label: Labels | None, transform: Transform | None) -> Features:
        """Return the embedding of time, class and transform that every block reads."""
        emb = self.time(time)
        if self.label is not None:
            none = self.label.num_embeddings - 1
            label = torch.full_like(time, none, dtype=torch.long) if label is None else label
            emb = emb + self.label(label.where(label >= 0, none))
        if self.transform is not None and transform is not None:
            emb = emb + self.transform(transform)
        return F.silu(emb)

    def forward(
        self, x: Images, time: PerImage, label: Labels | None = None, transform: Transform | None = None
    ) -> Output:
        padded, inside = pad(x, self.patch)
        emb, patches = self.embed(time, label, transform), self.conv_in(padded)
        rows, columns = patches.shape[-2:]
        place = positions(rows, columns, self.width, x.device).to(self.conv_in.weight.dtype)
        h = patches.flatten(2).transpose(1, 2) + place
        for block in self.blocks:
            h = block(h, emb)
        pixels = self.final(h, emb).transpose(1, 2).unflatten(2, (rows, columns))
        out = F.pixel_shuffle(pixels, self.patch)
        return out[..., *inside]


@backbone
def dit_s(channels: int, classes: int = 0, outputs: int | None = None, *, patch: int = 2) -> DiT:
    """Build DiT-S, 33M parameters, Peebles & Xie 2023 (arXiv:2212.09748), table 1.

    Args:
        patch: A token holds patch x patch pixels.
    """
    return DiT(channels, classes, outputs, width=384, depth=12, heads=6, patch=patch)


@backbone
def dit_b(channels: int, classes: int = 0, outputs: int | None = None, *, patch: int = 2) -> DiT:
    """Build DiT-B, 130M parameters, Peebles & Xie 2023 (arXiv:2212.09748), table 1.

    Args:
        patch: A token holds patch x patch pixels.
    """
    return DiT(channels, classes, outputs, width=768, depth=12, heads=12, patch=patch)


@backbone
def dit_l(channels: int, classes: int = 0, outputs: int | None = None, *, patch: int = 2) -> DiT:
    """Build DiT-L, 458M parameters, Peebles & Xie 2023 (arXiv:2212.09748), table 1.

    Args:
        patch: A token holds patch x patch pixels.
    """
    return DiT(channels, classes, outputs, width=1024, depth=24, heads=16, patch=patch)


@backbone
def dit_xl(channels: int, classes: int = 0, outputs: int | None = None, *, patch: int = 2) -> DiT:
    """Build DiT-XL, 675M parameters, Peebles & Xie 2023 (arXiv:2212.09748), table 1.

    Args:
        patch: A token holds patch x patch pixels.
    """
    return DiT(channels, classes, outputs, width=1152, depth=28, heads=16, patch=patch)
