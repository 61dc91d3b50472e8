"""Calculate the cost of a training: operations, memory, files and messages of a network."""

import math
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from unnoise import registry
from unnoise.training.muon import group_by_shape


@dataclass(frozen=True)
class Cost:
    """The cost of one network at one size, for one image.

    Args:
        parameters: number of parameters.
        forward: floating-point operations of a forward pass; the backward pass takes twice as many.
        orthogonal: operations of Muon's orthogonal step, at any batch size.
        kept: bytes that the backward pass needs.
        pixels: bytes of the decoded image.
    """

    parameters: int
    forward: float
    orthogonal: float
    kept: float
    pixels: int

    def step(self, batch: int) -> float:
        """Return the operations of a training step, of all processes together."""
        return 3 * self.forward * batch + self.orthogonal

    def memory(self, batch: int) -> float:
        """Return the bytes of weights, gradients, average and momentum in fp32, and of what the backward pass needs."""
        return 16 * self.parameters + self.kept * batch

    @property
    def state(self) -> float:
        """Return the bytes of a state: weights, average, momentum. A run has two, and a model file."""
        return 12 * self.parameters

    def traffic(self, processes: int) -> float:
        """Return the bytes that each process sends in a step: a ring has two passes for gradients, two for Muon."""
        return 2 * 2 * (processes - 1) / processes * 4 * self.parameters

    def sampling(self, steps: int) -> float:
        """Return the operations for drawing an image."""
        return steps * self.forward


def cost_of(backbone: str, shape: tuple[int, int, int]) -> Cost:
    """Count the cost of a network on one image by PyTorch's own counter; the network is never filled with numbers."""
    with torch.device("meta"):
        network = registry.backbone.get(backbone)(shape[0])
        x, t = torch.zeros(1, *shape), torch.zeros(1)
        weights, kept = {p.untyped_storage()._cdata for p in network.parameters()}, dict[int, torch.Tensor]()

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if (storage := tensor.untyped_storage()._cdata) not in weights:
                kept[storage] = tensor
            return tensor

        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda y: y):
            network(x, t)
    matrices = [(p, p) for p in network.parameters() if p.ndim >= 2]
    muon = sum(orthogonal_operations(*shape) * len(same) for shape, same in group_by_shape(matrices))
    size = sum(p.numel() for p in network.parameters())
    bytes_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return Cost(size, float(counter.get_total_flops()), muon, float(bytes_kept), math.prod(shape))


def orthogonal_operations(rows: int, columns: int) -> float:
    """Return the operations for one matrix: its Gram matrix, the product with it, and 17 products of that size."""
    small, large = sorted((rows, columns))
    return 2 * 2 * small**2 * large + 2 * small**3 * (1 + 4 * 4)
