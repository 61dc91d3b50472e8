"""The average of the weights that is sampled from."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving average by half-life in images, warmed up: never longer than a tenth of the images seen.

    Karras et al. 2022 (arXiv:2206.00364), appendix F.2. A half-life of 0 means no average: the weights themselves.
    """

    def __init__(self, network: nn.Module, halflife: float, ramp: float = 0.1) -> None:
        self.source, self.halflife, self.ramp = network, halflife, ramp
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False) if halflife else network

    @torch.no_grad()
    def update(self, seen: int, batch: int) -> None:
        """Move towards the weights after a step of `batch` images, `seen` in all."""
        if not self.halflife:
            return
        keep = 0.5 ** (batch / max(min(self.halflife, self.ramp * seen), 1e-9))
        averages: list[Tensor] = [*self.network.parameters()]
        weights: list[Tensor] = [*self.source.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - keep)  # one fused call; it has no public twin
        for average, buffer in zip(self.network.buffers(), self.source.buffers(), strict=True):
            average.copy_(buffer)  # never averaged
