"""Each objective is its equation: on a network that is wrong by a known amount."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unnoise import registry
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.target import encode


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("target", registry.target.names())
def test_weights_are_those_of_the_papers(target):
    """With x0 wrong by d everywhere, eps is wrong by d alpha / sigma: its squared error is that of x0 times SNR."""
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
        "min_snr": error * torch.minimum(snr + 1, torch.tensor(5.0)),
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
