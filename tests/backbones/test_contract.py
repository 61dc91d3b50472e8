"""Every registered backbone keeps the contract."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unnoise import registry


def size(net):
    return sum(p.numel() for p in net.parameters())


def is_large(name):
    """Return True for a network of more than 50 million parameters, which is not filled with numbers here."""
    with torch.device("meta"):
        return size(registry.backbone.get(name)(2, 3)) > 50e6


LARGE = {name for name in registry.backbone.names() if is_large(name)}


@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_networks_give_the_shape_they_are_asked_for(name):
    with torch.device("meta"):
        net = registry.backbone.get(name)(2, 3, 5)
        assert net(torch.empty(2, 2, 16, 24), torch.empty(2)).shape == (2, 5, 16, 24)


@pytest.mark.parametrize("name", sorted({*registry.backbone.names()} - LARGE))
def test_contract(name):
    """A backbone returns the shape of x, computes each image by itself, uses time and label, and loads its weights."""
    make = registry.backbone.get(name)
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
