"""The U-Net agrees with UNet2DModel of diffusers, takes any size, and obeys its options."""

import pytest
import torch
from diffusers import UNet2DModel
from torch.nn import functional as F
from torch.testing import assert_close

from unnoise import registry
from unnoise.backbones.layers import Attention, Up
from unnoise.backbones.unet import Block
from unnoise.errors import InputError

TINY = "unet:widths=8-16-16,layers=1,groups=4,head=4,zero_init=false"


def backbone(spec, channels=3, classes=0):
    return registry.backbone.get(spec)(channels, classes).eval().requires_grad_(False)


def size(net):
    return sum(p.numel() for p in net.parameters())


def load_linear(ours, *theirs):
    """Load several linear layers into one."""
    ours.weight.copy_(torch.cat([layer.weight for layer in theirs]))
    ours.bias.copy_(torch.cat([layer.bias for layer in theirs]))


def load_block(ours, resnet, attention):
    parts = {"norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2", "conv2": "conv2"}
    parts |= {"skip": "conv_shortcut"} if resnet.conv_shortcut is not None else {}
    for mine, yours in parts.items():
        getattr(ours.res, mine).load_state_dict(getattr(resnet, yours).state_dict())
    assert (ours.attention is None) == (attention is None)
    if attention is not None:
        ours.attention.norm.load_state_dict(attention.group_norm.state_dict())
        load_linear(ours.attention.qkv, attention.to_q, attention.to_k, attention.to_v)
        load_linear(ours.attention.out, attention.to_out[0])


def load_path(ours, theirs, resample):
    """Load the down or the up path; ours is one flat list."""
    ours = iter(ours)
    for block in theirs:
        attentions = getattr(block, "attentions", [None] * len(block.resnets))
        for resnet, attention in zip(block.resnets, attentions, strict=True):
            load_block(next(ours), resnet, attention)
        for layer in getattr(block, resample) or ():
            mine = next(ours)
            (mine.conv if isinstance(mine, Up) else mine).load_state_dict(layer.conv.state_dict())
    assert next(ours, None) is None


@torch.no_grad()
def load_diffusers(ours, theirs):
    """Load all weights of their network into ours."""
    ours.conv_in.load_state_dict(theirs.conv_in.state_dict())
    load_linear(ours.time.mlp[0], theirs.time_embedding.linear_1)
    load_linear(ours.time.mlp[2], theirs.time_embedding.linear_2)
    if theirs.class_embedding is not None:
        ours.label.load_state_dict(theirs.class_embedding.state_dict())
    load_path(ours.down, theirs.down_blocks, "downsamplers")
    for i, attention in enumerate([theirs.mid_block.attentions[0], None]):
        load_block(ours.middle[i], theirs.mid_block.resnets[i], attention)
    load_path(ours.up, theirs.up_blocks, "upsamplers")
    ours.norm_out.load_state_dict(theirs.conv_norm_out.state_dict())
    ours.conv_out.load_state_dict(theirs.conv_out.state_dict())


def shake(net):
    """Make biases and norms random too, and return the network; then a test sees each that is left out."""
    for p in net.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    return net.eval().requires_grad_(False)


def test_notebook_network_is_that_of_diffusers():
    """The notebook's UNet2DModel: the same size, and with its weights the same output."""
    theirs = shake(
        UNet2DModel(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            block_out_channels=(64, 128, 256),
            down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "UpBlock2D"),
        )
    )
    ours = backbone("unet")
    assert size(ours) == size(theirs) == 14_406_531
    load_diffusers(ours, theirs)
    x, time = torch.randn(3, 3, 32, 32), torch.tensor([0.0, 500.0, 999.0])
    expected = theirs(x, time).sample
    assert expected.std() > 0.1
    assert_close(ours(x, time), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("attention", [(), (1,), (2,), (4,), (1, 4)], ids=str)
def test_attention_and_classes_are_those_of_diffusers(attention):
    at = [scale in attention for scale in (1, 2, 4)]
    theirs = shake(
        UNet2DModel(
            sample_size=16,
            layers_per_block=1,
            block_out_channels=(16, 32, 48),
            norm_num_groups=8,
            down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in at],
            up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(at)],
            num_class_embeds=5,
        )
    )
    ours = registry.backbone.get("unet:widths=16-32-48,layers=1,groups=8")(3, 5, attention=attention).eval()
    ours.requires_grad_(False)
    assert size(ours) == size(theirs)
    load_diffusers(ours, theirs)
    x, time, label = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]), torch.tensor([4, 1])
    assert_close(ours(x, time, label), theirs(x, time, label).sample, rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (28, 28), (33, 47), (96, 64)], ids=str)
@pytest.mark.parametrize("more", ["", ",up=transposed", ",patch=2", ",patch=4"])
def test_any_size_and_any_channels(channels, shape, more):
    x = torch.randn(2, channels, *shape)
    out = backbone(TINY + more, channels)(x, torch.tensor([1.0, 900.0]))
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert out.std() > 0


@pytest.mark.parametrize("more", ["", ",patch=2"])
@pytest.mark.parametrize("shape", [(33, 47), (9, 8), (8, 11)], ids=str)
def test_other_sizes_are_padded_evenly_and_cut_back(shape, more):
    net = backbone(TINY + more)
    x, time = torch.randn(1, 3, *shape), torch.tensor([5.0])
    multiple = 8 if more else 4
    (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in (-side % multiple for side in shape))
    whole = net(F.pad(x, (left, right, top, bottom), mode="replicate"), time)
    assert_close(net(x, time), whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right])


@pytest.mark.parametrize("patch", [2, 4])
def test_patch_folds_pixels_into_channels(patch):
    """The same weights on the folded image give the folded output."""
    plain, patched = backbone(TINY, 3 * patch**2), backbone(f"{TINY},patch={patch}")
    plain.load_state_dict(patched.state_dict())
    x, time = torch.randn(2, 3, 32, 48), torch.tensor([1.0, 2.0])
    folded = plain(F.pixel_unshuffle(x, patch), time)
    assert_close(patched(x, time), F.pixel_shuffle(folded, patch))


def test_direct_adds_a_linear_map_of_the_features_before_their_norm():
    """Features that are twice as strong are the same after the norm, and add twice as much here."""
    plain, net = backbone(TINY), backbone(f"{TINY},patch=2,direct=true")
    assert size(backbone(f"{TINY},direct=true")) - size(plain) == 3 * 8
    x, time, features = torch.randn(2, 3, 16, 16), torch.tensor([1.0, 2.0]), []
    net.norm_out.register_forward_hook(lambda _, args, __: features.append(args[0]))
    whole = net(x, time)
    net.direct.weight.zero_()
    without = net(x, time)
    net.direct.weight.normal_()
    added = torch.einsum("oc,bchw->bohw", net.direct.weight[..., 0, 0], features[0])
    assert_close(net(x, time) - without, F.pixel_shuffle(added, 2))
    assert (whole - without).abs().max() > 1e-3


def attended(spec, side=32):
    """Return the side of the image at each attention, in order."""
    net, seen = backbone(spec), []
    for module in net.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[-1]))
    net(torch.randn(1, 3, side, side), torch.zeros(1))
    return seen


@pytest.mark.parametrize(
    ("more", "sides"),
    [
        ("", [8]),
        (",attention=1", [32, 8, 32, 32]),
        (",attention=2", [16, 8, 16, 16]),
        (",attention=2-4", [16, 8, 8, 8, 8, 16, 16]),
        (",patch=2,attention=4", [8, 4, 8, 8]),
    ],
)
def test_attention_is_where_it_was_asked_for(more, sides):
    """Attention stands once a level on the way down, always in the middle, and twice a level on the way up."""
    assert attended(TINY + more) == sides


def test_class_changes_the_output():
    net = backbone(TINY, classes=3)
    x, time = torch.randn(1, 3, 8, 8).expand(3, 3, 8, 8), torch.full((3,), 10.0)
    outputs = [*net(x, time, torch.tensor([0, 1, 1])), *net(x[:1], time[:1])]
    assert_close(outputs[1], outputs[2])
    for one, other in [(0, 1), (0, 3), (1, 3)]:
        assert (outputs[one] - outputs[other]).abs().max() > 1e-3
    assert backbone(TINY).label is None


def test_time_changes_the_output():
    x = torch.randn(1, 3, 8, 8).expand(2, 3, 8, 8)
    early, late = backbone(TINY)(x, torch.tensor([3.0, 800.0]))
    assert (early - late).abs().max() > 1e-3


def test_zero_init_starts_silent():
    net = registry.backbone.get("unet:widths=8-16,layers=1,groups=4,direct=true")(3)
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 800.0])
    assert not net(x, time).any()
    emb, h = net.time(time), torch.randn(2, 8, 8, 8)
    block = next(module for module in net.down if isinstance(module, Block))
    assert torch.equal(block(h, emb), h)
    net(x, time).sum().backward()
    assert net.conv_out.weight.grad.abs().max() > 0


def test_widths_layers_and_dropout_reach_the_network():
    net = backbone("unet:widths=8-24,layers=3,groups=5,dropout=0.25")
    blocks = [module for module in [*net.down, *net.middle, *net.up] if isinstance(module, Block)]
    assert [block.res.conv2.out_channels for block in blocks] == [8] * 3 + [24] * 3 + [24] * 2 + [24] * 4 + [8] * 4
    assert {block.res.dropout.p for block in blocks} == {0.25}
    assert net.norm_out.num_groups == 1  # 5 groups don't divide 8 channels


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("unet:widths=", "must be positive, the first even"),
        ("unet:widths=33-64", r"widths \(33, 64\) must be positive, the first even"),
        ("unet:widths=0-64", "must be positive"),
        ("unet:layers=0", "layers, patch, groups, head >= 1"),
        ("unet:patch=0", ">= 1"),
        ("unet:groups=0", ">= 1"),
        ("unet:head=0", ">= 1"),
        ("unet:attention=3", r"among \[1, 2, 4\], got \[3\]"),
        ("unet:attention=8", r"among \[1, 2, 4\], got \[8\]"),
        ("unet:patch=2,attention=1", r"among \[2, 4, 8\], got \[1\]"),
        ("unet:up=bilinear", "unknown value for .*up 'bilinear'"),
        ("unet:widhts=8", "did you mean 'widths'"),
        ("unett", "did you mean 'unet'"),
    ],
)
def test_bad_options_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        backbone(spec)


@pytest.mark.parametrize("spec", ["unet:widths=22,head=4", "unet:widths=20-50,layers=1", "unet:widths=8,head=3"])
def test_heads_need_not_divide_the_channels(spec):
    x = torch.randn(1, 3, 8, 8)
    assert backbone(spec)(x, torch.zeros(1)).shape == x.shape


def test_options_that_diffusers_does_not_check_are_refused():
    with pytest.raises(InputError, match="refuses these options"):
        registry.backbone.get("unet2d:time_embedding_type=64")(3)
