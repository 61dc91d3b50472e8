"""Short ways to run samplers in tests: a toy network, Gaussian data, and the exact error."""

import torch
from torch import nn
from torch.testing import assert_close

from process_helpers import schedule
from unnoise import registry
from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.schedule import Levels
from worlds import Gaussian

SHAPE = (3, 8, 8)
PIXELS = (1, 1, 3)
GAUSSIAN = Gaussian(
    torch.tensor([-0.8, 0.1, 0.6], dtype=torch.float64).reshape(PIXELS),
    torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64).reshape(PIXELS),
)


class Toy(nn.Module):
    """A network too small to be good: smooth, bounded, different at each time."""

    def __init__(self, channels=SHAPE[0], outputs=SHAPE[0]):
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, outputs, 3, padding=1)

    def forward(self, x, time, label=None):
        phase = (time[:, None] / 100 + torch.arange(8)).sin()[:, :, None, None]
        return self.last(torch.tanh(self.first(x) + phase))


FIRST, LAST = schedule("linear").level(800.5), schedule("linear").level(50.25)


def diffusion(target="x0", scheduled="linear", backbone=None):
    return Diffusion(backbone or Toy(), schedule(scheduled), registry.target.get(target), SHAPE).requires_grad_(False)


def steps_of(spec, denoise, x, levels, randn_like=torch.randn_like):
    return list(registry.sampler.get(spec)(denoise, x, levels, randn_like=randn_like))


def replay(noises):
    """Return a noise source that gives these tensors, one after the other."""
    queue = iter(noises)
    return lambda _: next(queue)


def agree(ours, theirs, atol):
    """Compare two lists of states, in units of the largest value (of 1 if all are smaller)."""
    ours, theirs = torch.stack(list(ours)).double(), torch.stack(list(theirs)).double()
    scale = max(1.0, theirs.abs().max().item())
    assert_close(ours / scale, theirs / scale, rtol=0, atol=atol)


def between(first, last, steps):
    """Return levels evenly spaced in half_log_snr, both ends included and neither clean."""
    lam = torch.linspace(first.half_log_snr, last.half_log_snr, steps + 1, dtype=torch.float64)
    return Levels(tuple(map(preserving, lam)), schedule("linear"))


def preserving(lam):
    """Return the variance-preserving level of a half_log_snr, with its time on the linear schedule."""
    return Level(schedule("linear").time(lam), torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt())


def error(spec, levels, x):
    """Return the root mean square distance at the end from the exact flow of Gaussian data."""
    *_, last = steps_of(spec, GAUSSIAN, x, levels)
    return float((last.x - GAUSSIAN.flow(x, levels[0], levels[-1])).square().mean().sqrt())


def counted(denoise):
    """Return the denoiser, and a list that gets the level of each call."""
    calls = []

    def noted(x, level):
        calls.append(level)
        return denoise(x, level)

    return noted, calls
