"""Each objective is its equation on a network whose error is known."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unnoise import registry
from unnoise.diffusion.level import Level
from unnoise.diffusion.likelihood import bound
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.target import encode
from unnoise.errors import InputError


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("target", registry.target.names())
def test_weights_are_those_of_the_papers(target):
    """An error of d in x0 is an error of d alpha / sigma in eps: the squared error of x0 times the SNR."""
    table, kind, wrong = registry.schedule.get("cosine")(), registry.target.get(target), 0.1
    x0, noise = torch.randn(2, 4, 1, 2, 2)
    t, s = (table.level(torch.tensor([5, 300, 700, 990]) - i) for i in range(2))
    batch = add_noise(x0, noise, (t, s))

    class Wrong(nn.Module):
        def forward(self, x, time, label):
            return encode(x0 + wrong, noise - wrong * t.alpha / t.sigma, t, kind)

    beta = table.betas[t.time.long()]
    model, snr, error = Diffusion(Wrong(), table, kind, (1, 2, 2)), t.snr.flatten(), wrong**2
    expected = {
        "capped_v": error * torch.minimum(snr + 1, torch.tensor(5.0)),
        "min_snr": error * torch.minimum(snr + 1, torch.tensor(5.0)),  # its name in version 0.1.0
        "min_snr_gamma": error * torch.minimum(snr, torch.tensor(5.0)),
        "min_snr_gamma:gamma=0.5": error * torch.minimum(snr, torch.tensor(0.5)),
        "soft_min_snr": error / (1 / snr + 1 / 4),
        "soft_min_snr:gamma=2": error / (1 / snr + 1 / 2),
        "weighted": error * snr * beta**2 / (2 * beta * (1 - beta) * t.sigma.flatten() ** 2),
        "p2": error * snr / (1 + snr),
        "p2:k=2,gamma=0.5": error * snr / (2 + snr) ** 0.5,
        "simple": error * {"x0": torch.ones(4), "eps": snr, "v": snr + 1, "flow": (1 + snr.sqrt()) ** 2}[target],
    }
    if target == "v":  # (sigma + alpha^2 / sigma)^2 = 1 / sigma^2 = SNR + 1
        assert_close(snr + 1, 1 / t.sigma.flatten() ** 2)
    for spec, losses in expected.items():
        assert_close(registry.objective.get(spec)(model, batch), losses)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("progress", "cap"), [(0.0, 20), (1 / 3, 10), (1.0, 2.5)])
def test_the_cap_changes_geometrically_over_a_training(progress, cap):
    table = registry.schedule.get("cosine")()
    x0, noise = torch.randn(2, 4, 1, 2, 2)
    t, s = (table.level(torch.tensor([5, 300, 700, 990]) - i) for i in range(2))
    batch = add_noise(x0, noise, (t, s))
    model = Diffusion(Fixed(x0 + 0.1), table, registry.target.get("x0"), (1, 2, 2))
    falling, fixed = (registry.objective.get(f"capped_v:gamma={spec}") for spec in ("2.5,first=20", str(cap)))
    batch = batch._replace(progress=progress)
    assert_close(falling(model, batch), fixed(model, batch))
    assert batch.part(slice(1, 3)).progress == progress


@pytest.mark.parametrize("spec", ["first=0", "gamma=0", "first=-1", "gamma=-5,first=-5"])
def test_caps_are_above_zero(spec):
    table = registry.schedule.get("cosine")()
    x0, noise = torch.randn(2, 1, 1, 2, 2)
    batch = add_noise(x0, noise, (table.level(torch.tensor([5])), table.level(torch.tensor([4]))))
    model = Diffusion(Fixed(x0), table, registry.target.get("x0"), (1, 2, 2))
    with pytest.raises(InputError, match="gamma and first are above 0"):
        registry.objective.get(f"capped_v:{spec}")(model, batch)
    if not spec.startswith("first"):
        with pytest.raises(InputError, match="gamma is above 0"):
            registry.objective.get(f"min_snr_gamma:{spec.partition(',')[0]}")(model, batch)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_min_snr_gamma_is_the_weight_of_hang_et_al(target):
    """Section 3.4 of the paper: the weight of the plain loss of each target, at SNR from 1e-5 to 1e4."""
    snr, gamma, wrong = torch.tensor([1e-5, 1e-3, 0.5, 1.0, 4.9, 5.1, 1e2, 1e4]), 5.0, 0.1
    weight = {
        "eps": torch.minimum(snr, torch.tensor(gamma)) / snr,
        "x0": torch.minimum(snr, torch.tensor(gamma)),
        "v": torch.minimum(snr, torch.tensor(gamma)) / (snr + 1),
    }[target]
    alpha, sigma = ((part / (snr + 1)).sqrt().reshape(-1, 1, 1, 1) for part in (snr, torch.ones(())))
    t = Level(torch.arange(8.0), alpha, sigma)
    x0, noise = torch.randn(2, 8, 1, 2, 2)
    kind = registry.target.get(target)
    model = Diffusion(Fixed(encode(x0, noise, t, kind) + wrong), registry.schedule.get("cosine")(), kind, (1, 2, 2))
    losses = registry.objective.get("min_snr_gamma")(model, add_noise(x0, noise, (t, t)))
    assert_close(losses, weight * wrong**2)


class Fixed(nn.Module):
    """A network that always returns this output."""

    def __init__(self, output):
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x, time, label):
        return self.output


@pytest.mark.usefixtures("float64")
def test_mean_of_the_bound_objective_is_the_bound():
    """The sum over all levels is `likelihood.bound` with the learned variance, without its first term."""
    table = registry.schedule.get("linear:T=20,end=0.3")()
    t = torch.arange(20)
    x0, noise = torch.randn(1, 1, 2, 2).clamp(-1, 1).expand(20, -1, -1, -1), torch.randn(20, 1, 2, 2)
    batch = add_noise(x0, noise, (table.level(t), table.level(t - 1)))
    output = torch.randn(20, 2, 2, 2).tanh()
    model = Diffusion(Fixed(output), table, registry.target.get("eps"), (1, 2, 2))
    each = registry.objective.get("bound")(model, batch)

    def denoise(x_t, level):
        return model.read(output[int(level.time)][None], x_t, level)

    drawn = iter(noise.flip(0))
    total = bound(denoise, x0[:1], table.grid(20), variance="learned", randn_like=lambda _: next(drawn)[None])
    assert_close(each.flip(0) / 20, total.terms[0])


@pytest.mark.parametrize("time", [0, 1, 500])
def test_hybrid_is_simple_and_a_share_of_the_bound_that_teaches_the_variance_alone(time):
    table = registry.schedule.get("cosine")()
    x0, noise = torch.rand(2, 2, 1, 2, 2) * 2 - 1
    batch = add_noise(x0, noise, (table.level(torch.tensor([time, 7])), table.level(torch.tensor([time - 1, 6]))))
    output = torch.randn(2, 2, 2, 2).tanh()
    gradients = {}
    for spec in ("hybrid:bound=0.25", "hybrid:bound=0", "bound"):
        model = Diffusion(Fixed(output.clone()), table, registry.target.get("eps"), (1, 2, 2))
        loss = registry.objective.get(spec)(model, batch)
        loss.sum().backward()
        gradients[spec] = (loss.detach(), *model.backbone.output.grad.split(1, dim=1))
    (mixed, mean, spread), (simple, mean_simple, none), (whole, mean_whole, spread_whole) = gradients.values()
    assert_close(mixed, simple + 0.25 * whole)
    assert_close(mean, mean_simple)
    assert_close(spread, 0.25 * spread_whole)
    assert mean_whole.abs().max() > 0
    assert none.abs().max() == 0
    assert spread_whole.isfinite().all()
