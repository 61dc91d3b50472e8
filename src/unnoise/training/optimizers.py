"""Optimizers: (network, lr, weight_decay) -> torch.optim.Optimizer."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unnoise import registry
from unnoise.config import TrainConfig
from unnoise.errors import InputError
from unnoise.registry import optimizer
from unnoise.training.muon import Muon


def as_configured(config: TrainConfig) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return partial(registry.optimizer.get(config.optimizer), lr=config.lr, weight_decay=config.weight_decay)


def with_state(optimizer: Any, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Give it the slots that were saved by the number of the parameter, laid out in memory as the parameters are."""
    groups = optimizer.state_dict()["param_groups"]
    every = [p for group in optimizer.param_groups for p in group["params"]]

    def laid_out(value: Any, p: Tensor) -> Any:
        alike = isinstance(value, Tensor) and value.shape == p.shape
        return torch.empty_like(p, dtype=value.dtype).copy_(value) if alike else value

    slots = {
        int(i): {name: laid_out(value, every[int(i)]) for name, value in slot.items()} for i, slot in saved.items()
    }
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


@optimizer
def adamw(network: nn.Module, lr: float, weight_decay: float, *, beta1: float = 0.9, beta2: float = 0.999) -> Any:
    """Loshchilov & Hutter 2019 (arXiv:1711.05101): Adam with decoupled weight decay."""
    shares("adamw", beta1=beta1, beta2=beta2)
    on_cpu = all(p.device.type == "cpu" for p in network.parameters())  # where one pass over the memory pays
    betas = (beta1, beta2)
    return torch.optim.AdamW(network.parameters(), lr, betas, weight_decay=weight_decay, fused=on_cpu or None)


@optimizer
def muon(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    momentum: float = 0.95,
    iterations: int = 5,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> Any:
    """Jordan et al. 2024 (Muon) for the weights of layers, AdamW for the rest.

    Of the size Liu et al. 2025 (arXiv:2502.16982), eq. 4, give the steps, `lr` means the same for both.
    """
    shares("muon", momentum=momentum, beta1=beta1, beta2=beta2)
    if iterations < 1:
        raise InputError(f"optimizer muon: iterations takes 1 or more, got {iterations}")
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}  # rows, and no matrix
    every = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in every if p.ndim >= 2 and id(p) not in tables]
    rest = [p for p in every if p.ndim < 2 or id(p) in tables]
    return Muon(matrices, rest, lr, weight_decay, momentum, iterations, (beta1, beta2))


def shares(name: str, **options: float) -> None:
    """Refuse what is no share of the past."""
    for option, value in options.items():
        if not 0 <= value < 1:
            raise InputError(f"optimizer {name}: {option} is 0 or more and below 1, got {value:g}")
