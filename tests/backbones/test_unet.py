"""The U-Net against diffusers' UNet2DModel and against its own parts; and what every backbone must do."""

import copy
import math

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from unnoise import registry
from unnoise.backbones.layers import Attention, GroupNorm, TimeEmbedding, Up, recompute
from unnoise.backbones.unet import Block
from unnoise.errors import InputError

TINY = "unet:widths=8-16-16,layers=1,groups=4,head=4,zero_init=false"


def backbone(spec, channels=3, classes=0):
    return registry.backbone.get(spec)(channels, classes).eval().requires_grad_(False)


def size(net):
    return sum(p.numel() for p in net.parameters())


# What is compiled


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_the_norm_that_is_compiled_is_that_of_pytorch(groups):
    """Values and all gradients, also where the mean is far from zero; of two in a network."""
    norms = nn.Sequential(GroupNorm(groups, 16), GroupNorm(groups, 16))
    for p in norms.parameters():
        nn.init.normal_(p)
    compiled, graphs = copy.deepcopy(norms), []
    eager = torch._dynamo.lookup_backend("aot_eager")
    compiled.compile(backend=lambda graph, inputs: graphs.append(graph) or eager(graph, inputs))
    x, weight = torch.randn(3, 16, 5, 7) + 10, torch.randn(3, 16, 5, 7)
    found = []
    for module in (norms, compiled):
        given = x.clone().requires_grad_()
        (made := module(given)).mul(weight).sum().backward()
        found.append([made.detach(), given.grad, *(p.grad for p in module.parameters())])
    assert "group_norm" not in graphs[0].code
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


# Agreement with diffusers


def load_linear(ours, *theirs):
    """Several linear layers become one."""
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
    """The way down or up: ours is one flat list."""
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
    """Give our network all weights of theirs."""
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
    """Random biases and norms too, so that none can be left out unnoticed."""
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


# Sizes


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


# Options


def attended(spec, side=32):
    """The side of the picture at each attention, in order."""
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
    """Down once a level, in the middle always, up twice."""
    assert attended(TINY + more) == sides


@pytest.mark.parametrize("side", [3, 5])
def test_attention_is_softmax_attention(side, monkeypatch):
    """Written out for few tokens, and by PyTorch for more."""
    monkeypatch.setattr("unnoise.backbones.layers.FEW", 20)
    layer = Attention(channels=12, head=4, groups=3)
    x = torch.randn(2, 12, side, 5)
    q, k, v = layer.qkv(layer.norm(x).flatten(2).transpose(1, 2)).chunk(3, dim=2)
    heads = [slice(0, 4), slice(4, 8), slice(8, 12)]
    mixed = [torch.softmax(q[..., h] @ k[..., h].mT / 2, dim=2) @ v[..., h] for h in heads]  # 2 = sqrt(4)
    expected = x + layer.out(torch.cat(mixed, dim=2)).transpose(1, 2).reshape(x.shape)
    assert_close(layer(x), expected)


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
    net = registry.backbone.get("unet:widths=8-16,layers=1,groups=4")(3)
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


# The notebook's transposed convolution


def conv_transpose2d(x, kernel, stride):
    """The notebook's."""
    H, W = x.shape
    K_h, K_w = kernel.shape
    out_h = (H - 1) * stride + K_h
    out_w = (W - 1) * stride + K_w
    out = torch.zeros(out_h, out_w)
    for i in range(H):
        for j in range(W):
            out[i * stride : i * stride + K_h, j * stride : j * stride + K_w] += x[i, j] * kernel
    return out


def test_notebook_transposed_convolution():
    x = kernel = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert conv_transpose2d(x, kernel, stride=1).tolist() == [[0, 0, 1], [0, 4, 6], [4, 12, 9]]
    for stride in (1, 2, 3):
        expected = F.conv_transpose2d(x[None, None], kernel[None, None], stride=stride)[0, 0]
        assert_close(conv_transpose2d(x, kernel, stride), expected)


def test_transposed_up_is_the_notebooks_and_doubles_the_size():
    """Kernel 4, stride 2, padding 1: 32 x 32 becomes 64 x 64."""
    up, x = Up(1, "transposed"), torch.randn(1, 1, 32, 32)
    toy = conv_transpose2d(x[0, 0], up.conv.weight[0, 0].detach(), stride=2)[1:-1, 1:-1] + up.conv.bias
    assert up(x).shape == (1, 1, 64, 64)
    assert_close(up(x)[0, 0], toy)


def test_nearest_up_repeats_pixels_then_convolves():
    up, x = Up(2, "nearest"), torch.randn(1, 2, 3, 5)
    assert_close(up(x), up.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3)))


# Time


def test_time_embedding_is_the_formula():
    """cos(t w_i), then sin(t w_i), with w_i = 10000^(-i / half); then Linear, SiLU, Linear."""
    layer, seen = TimeEmbedding(width=16), []
    layer.mlp[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    times = torch.tensor([0.0, 1.0, 2.5, 999.0])
    out = layer(times)
    for time, waves in zip(times.tolist(), seen[0].tolist(), strict=True):
        angles = [time * 10_000 ** (-i / 8) for i in range(8)]
        expected = [*map(math.cos, angles), *map(math.sin, angles)]
        assert waves == pytest.approx(expected, abs=1e-4)  # float32 knows 999 rad to 6e-5
    assert out.shape == (4, 64)
    first, _, last = layer.mlp
    assert_close(out, last(F.silu(first(seen[0]))))


# Mistakes


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
    """Or else it is said when the network is made, not in its first step."""
    try:
        net = backbone(spec)
    except InputError:
        return
    x = torch.randn(1, 3, 8, 8)
    assert net(x, torch.zeros(1)).shape == x.shape


# Every backbone


LARGE = 50e6  # parameters of a network that is only laid out, not filled


@pytest.mark.parametrize("name", registry.backbone.names())
def test_contract(name):
    """(channels, classes, outputs) make it; (x, time, label) -> x's shape; each image by itself; weights reload."""
    make = registry.backbone.get(name)
    with torch.device("meta"):
        if size(make(2, 3)) > LARGE:
            assert make(2, 3, 5)(torch.empty(2, 2, 16, 24), torch.empty(2)).shape == (2, 5, 16, 24)
            return
    net = make(2, 3)
    assert isinstance(net, nn.Module)
    x, time, label = torch.randn(2, 2, 16, 24), torch.tensor([0.0, 999.0]), torch.tensor([0, 2])
    net(x, time, label).square().mean().backward()
    for p in net.parameters():
        p.data.add_(0.02 * torch.randn_like(p))
    net.eval()
    with torch.no_grad():
        out = net(x, time, label)
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert out.isfinite().all()
        assert_close(net(x.flip(0), time.flip(0), label.flip(0)), out.flip(0), rtol=0, atol=1e-5)
        for other in [(x, time.flip(0), label), (x, time, label.flip(0)), (-x, time, label), (x, time)]:
            assert (net(*other) - out).abs().max() > 1e-5
        twin = make(2, 3).eval()
        twin.load_state_dict(net.state_dict())
        assert torch.equal(twin(x, time, label), out)
        assert torch.equal(net(x, time, torch.tensor([-1, -1])), net(x, time))  # label -1 is none
        assert torch.equal(net(x, time, torch.tensor([-1, 2]))[1], out[1])
        assert make(1).eval()(x[:, :1], time).shape == (2, 1, 16, 24)
        assert make(2, 3, 5).eval()(x, time, label).shape == (2, 5, 16, 24)


@pytest.mark.parametrize("spec", ["unet:widths=8-16,layers=1,groups=4,dropout=0.2", "dit:width=16,depth=2,heads=2"])
def test_blocks_that_are_computed_once_more_give_the_same_gradients_and_keep_less(spec):
    torch.manual_seed(0)
    network = registry.backbone.get(spec)(3)
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    x, time = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 900.0])

    def gradients():
        kept = [0]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
            torch.manual_seed(1)
            loss = network(x, time).square().mean()
        return torch.autograd.grad(loss, [*network.parameters()]), sum(kept)

    plain, much = gradients()
    recompute(network)
    again, little = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert little < 0.6 * much


def test_what_has_no_blocks_cannot_be_recomputed():
    with pytest.raises(InputError, match="--recompute: linear has no blocks"):
        recompute(nn.Linear(1, 1))
