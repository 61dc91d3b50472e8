"""Find where a number that is not finite comes from: which weights, which image, at which level, in which layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unnoise import distributed
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Noised, Objective
from unnoise.training.precision import plain_network
from unnoise.training.trainer import Trainer


def is_finite(value: object) -> bool:
    """Return True if a tensor has finite values only; what is no tensor counts as finite."""
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())


def find_nonfinite(trainer: Trainer) -> str | None:
    """Return in words what is not finite of weights, averages and the state of the optimizer, or None."""
    named = dict(plain_network(trainer.model).named_parameters())
    for name, p in named.items():
        if not is_finite(p):
            return f"the weights {name} are no longer finite"
    if not all(map(is_finite, trainer.ema.network.parameters())):
        return "the average of the weights is no longer finite"
    for owner, slots in trainer.optimizer.state.items():
        if not all(map(is_finite, slots.values())):
            name = next((name for name, p in named.items() if p is owner), "")
            return f"the state of the optimizer for {name} is no longer finite"
    return None


def explain_nonfinite(trainer: Trainer, batch: Noised, indices: np.ndarray) -> str:
    """Explain a batch whose losses or gradients are not finite; `indices` [b] number its images as in the data."""
    model = trainer.model
    plain = Diffusion(plain_network(model), model.schedule, model.target, model.shape, model.classes)
    with trainer.precision.autocast():
        found = distributed.all_gather(diagnose(plain, trainer.objective, batch, indices))
    return next((text for text in found if "not" in text), found[0])


def diagnose(model: Diffusion, objective: Objective, batch: Noised, indices: np.ndarray) -> str:
    """Name the first image, level and layer that are not finite; gradients are computed and dropped."""
    with nonfinite_layers(model.backbone) as layers:
        losses = objective(model, batch)
    bad = losses.isfinite().logical_not().nonzero().flatten().tolist()
    if bad:
        i = bad[0]
        layer = f", first in the output of layer {layers[0]}" if layers else ""
        return (
            f"{len(bad)} of {len(losses)} losses of the last batch are not finite, such as the loss of image "
            f"{indices[i]} at level {float(batch.t.time[i]):g} of {model.schedule.T}{layer}"
        )
    losses.mean().backward()  # type: ignore[no-untyped-call]
    wrong = [name for name, p in model.backbone.named_parameters() if not is_finite(p.grad)]
    model.zero_grad()
    if wrong:
        return (
            f"the losses of the last batch are finite, but the gradients of {len(wrong)} weights are not, such as "
            f"{wrong[-1]}"
        )
    return "the last batch has finite losses and gradients now"


@contextmanager
def nonfinite_layers(network: nn.Module) -> Iterator[list[str]]:
    """Collect the names of layers whose output is not finite, in the order in which they are computed."""
    found = list[str]()

    def watch(name: str) -> Any:
        return lambda _module, _given, out: None if is_finite(out) else found.append(name)

    hooks = [m.register_forward_hook(watch(name)) for name, m in network.named_modules() if not [*m.children()]]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
