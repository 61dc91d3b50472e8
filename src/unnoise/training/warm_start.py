"""Start from the weights of another model; what does not fit is adapted or left as it was, and told."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unnoise.checkpoint import find_model, read_model


def load_into(network: nn.Module, init: str) -> str:
    """Copy what can be had; returns a report of what was kept."""
    _, weights = read_model(find_model(Path(init)))
    return adapt(network, weights)


@torch.no_grad()
def adapt(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Copy tensors of the same name: whole, or where only sizes differ the part they share; others stay as they were.

    Of a colour filter that becomes a gray one (3 inputs to 1) the sum is taken, and the other way a third each.
    """
    whole, part, new = 0, [], []
    for name, ours in network.state_dict().items():
        theirs = weights.get(name)
        if theirs is None or theirs.ndim != ours.ndim:
            new.append(name)
        elif theirs.shape == ours.shape:
            ours.copy_(theirs)
            whole += 1
        else:
            copy_part(ours, theirs)
            part.append(f"{name} {list(theirs.shape)} -> {list(ours.shape)}")
    left = sorted(set(weights) - set(network.state_dict()))
    lines = [f"{whole} tensors kept whole"]
    for text, names in (("in part", part), ("new", new), ("not used", left)):
        if names:
            lines.append(f"{len(names)} {text}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    return "; ".join(lines)


def copy_part(ours: Tensor, theirs: Tensor) -> None:
    if ours.ndim == 4 and {ours.shape[1], theirs.shape[1]} == {1, 3}:
        mixed = theirs.sum(dim=1, keepdim=True)
        theirs = mixed if ours.shape[1] == 1 else mixed.expand(-1, 3, -1, -1) / 3
    shared = tuple(slice(min(a, b)) for a, b in zip(ours.shape, theirs.shape, strict=True))
    ours[shared] = theirs[shared]
