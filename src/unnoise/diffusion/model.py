"""A denoiser, and the one that is learned: backbone + schedule + target."""

from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unnoise.diffusion.level import Level
from unnoise.diffusion.schedule import Schedule
from unnoise.diffusion.target import Target, check, decode
from unnoise.types import Images, Labels, Output


class Prediction(NamedTuple):
    """What is believed of `x_t = alpha * x0 + sigma * eps`."""

    x0: Images
    eps: Images
    variance: Images | None = None  # where learned: `process.reverse_variance` makes one of it, for any step


@runtime_checkable
class Denoiser(Protocol):
    """Anything that estimates the clean image and the noise in x_t; wrappers are `Denoiser -> Denoiser`."""

    def __call__(self, x_t: Images, level: Level) -> Prediction: ...


class Diffusion(nn.Module):
    """The learned denoiser. `shape` is (channels, height, width); labels by `model.given(label)`."""

    def __init__(
        self,
        backbone: nn.Module,
        schedule: Schedule,
        target: Target,
        shape: tuple[int, int, int],
        classes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        check(target, schedule)
        self.backbone, self.schedule, self.target = backbone, schedule, target
        self.shape, self.classes = shape, classes

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def output(self, x_t: Images, level: Level, label: Labels | None = None) -> Output:
        """The raw output of the network, in the units of the target; the learned variance last."""
        time = level.time.to(x_t.device, torch.float32).expand(len(x_t))
        result: Tensor = self.backbone(x_t, time, label)
        return result.to(x_t.dtype)

    def forward(self, x_t: Images, level: Level, label: Labels | None = None) -> Prediction:
        return self.read(self.output(x_t, level, label), x_t, level)

    def given(self, label: Labels | None) -> Denoiser:
        """The denoiser of images with these labels."""
        return self if label is None else partial(self, label=label.to(self.device))

    def read(self, output: Output, x_t: Images, level: Level) -> Prediction:
        """What an output of the network says of x_t."""
        output, *variance = torch.split(output, self.shape[0], dim=1)
        return Prediction(*decode(output, x_t, level, self.target), *((part + 1) / 2 for part in variance))


def clip_x0(denoise: Denoiser) -> Denoiser:
    """Keep the predicted image in [-1, 1], and the noise consistent with it."""

    def clipped(x_t: Images, level: Level) -> Prediction:
        predicted = denoise(x_t, level)
        return with_x0(predicted, predicted.x0.clamp(-1, 1), x_t, level)

    return clipped


def with_x0(predicted: Prediction, x0: Images, x_t: Images, level: Level) -> Prediction:
    """The same with another image, and the noise consistent with it."""
    return predicted._replace(x0=x0, eps=(x_t - level.alpha.to(x_t) * x0) / level.sigma.to(x_t))
