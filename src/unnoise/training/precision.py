"""Choose the precision of a training, and train in it."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unnoise import distributed
from unnoise.device import fast_bf16
from unnoise.diffusion.model import Diffusion
from unnoise.types import Images, Labels, Output, PerImage, Transform

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(asked: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16: what was asked for, or by "auto" what the instructions of the device make fast.

    The choice depends on the device alone, never on a measurement. fp16 exists on CUDA only; elsewhere it becomes fp32.
    """
    if asked == "fp16" and device.type != "cuda":
        return "fp32"
    if asked != "auto":
        return asked
    if fast_bf16(device):
        return "bf16"
    if device.type != "cuda" or "GTX 16" in torch.cuda.get_device_name():  # GTX 16 cards give NaN in fp16
        return "fp32"
    return "fp16" if torch.cuda.get_device_capability() >= (7, 0) else "fp32"  # tensor cores


def memory_layout(network: nn.Module, device: torch.device, precision: str) -> torch.memory_format:
    """Return channels last, or channels first where the GroupNorm of channels last is slow.

    That is so for bf16 on a CPU if a group has not 16, 32, ... channels: up to 15 times as slow on small maps.
    """
    norms = (module for module in network.modules() if isinstance(module, nn.GroupNorm))
    slow = device.type == "cpu" and precision == "bf16" and any(m.num_channels // m.num_groups % 16 for m in norms)
    return torch.contiguous_format if slow else torch.channels_last


def place_network(network: Any, device: torch.device, precision: str) -> None:  # PyTorch types `to` in several ways
    """Move a network to a device, in the memory layout that is fast there."""
    network.to(device, memory_format=memory_layout(network, device, precision))


class AutocastNetwork(nn.Module):
    """Compute a network in lower precision, and return its output in fp32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: Images, time: PerImage, label: Labels | None = None, *transform: Transform) -> Output:
        with torch.autocast(x.device.type, self.dtype):
            result: Tensor = self.network(x, time, label, *transform)
        return result.float()


def lower_precision(network: nn.Module, precision: str) -> nn.Module:
    """Return a network that computes in this precision."""
    return AutocastNetwork(network, DTYPES[precision]) if precision in DTYPES else network


def wrap_network(network: nn.Module, precision: str, device: torch.device) -> nn.Module:
    """Return the network that trains: in lower precision if asked for, and with gradients shared by all processes."""
    wrapped = lower_precision(network, precision)
    if distributed.world_size() == 1:
        return wrapped
    return DistributedDataParallel(wrapped, device_ids=[device.index] if device.type == "cuda" else None)


def plain_network(model: Diffusion) -> nn.Module:
    """Return the network of a model without the wrappers of `wrap_network`."""
    network = model.backbone
    network = network.module if isinstance(network, DistributedDataParallel) else network
    return network.network if isinstance(network, AutocastNetwork) else network


class Precision:
    """Do what differs between precisions: gradients in fp16 need a loss scale (Micikevicius et al. 2018)."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which networks are computed in this precision."""
        return torch.autocast(self.device.type, DTYPES.get(self.name), enabled=self.name in DTYPES)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm(self, optimizer: torch.optim.Optimizer, model: nn.Module, most: float) -> float:
        """Scale gradients down to a norm of `most`, and return the norm they had."""
        if self.scaler:
            self.scaler.unscale_(optimizer)
        return float(nn.utils.clip_grad_norm_(model.parameters(), most))

    def step(self, optimizer: torch.optim.Optimizer, *, finite: bool) -> None:
        """Take a step of the optimizer if loss and gradient are finite; the loss scaler learns of both."""
        if self.scaler:
            self.scaler.step(optimizer)  # skips by itself
            self.scaler.update()
        elif finite:
            optimizer.step()

    @property
    def state(self) -> dict[str, Any]:
        """Return the loss scale."""
        return self.scaler.state_dict() if self.scaler else {}

    def load_state(self, saved: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        if self.scaler and saved:
            self.scaler.load_state_dict(saved)
