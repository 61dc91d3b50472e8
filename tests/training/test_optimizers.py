"""Optimizers: Muon against its definition, torch's own, and AdamW where it is AdamW."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from unnoise import registry
from unnoise.errors import InputError
from unnoise.training.muon import orthogonalize


def network(*, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def taught(network, optimizer, steps=3):
    for i in range(steps):
        optimizer.zero_grad()
        F.mse_loss(network(torch.arange(5)), torch.full((5, 3), float(i))).backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 30), (2, 30, 4), (1, 1, 9)])
def test_orthogonalize_is_near_the_polar_factor(shape):
    """Singular values near 1, none of them 0 or 2, and the singular vectors as they were."""
    x = torch.randn(shape, dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    made = orthogonalize(x, 5)
    kept = u.mT @ made @ v.mT  # diagonal, if the vectors are the same
    values = kept.diagonal(dim1=1, dim2=2)
    assert_close(kept, torch.diag_embed(values), rtol=0, atol=1e-9)
    large = s > 0.02 * s.norm(dim=1, keepdim=True)
    assert (values[large] > 0.6).all()
    assert (values < 1.3).all()


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 30), (2, 30, 4)])
def test_orthogonalize_is_the_polynomial_again_and_again(shape):
    """As Jordan et al. write it, on the whole matrix each time."""
    given = torch.randn(shape, dtype=torch.float64)
    x = given / given.norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.mT @ x + 2.0315 * x @ x.mT @ x @ x.mT @ x
    assert_close(orthogonalize(given, 5), x, rtol=0, atol=1e-6)  # of 1e-7 beside the norm
    assert_close(orthogonalize(given.float(), 5), x.float(), rtol=0, atol=1e-4)


def test_orthogonalize_stands_gradients_of_low_rank():
    """With as many iterations as anybody asks for."""
    x = torch.randn(1, 128, 4) @ torch.randn(1, 4, 512)
    for iterations in (5, 10, 30):
        values = torch.linalg.svdvals(orthogonalize(x, iterations))[0]
        assert (values[:4] > 0.6).all()
        assert (values < 1.3).all()


def test_muon_is_torchs_where_torch_has_it():
    """Its matrices, at the step size of Liu et al.; torch's own computes in bfloat16."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    ours, theirs = (nn.Linear(7, 12, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    mine = registry.optimizer.get("muon")(ours, 1e-2, 0.1)
    other = torch.optim.Muon(theirs.parameters(), lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        gradient = torch.randn(12, 7)
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-3)


def test_what_is_no_matrix_follows_adamw():
    """Biases, norms and embeddings: exactly as torch's AdamW moves them, given the same gradients."""
    ours, theirs = network(), network()
    mine = registry.optimizer.get("muon")(ours, 1e-2, 0.1)
    other = torch.optim.AdamW(theirs.parameters(), 1e-2, weight_decay=0.1)
    for seed in range(3):
        torch.manual_seed(seed)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        mine.step()
        other.step()
    same = [torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert same == [True, False, True, False, True, True, True, False, True]


def test_muon_steps_are_of_the_size_of_adamws():
    """Root mean square about 0.2 lr, whatever the shape and the size of the gradient."""
    for shape in ((64, 64), (16, 300), (300, 16)):
        layer = nn.Linear(*shape, bias=False)
        before = layer.weight.detach().clone()
        optimizer = registry.optimizer.get("muon")(layer, 0.1, 0.0)
        layer.weight.grad = 1e-6 * torch.randn_like(layer.weight)
        optimizer.step()
        step = (layer.weight.detach() - before).square().mean().sqrt()
        assert step == pytest.approx(0.2 * 0.1, rel=0.25)


def test_convolutions_are_matrices_by_the_channels_they_make():
    layer, flat = nn.Conv2d(4, 6, 3, bias=False), nn.Linear(36, 6, bias=False)
    layer = layer.to(memory_format=torch.channels_last)
    with torch.no_grad():
        flat.weight.copy_(layer.weight.flatten(1))
    layer.weight.grad = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)
    flat.weight.grad = layer.weight.grad.flatten(1).clone()
    for one in (layer, flat):
        registry.optimizer.get("muon")(one, 1e-2, 0.1).step()
    assert_close(layer.weight.flatten(1), flat.weight)


@pytest.mark.parametrize("name", registry.optimizer.names())
def test_every_optimizer_learns_and_its_state_can_be_kept(name):
    """Twice three steps with the state passed on are six steps."""
    target = torch.randn(5, 3)

    def loss(net):
        return F.mse_loss(net(torch.arange(5)), target)

    net = network()
    optimizer = registry.optimizer.get(name)(net, 1e-2, 0.0)
    before = loss(net).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss(net).backward()
        optimizer.step()
    assert loss(net).item() < 0.2 * before

    whole = network()
    taught(whole, registry.optimizer.get(name)(whole, 1e-2, 0.1), 6)
    parts = network()
    first = registry.optimizer.get(name)(parts, 1e-2, 0.1)
    for i in range(6):
        if i == 3:
            second = registry.optimizer.get(name)(parts, 1e-2, 0.1)
            second.load_state_dict(first.state_dict())
            first = second
        first.zero_grad()
        F.mse_loss(parts(torch.arange(5)), torch.full((5, 3), float(i))).backward()
        first.step()
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        assert_close(p, q, rtol=0, atol=0)


def test_a_closure_is_called_once_with_all_gradients():
    ours, theirs = network(), network()
    mine, other = (registry.optimizer.get("muon")(net, 1e-2, 0.1) for net in (ours, theirs))

    def closure():
        mine.zero_grad()
        loss = F.mse_loss(ours(torch.arange(5)), torch.ones(5, 3))
        loss.backward()
        return loss

    for _ in range(3):
        assert mine.step(closure) > 0
        other.zero_grad()
        F.mse_loss(theirs(torch.arange(5)), torch.ones(5, 3)).backward()
        other.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(p, q, rtol=0, atol=0)


def test_muon_without_matrices_is_adamw():
    layer = nn.LayerNorm(4)
    optimizer = registry.optimizer.get("muon")(layer, 1e-2, 0.0)
    optimizer.step()
    layer(torch.randn(2, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, torch.ones(4))


@pytest.mark.parametrize("spec", ["muon:momentum=3", "muon:iterations=0", "muon:beta1=1.5", "adamw:beta2=1"])
def test_options_that_teach_nonsense_are_refused(spec):
    with pytest.raises(InputError, match=r"below 1, got|takes 1 to 100, got"):
        registry.optimizer.get(spec)(nn.Linear(2, 2), 1e-3, 0.0)


def test_a_weight_without_gradient_stays():
    net = network()
    before = net[1].weight.detach().clone()
    optimizer = registry.optimizer.get("muon")(net, 1e-2, 0.1)
    net[4](torch.randn(2, 8)).sum().backward()
    optimizer.step()
    assert torch.equal(net[1].weight, before)
