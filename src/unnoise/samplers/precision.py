"""How long a call of a network takes here, and the precision that takes the least."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch

from unnoise.device import fast_bf16, synchronize
from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Diffusion, Prediction
from unnoise.types import Images

Precision = Literal["fp32", "bf16"]

FEW = 16  # images that a precision is tried on
GAIN = 1.25  # times as fast, for bf16 to be taken: by less, noise of the clock would decide how pictures are drawn


def timed(work: Callable[[], object]) -> float:
    """Seconds it takes, the second time: the first is slower."""
    with torch.inference_mode():
        for _ in range(2):
            begun = time.monotonic()
            work()
            spent = synchronize() - begun
    return spent


def seconds_per_image(model: Diffusion, batch: int = 16, precision: Precision = "fp32") -> float:
    """Seconds that a call of the network takes for a picture, by one on a few."""
    level, some = model.schedule.level(model.schedule.T // 2), torch.zeros(batch, *model.shape, device=model.device)
    denoise = with_precision(precision, model)
    return timed(lambda: denoise(some, level)) / batch


def with_precision(precision: Precision, denoise: Denoiser) -> Denoiser:
    """The same in fp32, or with the products and convolutions inside a call in bf16; between calls all stays fp32."""

    def in_bf16(x_t: Images, level: Level) -> Prediction:
        with torch.autocast(x_t.device.type, torch.bfloat16):
            return denoise(x_t, level)

    return in_bf16 if precision == "bf16" else denoise


def fastest(model: Diffusion) -> Precision:
    """bf16 where this network is clearly faster in it on its device, else fp32."""
    return tried(model, model.device)


@lru_cache(maxsize=1)
def tried(model: Diffusion, device: torch.device) -> Precision:
    if not fast_bf16(device):
        return "fp32"
    try:
        turns = [(seconds_per_image(model, FEW, "bf16"), seconds_per_image(model, FEW)) for _ in range(2)]
    except torch.OutOfMemoryError:  # of a GPU, where a smaller batch may have been asked for
        return "fp32"
    bf16, fp32 = map(min, zip(*turns, strict=True))
    return "bf16" if GAIN * bf16 < fp32 else "fp32"
