"""The protocol of a denoiser, and the learned denoiser: backbone + schedule + target."""

from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unnoise.diffusion.level import Level
from unnoise.diffusion.process import noise_of
from unnoise.diffusion.schedule import Schedule
from unnoise.diffusion.target import Target, check_target, decode
from unnoise.types import Images, Labels, Output, PerImage, Transform


class Prediction(NamedTuple):
    """Hold the predicted image and noise of `x_t = alpha * x0 + sigma * eps`."""

    x0: Images
    eps: Images
    variance: Images | None = (
        None  # in [0, 1], if it is learned; `process.reverse_variance` turns it into the variance of a step
    )


@runtime_checkable
class Denoiser(Protocol):
    """Estimate the clean image and the noise in x_t; wrappers are functions `Denoiser -> Denoiser`."""

    def __call__(self, x_t: Images, level: Level) -> Prediction: ...


class Diffusion(nn.Module):
    """Combine a network, a schedule and a target into a learned denoiser; `model.given(label)` adds labels.

    Args:
        backbone: A network called as network(x, time, label): images [b, c, h, w], times [b] and labels [b] or None,
            to an output of the size of x. It has c channels, or 2c if the variance is learned.
        schedule: The noise schedule.
        target: The coefficients (a, b) of the output a * x0 + b * eps at a level.
        shape: (channels, height, width) of an image.
        classes: The names of the classes.

    Raises:
        InputError: The target determines no image at some level of the schedule.
    """

    def __init__(
        self,
        backbone: nn.Module,
        schedule: Schedule,
        target: Target,
        shape: tuple[int, int, int],
        classes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        check_target(target, schedule)
        self.backbone, self.schedule, self.target = backbone, schedule, target
        self.shape, self.classes = shape, classes

    @property
    def device(self) -> torch.device:
        """Find the device of the weights.

        Returns:
            The device of the first weight.
        """
        return next(self.parameters()).device

    def output(self, x_t: Images, level: Level, label: Labels | None = None) -> Output:
        """Return the raw output of the network [b, k, h, w], in the units of the target; a learned variance comes last.

        Args:
            x_t: Noisy images [b, c, h, w].
            level: Their noise level.
            label: Classes [b]; -1 is no class.

        Returns:
            The output [b, k, h, w]; k is c, or 2c if the variance is learned.
        """
        time = level.time.to(x_t.device, torch.float32).expand(len(x_t))
        result: Tensor = self.backbone(x_t, time, label)
        return result.to(x_t.dtype)

    def forward(self, x_t: Images, level: Level, label: Labels | None = None) -> Prediction:
        """Predict the image and the noise in x_t.

        Args:
            x_t: Noisy images [b, c, h, w].
            level: Their noise level.
            label: Classes [b]; -1 is no class.

        Returns:
            The prediction: x0 and eps [b, c, h, w], and the variance if it is learned.
        """
        return self.read(self.output(x_t, level, label), x_t, level)

    def given(self, label: Labels | None) -> Denoiser:
        """Return the denoiser of images with these labels [b].

        Returns:
            A denoiser (x_t, level) -> prediction.
        """
        return self if label is None else partial(self, label=label.to(self.device))

    def transformed(self, transform: Transform | None) -> "Diffusion":
        """Return the same model, conditioned on the transforms of its images; None leaves it as it is.

        Returns:
            A model with the same weights, whose network is called as network(x, time, label, transform).
        """
        if transform is None:
            return self
        network = TransformedNetwork(self.backbone, transform)
        return Diffusion(network, self.schedule, self.target, self.shape, self.classes)

    def read(self, output: Output, x_t: Images, level: Level) -> Prediction:
        """Turn an output of the network for x_t at a level into a prediction.

        Args:
            output: The output [b, k, h, w] of `output`.
            x_t: The noisy images [b, c, h, w].
            level: Their noise level.

        Returns:
            The prediction.
        """
        output, *variance = torch.split(output, self.shape[0], dim=1)
        return Prediction(*decode(output, x_t, level, self.target), *((part + 1) / 2 for part in variance))


class TransformedNetwork(nn.Module):
    """Call a network with the transforms of its images."""

    def __init__(self, network: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.network, self.transform = network, transform

    def forward(self, x: Images, time: PerImage, label: Labels | None = None) -> Output:
        output: Tensor = self.network(x, time, label, self.transform)
        return output


def clip_x0(denoise: Denoiser) -> Denoiser:
    """Return a denoiser that keeps the predicted image in [-1, 1], and the noise consistent with the image."""

    def clipped(x_t: Images, level: Level) -> Prediction:
        predicted = denoise(x_t, level)
        return with_x0(predicted, predicted.x0.clamp(-1, 1), x_t, level)

    return clipped


def with_x0(predicted: Prediction, x0: Images, x_t: Images, level: Level) -> Prediction:
    """Return a prediction with another image x0, and the noise that is consistent with x0."""
    return predicted._replace(x0=x0, eps=noise_of(x_t, x0, level))
