"""Where a number that is not finite comes from: which image, at which level, in which layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Noised, Objective


def diagnosis(model: Diffusion, objective: Objective, batch: Noised, indices: np.ndarray) -> str:
    """In words; the gradients it computes are thrown away."""
    with first_of(model.backbone) as layers:
        losses = objective(model, batch)
    bad = losses.isfinite().logical_not().nonzero().flatten().tolist()
    if bad:
        i = bad[0]
        where = f", first in the output of layer {layers[0]}" if layers else ""
        return (
            f"{len(bad)} of {len(losses)} losses of the last batch are not finite, as that of image {indices[i]} at "
            f"level {float(batch.t.time[i]):g} of {model.schedule.T}{where}"
        )
    losses.mean().backward()  # type: ignore[no-untyped-call]
    learned = [(name, p) for name, p in model.backbone.named_parameters() if p.grad is not None]
    wrong = [name for name, p in learned if not finite(p.grad)]
    model.zero_grad()
    if wrong:
        return f"the losses of the last batch are finite, but not the gradients of {len(wrong)} weights, as {wrong[-1]}"
    return "the last batch has finite losses and gradients now"


@contextmanager
def first_of(network: nn.Module) -> Iterator[list[str]]:
    """Names of the layers whose output is not finite, in the order they are computed."""
    found = list[str]()

    def watch(name: str) -> Any:
        return lambda _module, _given, out: None if finite(out) else found.append(name)

    hooks = [m.register_forward_hook(watch(name)) for name, m in network.named_modules() if not [*m.children()]]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
