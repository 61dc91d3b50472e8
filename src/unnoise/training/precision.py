"""The accelerator, and the precision that pays on it."""

import os
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from unnoise.config import TrainConfig
from unnoise.device import fast_bf16
from unnoise.errors import InputError

ENGINES = ("FSDP", "DEEPSPEED", "MEGATRON_LM")  # of accelerate, that this does not know
TRY = 1.0  # seconds that a step may take to compare precisions


def precision_for(network: nn.Module, config: TrainConfig, shape: tuple[int, int, int]) -> str:
    return choose(config.precision, lambda: gains(network, shape, config.batch))


def make_accelerator(precision: str) -> Accelerator:
    """One at a time: all of a process share the precision of the last."""
    for engine in ENGINES:
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true":
            raise InputError(f"several processes train by DDP, every one with all weights; start them without {engine}")
    AcceleratorState._reset_state()  # else it could not choose another one
    cpu = not torch.accelerator.is_available()
    return Accelerator(cpu=cpu, mixed_precision="no" if precision == "fp32" else precision)


def layout(network: nn.Module, device: torch.device, precision: str) -> torch.memory_format:
    """Channels last, but for bf16 on a CPU where a norm's groups are not of 16, 32, ... channels.

    Without these, GroupNorm of small maps takes up to 15 times as long there.
    """
    norms = (module for module in network.modules() if isinstance(module, nn.GroupNorm))
    slow = device.type == "cpu" and precision == "bf16" and any(m.num_channels // m.num_groups % 16 for m in norms)
    return torch.contiguous_format if slow else torch.channels_last


def place(network: Any, device: torch.device, precision: str) -> None:  # `to` has other types in other PyTorchs
    """Put a network on a device, in the layout for it."""
    network.to(device, memory_format=layout(network, device, precision))


def choose(wanted: str, gains: Callable[[], bool]) -> str:
    """auto: bf16 where the device gains by it, fp16 on the other tensor-core cards, fp32 elsewhere; fp16 needs CUDA."""
    if wanted == "fp16" and not torch.cuda.is_available():
        return "fp32"
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        if fast_bf16(torch.device("cuda")):
            return "bf16"
        slow = "GTX 16" in torch.cuda.get_device_name()  # no tensor cores, and known for NaN in fp16
        return "fp32" if slow or torch.cuda.get_device_capability() < (7, 0) else "fp16"
    if torch.backends.mps.is_available():
        return "fp32"
    return "bf16" if fast_bf16(torch.device("cpu")) and gains() else "fp32"


def gains(network: nn.Module, shape: tuple[int, int, int], batch: int) -> bool:
    """Whether this network learns faster in bf16 on this processor, which not all do that compute in it.

    By a tenth at least, so that noise does not decide. Times a few steps in turn, of a whole batch where that is quick:
    of few images bf16 gains less. Weights and random streams stay.
    """
    learned = [p for p in network.parameters() if p.requires_grad]

    def seconds(size: int, bf16: bool) -> float:
        x, t = torch.zeros(size, *shape), torch.zeros(size)
        place(network, x.device, "bf16" if bf16 else "fp32")
        begun = time.monotonic()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = network(x, t).float().square().mean()
        torch.autograd.grad(loss, learned, allow_unused=True)
        return time.monotonic() - begun

    with torch.random.fork_rng():
        size = 1
        while size < batch and 4 * min(seconds(size, False) for _ in range(2)) < TRY:  # the first of a size is slower
            size = min(batch, 4 * size)
        turns = [(seconds(size, True), seconds(size, False)) for _ in range(4)]
    return min(bf16 for bf16, _ in turns) < 0.9 * min(fp32 for _, fp32 in turns)
