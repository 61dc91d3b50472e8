"""The diffusion transformer has the sizes of its paper, is its formulas, and agrees with diffusers."""

import math

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch.testing import assert_close

from unnoise import registry
from unnoise.backbones.dit import positions
from unnoise.errors import InputError

TINY = "dit:width=16,depth=2,heads=2,patch=2"


@pytest.mark.parametrize(("name", "millions"), [("dit_s", 33), ("dit_b", 130), ("dit_l", 458), ("dit_xl", 675)])
def test_sizes_are_those_of_the_paper(name, millions):
    """Table 1, on 4 channels with a learned variance and 1000 classes; its fixed positions are not counted here."""
    with torch.device("meta"):
        net = registry.backbone.get(name)(4, 1000, 8)
    count = sum(p.numel() for p in net.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)
    if name == "dit_xl":
        assert count + 256 * 1152 == 675_129_632  # the released checkpoint, which holds its 256 positions


def test_it_starts_at_zero_and_silent():
    net = registry.backbone.get(TINY)(3, 2)
    x = torch.randn(2, 3, 8, 8)
    assert net(x, torch.tensor([0.0, 9.0]), torch.tensor([0, 1])).abs().max() == 0
    tokens, emb = torch.randn(2, 4, 16), torch.randn(2, 16)
    assert torch.equal(net.blocks[0](tokens, emb), tokens)


def test_positions_are_waves_of_the_column_then_of_the_row():
    table = positions(2, 3, 8).unflatten(0, (2, 3))
    for row, column in [(0, 0), (1, 2), (0, 1)]:
        expected = []
        for place in (column, row):
            expected += [math.sin(place), math.sin(place / 100), math.cos(place), math.cos(place / 100)]
        assert_close(table[row, column], torch.tensor(expected))


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (5, 16)])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_any_size_and_patch(shape, patch):
    net = registry.backbone.get(f"dit:width=16,depth=1,heads=2,patch={patch}")(1)
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    out = net(torch.randn(2, 1, *shape), torch.zeros(2))
    assert out.shape == (2, 1, *shape)
    assert out.isfinite().all()


@pytest.mark.parametrize("spec", ["dit:width=18,heads=2", "dit:width=16,heads=3", "dit:depth=0", "dit:patch=0"])
def test_bad_options_are_refused(spec):
    with pytest.raises(InputError, match="dit: width"):
        registry.backbone.get(spec)(3)


def twins(patch, size):
    """Return our DiT and one of diffusers with the same random weights."""
    theirs = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=3,
        out_channels=6,
        num_layers=2,
        sample_size=size,
        patch_size=patch,
        num_embeds_ada_norm=5,
        norm_num_groups=1,
        norm_eps=1e-6,
    ).eval()
    ours = registry.backbone.get(f"dit:width=16,depth=2,heads=2,patch={patch}")(3, 5, 6).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.2)
    blocks = theirs.transformer_blocks
    for block in blocks:  # they divide by one pair less than the paper's code, and each block embeds for itself
        block.norm1.emb = blocks[0].norm1.emb
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    pairs = [
        (ours.conv_in, theirs.pos_embed.proj),
        (ours.time.mlp[0], blocks[0].norm1.emb.timestep_embedder.linear_1),
        (ours.time.mlp[2], blocks[0].norm1.emb.timestep_embedder.linear_2),
        (ours.label, blocks[0].norm1.emb.class_embedder.embedding_table),
        (ours.final.modulation, theirs.proj_out_1),
    ]
    for mine, block in zip(ours.blocks, blocks, strict=True):
        pairs += [(mine.modulation, block.norm1.linear), (mine.attention.out, block.attn1.to_out[0])]
        pairs += [(mine.mlp[0], block.ff.net[0].proj), (mine.mlp[2], block.ff.net[2])]
        whole = [getattr(block.attn1, name).state_dict() for name in ("to_q", "to_k", "to_v")]
        mine.attention.qkv.load_state_dict({k: torch.cat([part[k] for part in whole]) for k in ("weight", "bias")})
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    by_pixel = theirs.proj_out_2.state_dict()  # they put the channels of a pixel side by side, we the pixels of one
    ours.final.out.load_state_dict(
        {k: v.unflatten(0, (patch**2, 6)).transpose(0, 1).flatten(0, 1) for k, v in by_pixel.items()}
    )
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize(("patch", "size"), [(1, 4), (2, 8), (4, 16)])
def test_it_is_that_of_diffusers(patch, size):
    ours, theirs = twins(patch, size)
    x, time, label = torch.randn(6, 3, size, size), torch.tensor([0, 1, 7, 300, 998, 999]), torch.arange(6) % 5
    expected = theirs(x, time, label).sample
    assert expected.abs().max() > 0.1
    assert_close(ours(x, time.float(), label), expected, rtol=0, atol=1e-4)
    nobody = torch.full_like(label, 5)  # their row for no class
    assert_close(ours(x, time.float()), theirs(x, time, nobody).sample, rtol=0, atol=1e-4)
