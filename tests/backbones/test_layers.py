"""Each layer is its formula: norm, attention, transposed convolution, time embedding, gradient checkpointing."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from unnoise import registry
from unnoise.backbones.layers import Attention, GroupNorm, TimeEmbedding, Up, recompute
from unnoise.errors import InputError


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_the_norm_that_is_compiled_is_that_of_pytorch(groups):
    """The values and all gradients of two norms agree, also if the mean is far from zero."""
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


@pytest.mark.parametrize("side", [3, 5])
def test_attention_is_softmax_attention(side, monkeypatch):
    """Attention is written out for few tokens and computed by PyTorch for more; both are the formula."""
    monkeypatch.setattr("unnoise.backbones.layers.FEW_TOKENS", 20)
    layer = Attention(channels=12, head=4, groups=3)
    x = torch.randn(2, 12, side, 5)
    q, k, v = layer.qkv(layer.norm(x).flatten(2).transpose(1, 2)).chunk(3, dim=2)
    heads = [slice(0, 4), slice(4, 8), slice(8, 12)]
    mixed = [torch.softmax(q[..., h] @ k[..., h].mT / 2, dim=2) @ v[..., h] for h in heads]  # 2 = sqrt(4)
    expected = x + layer.out(torch.cat(mixed, dim=2)).transpose(1, 2).reshape(x.shape)
    assert_close(layer(x), expected)


def conv_transpose2d(x, kernel, stride):
    """Return the transposed convolution as the notebook computes it."""
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


@pytest.mark.parametrize("spec", ["unet:widths=8-16,layers=1,groups=4,dropout=0.2", "dit:width=16,depth=2,heads=2"])
def test_gradient_checkpointing_gives_the_same_gradients_and_keeps_less(spec):
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


def test_gradient_checkpointing_needs_blocks():
    with pytest.raises(InputError, match="--recompute: linear has no blocks"):
        recompute(nn.Linear(1, 1))
