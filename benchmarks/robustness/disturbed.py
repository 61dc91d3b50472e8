"""A plugin of faults.py: the default objective and optimizer, and the fault that the variable FAULT names.

States are saved every tenth of a second here, not every minute, and a step takes 5 ms longer.
"""

import itertools
import os
import time

import torch
from torch import nn

from unnoise import registry
from unnoise.config import TrainConfig
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Noised
from unnoise.training import loop
from unnoise.types import PerImage

FAULT, _, MOST = os.environ.get("FAULT", "").partition(":")
AT = 50  # the step of a fault that happens once
loop.SAVE_EVERY, loop.SAVE_SHARE = 0.1, 1.0

undisturbed = registry.objective.get(TrainConfig().objective)
optimizers = list[torch.optim.Optimizer]()
steps = itertools.count(1)  # steps of this process


@registry.optimizer
def kept(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return the default optimizer, and keep it for the fault that damages it."""
    optimizers.append(registry.optimizer.get(TrainConfig().optimizer)(network, lr, weight_decay))
    return optimizers[-1]


@registry.objective
def disturbed(model: Diffusion, batch: Noised) -> PerImage:
    """Return the losses [b] of the default objective, after the fault if this is its step."""
    if torch.is_grad_enabled():
        time.sleep(0.005)
        cause_fault(model, batch, next(steps))
    return undisturbed(model, batch)


def cause_fault(model: Diffusion, batch: Noised, step: int) -> None:
    """Cause the fault if this is its step."""
    if FAULT == "memory" and len(batch.x0) > int(MOST):
        raise MemoryError("out of memory")
    if FAULT == "nan_always" and step > 40:
        batch.x_t[0, 0, 0, 0] = torch.nan
    if step == AT and FAULT in ONCE:
        ONCE[FAULT](model, batch)


def put_nan_into_image(_: Diffusion, batch: Noised) -> None:
    """Make one pixel of the batch NaN."""
    batch.x_t[0, 0, 0, 0] = torch.nan


def put_nan_into_gradient(model: Diffusion, _: Noised) -> None:
    """Make the gradient of one parameter NaN, in this step only."""
    hook = next(model.parameters()).register_hook(lambda grad: [hook.remove(), grad * torch.nan][1])


def put_nan_into_optimizer(_: Diffusion, __: Noised) -> None:
    """Make one tensor of the optimizer's state NaN."""
    slots = next(iter(optimizers[-1].state.values()))
    next(slot for slot in slots.values() if getattr(slot, "ndim", 0)).fill_(torch.nan)


def put_infinity_into_weight(model: Diffusion, _: Noised) -> None:
    """Make one weight infinite."""
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.inf


def set_clock_back(_: Diffusion, __: Noised) -> None:
    """Let `time.time` tell the time of a day ago."""
    now = time.time
    time.time = lambda: now() - 86_400


ONCE = {
    "nan_image": put_nan_into_image,
    "nan_gradient": put_nan_into_gradient,
    "nan_optimizer": put_nan_into_optimizer,
    "infinite_weight": put_infinity_into_weight,
    "clock": set_clock_back,
}
