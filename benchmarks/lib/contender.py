"""Describe what a contender of quality_per_minute.py yields, and provide what several contenders use.

A contender is a generator. It takes uint8 images [n, h, w, c], the minutes to stop at, a seed and a folder, trains, and
yields a `Trained` at each of the minutes. If the learning rate depends on the length, each length is a run of its own.
The time between two values does not count as training. With one thread, time is that of the processor, so other work on
the machine takes nothing from a contender.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

Pixels = np.ndarray  # uint8 [n, h, w, c]
Draw = Callable[[int, int], Pixels]  # number, seed -> images
T = 1000


class Trained(NamedTuple):
    """A contender after some minutes of training."""

    minutes: float
    images: int  # seen
    parameters: int
    draws: dict[str, Draw]  # by the name of the sampler
    summary: dict[str, float] | None = None  # the last row of the log, if another process trained


def clock() -> float:
    """Return the seconds of the processor for one thread, and those of the clock for several threads or a GPU."""
    one = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if one else time.monotonic()


def until(minutes: list[float], step: Callable[[], object]) -> Iterator[float]:
    """Call `step` until each of the minutes is over, and yield it; the caller's own time does not count."""
    spent = 0.0
    for mark in minutes:
        while spent < 60 * mark:
            begun = clock()
            step()
            spent += clock() - begun
        yield mark


def shuffled(images: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    """Yield batches of float images in [-1, 1], epoch after epoch."""
    while True:
        for rows in torch.randperm(len(images)).split(batch):
            yield images[rows]


def to_float(images: Pixels) -> torch.Tensor:
    """Return images as floats in [-1, 1], [n, c, h, w]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1


def to_uint8(x: torch.Tensor) -> Pixels:
    """Return images [n, c, h, w] in [-1, 1] as uint8 [n, h, w, c]."""
    return ((x.cpu() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def unet2d(channels: int, size: int, widths: tuple[int, ...], layers: int) -> nn.Module:
    """Return the notebook's network, which is one of diffusers."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=layers,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
    )


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(p.numel() for p in network.parameters())
