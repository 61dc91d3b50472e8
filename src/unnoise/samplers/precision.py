"""Choose the precision that a network samples in, compute in it, and measure how long a call of the network takes."""

import time
from collections.abc import Callable
from typing import Literal

import torch

from unnoise.device import describe_device, fast_bf16, synchronize
from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Diffusion, Prediction
from unnoise.types import Images

Precision = Literal["fp32", "bf16"]


def choose_precision(requested: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Return the requested precision; "auto" is bf16 on a device whose instructions make it fast, else fp32."""
    if requested == "auto":
        return "bf16" if fast_bf16(device) else "fp32"
    return requested


def describe_precision(precision: Precision, device: torch.device) -> str:
    """Return the line that the commands print, such as "precision bf16 (cpu with AMX)"."""
    return f"precision {precision} ({describe_device(device)})"


def with_precision(precision: Precision, denoise: Denoiser) -> Denoiser:
    """Return a denoiser that computes matrix products and convolutions in this precision.

    Only a call of the network is in bf16. Between calls, the sampler computes in fp32.
    """

    def in_bf16(x_t: Images, level: Level) -> Prediction:
        with torch.autocast(x_t.device.type, torch.bfloat16):
            return denoise(x_t, level)

    return in_bf16 if precision == "bf16" else denoise


def seconds_per_image(model: Diffusion, batch: int = 16, precision: Precision = "fp32") -> float:
    """Measure the seconds per image of one call of the network. Plans print it; it never decides a precision."""
    level, zeros = model.schedule.level(model.schedule.T // 2), torch.zeros(batch, *model.shape, device=model.device)
    denoise = with_precision(precision, model)
    return measure_seconds(lambda: denoise(zeros, level)) / batch


def measure_seconds(work: Callable[[], object]) -> float:
    """Return the seconds of the second call of `work`; the first one is slower, since kernels are made for it."""
    with torch.inference_mode():
        for _ in range(2):
            begun = time.monotonic()
            work()
            spent = synchronize() - begun
    return spent
