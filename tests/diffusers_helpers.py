"""Short ways to run the schedulers of diffusers with our networks."""

import pytest
from torch import nn

PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
float32_inside = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy 2


class Theirs(nn.Module):
    """A network of diffusers as our backbone."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, time, label=None):
        return self.net(x, time).sample


def their_states(scheduler, model, x, **options):
    """Run a scheduler of diffusers with the outputs of our model."""
    states = []
    for i, t in enumerate(scheduler.timesteps):
        output = model.output(x, model.schedule.level(t))
        extra = {key: value[i] if isinstance(value, list) else value for key, value in options.items()}
        x = scheduler.step(output, t, x, **extra).prev_sample
        states.append(x)
    return states


def exact_table(scheduler, model):
    """Give a scheduler our float64 table: theirs is made of float32 betas, which is all that sets us apart."""
    scheduler.alphas_cumprod = model.schedule.alphas_cumprod
    return scheduler
