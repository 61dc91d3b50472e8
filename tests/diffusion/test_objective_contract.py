"""Every objective is zero for a perfect network."""

import pytest
import torch
from torch import nn

from unnoise import registry
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.times import Uniform
from unnoise.training.checks import learned_variance


@pytest.mark.parametrize("name", registry.objective.names())
@pytest.mark.parametrize("target", registry.target.names())
def test_every_objective_is_zero_for_a_perfect_network_and_positive_otherwise(name, target):
    from unnoise.diffusion.model import Diffusion
    from unnoise.diffusion.target import encode

    schedule, aim = registry.schedule.get("linear")(), registry.target.get(target)
    x0, eps = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    batch = add_noise(x0, eps, Uniform(schedule).levels(4, torch.Generator().manual_seed(0)))

    class Perfect(nn.Module):
        shift = 0.0

        def forward(self, x, time, label=None):
            variance = [-torch.ones_like(x)] if learned_variance(name) else []  # the posterior's
            return torch.cat([encode(x0, eps, batch.t, aim) + self.shift, *variance], dim=1)

    network = Perfect()
    model = Diffusion(network, schedule, aim, (3, 8, 8))
    objective = registry.objective.get(name)
    torch.testing.assert_close(objective(model, batch), torch.zeros(4, dtype=torch.float64), atol=1e-10, rtol=0)
    network.shift = 1.0
    assert (objective(model, batch) > 0).all()


def test_simple_loss_is_the_notebooks_mse():
    schedule = registry.schedule.get("linear")()
    x0, eps = torch.randn(2, 4, 3, 8, 8)
    batch = add_noise(x0, eps, Uniform(schedule).levels(4, torch.Generator().manual_seed(0)))
    network = registry.backbone.get("unet:widths=8-16,layers=1,groups=4,head=8,zero_init=false")(3)
    from unnoise.diffusion.model import Diffusion

    model = Diffusion(network, schedule, registry.target.get("eps"), (3, 8, 8))
    literal = nn.functional.mse_loss(network(batch.x_t, batch.t.time.float()), eps)
    torch.testing.assert_close(registry.objective.get("simple")(model, batch).mean(), literal)
