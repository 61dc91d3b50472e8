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

LR = 1e-3  # of an optimizer that declares none


def make_optimizer(config: TrainConfig) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Return a function that makes the optimizer of the settings for a network."""
    return partial(registry.optimizer.get(config.optimizer), lr=peak_lr(config), weight_decay=config.weight_decay)


def peak_lr(config: TrainConfig) -> float:
    """Return the learning rate of the settings, or the one that the optimizer declares."""
    return registry.optimizer.declared(config.optimizer).get("lr", LR) if config.lr is None else config.lr


def set_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Load the state that was saved by the number of the parameter, in the memory layout of the parameters."""
    groups = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def laid_out(value: Any, p: Tensor) -> Any:
        alike = isinstance(value, Tensor) and value.shape == p.shape
        return torch.empty_like(p, dtype=value.dtype).copy_(value) if alike else value

    state = {
        int(i): {name: laid_out(value, parameters[int(i)]) for name, value in values.items()}
        for i, values in saved.items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": groups})


@optimizer.declare(lr=1e-3)
def adamw(network: nn.Module, lr: float, weight_decay: float, *, beta1: float = 0.9, beta2: float = 0.999) -> Any:
    """Take Adam steps with decoupled weight decay, Loshchilov & Hutter 2019 (arXiv:1711.05101).

    Args:
        network: the network to train.
        lr: learning rate.
        weight_decay: share of the weights that is lost in a step, times lr.
        beta1: share of the past in the mean of the gradients, 0 or more and below 1.
        beta2: share of the past in the mean of their squares, 0 or more and below 1.

    Raises:
        InputError: beta1 or beta2 is out of range.
    """
    check_shares("adamw", beta1=beta1, beta2=beta2)
    on_cpu = all(p.device.type == "cpu" for p in network.parameters())  # one pass over the memory pays there
    betas = (beta1, beta2)
    return torch.optim.AdamW(network.parameters(), lr, betas, weight_decay=weight_decay, fused=on_cpu or None)


MAX_ITERATIONS = 100  # of muon; 5 are enough


@optimizer.declare(lr=3e-3)
def muon(  # the options of the optimizer
    network: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    momentum: float = 0.95,
    iterations: int = 5,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> Any:
    """Take orthogonal steps for the weights of layers, Jordan et al. 2024 (Muon), and AdamW steps for the rest.

    The steps have the size of Liu et al. 2025 (arXiv:2502.16982), eq. 4, so that `lr` means the same for both.

    Args:
        network: the network to train.
        lr: learning rate.
        weight_decay: share of the weights that is lost in a step, times lr.
        momentum: share of the past in the direction of a step, 0 or more and below 1.
        iterations: of the polynomial that makes a step orthogonal, 1 to 100.
        beta1: of AdamW.
        beta2: of AdamW.

    Raises:
        InputError: an option is out of range.
    """
    check_shares("muon", momentum=momentum, beta1=beta1, beta2=beta2)
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise InputError(f"optimizer muon: iterations takes 1 to {MAX_ITERATIONS}, got {iterations}")
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}  # rows, not a matrix
    parameters = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim >= 2 and id(p) not in tables]
    rest = [p for p in parameters if p.ndim < 2 or id(p) in tables]
    return Muon(matrices, rest, lr, weight_decay, momentum, iterations, (beta1, beta2))


def check_shares(name: str, **options: float) -> None:
    """Raise InputError if an option is not 0 or more and below 1."""
    for option, value in options.items():
        if not 0 <= value < 1:
            raise InputError(f"optimizer {name}: {option} is 0 or more and below 1, got {value:g}")
