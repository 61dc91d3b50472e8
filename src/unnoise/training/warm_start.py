"""Start from the weights of another model; adapt weights of other sizes, and report what was kept."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unnoise.checkpoint import find_model, read_model
from unnoise.types import RGB


def load_into(network: nn.Module, init: str) -> str:
    """Copy the weights of the run or model file `init` into a network; return a report of what was kept."""
    _, weights = read_model(find_model(Path(init)))
    return adapt_weights(network, weights)


@torch.no_grad()
def adapt_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Copy tensors of the same name and shape; of other sizes copy the part they share; leave the rest as it is.

    A filter that sees 3 colours becomes a gray one by the sum over the colours; the other way, each colour gets a
    third. A filter that gives 3 colours becomes a gray one by their mean; the other way, each colour gets it whole. A
    network on patches sees each colour once for each pixel of a patch.
    """
    whole, part, new = 0, [], []
    pixels = getattr(network, "patch", 1) ** 2
    for name, ours in network.state_dict().items():
        theirs = weights.get(name)
        if theirs is None or theirs.ndim != ours.ndim:
            new.append(name)
        elif theirs.shape == ours.shape:
            ours.copy_(theirs)
            whole += 1
        else:
            copy_shared_part(ours, theirs, pixels)
            part.append(f"{name} {list(theirs.shape)} -> {list(ours.shape)}")
    unused = sorted(set(weights) - set(network.state_dict()))
    lines = [f"{whole} tensors kept whole"]
    for text, names in (("kept in part", part), ("new", new), ("not used", unused)):
        if names:
            lines.append(f"{len(names)} {text}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    return "; ".join(lines)


def copy_shared_part(ours: Tensor, theirs: Tensor, pixels: int) -> None:
    """Copy the corner that two tensors share; each colour of an image is `pixels` channels of the network."""
    for dim, seen in ((0, False), (1, True)):
        if dim < ours.ndim and {ours.shape[dim], theirs.shape[dim]} == {pixels, RGB * pixels}:
            each = theirs.reshape(*theirs.shape[:dim], -1, pixels, *theirs.shape[dim + 1 :])
            mixed = each.sum(dim, keepdim=True) if seen else each.mean(dim, keepdim=True)
            count = ours.shape[dim] // pixels
            spread = mixed.expand(*mixed.shape[:dim], count, *mixed.shape[dim + 1 :])
            theirs = (spread / count if seen else spread).flatten(dim, dim + 1)
    shared = tuple(slice(min(a, b)) for a, b in zip(ours.shape, theirs.shape, strict=True))
    ours[shared] = theirs[shared]
