"""Start from the weights of another model; adapt weights of other sizes, and report what was kept."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unnoise.checkpoint import find_model, read_model


def load_into(network: nn.Module, init: str) -> str:
    """Copy the weights of the run or model file `init` into a network; return a report of what was kept."""
    _, weights = read_model(find_model(Path(init)))
    return adapt_weights(network, weights)


@torch.no_grad()
def adapt_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Copy tensors of the same name and shape; of other sizes copy the part they share; leave the rest as it is.

    A filter for 3 colours becomes a gray one by the sum over the colours. The other way, each colour gets a third.
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
            copy_shared_part(ours, theirs)
            part.append(f"{name} {list(theirs.shape)} -> {list(ours.shape)}")
    unused = sorted(set(weights) - set(network.state_dict()))
    lines = [f"{whole} tensors kept whole"]
    for text, names in (("kept in part", part), ("new", new), ("not used", unused)):
        if names:
            lines.append(f"{len(names)} {text}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    return "; ".join(lines)


def copy_shared_part(ours: Tensor, theirs: Tensor) -> None:
    """Copy the corner that two tensors share; change the number of colours of a filter."""
    if ours.ndim == 4 and {ours.shape[1], theirs.shape[1]} == {1, 3}:
        mixed = theirs.sum(dim=1, keepdim=True)
        theirs = mixed if ours.shape[1] == 1 else mixed.expand(-1, 3, -1, -1) / 3
    shared = tuple(slice(min(a, b)) for a, b in zip(ours.shape, theirs.shape, strict=True))
    ours[shared] = theirs[shared]
