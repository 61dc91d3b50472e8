"""Average the weights of a network; images are sampled from the average."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Exponential moving average of weights, Karras et al. 2022 (arXiv:2206.00364), appendix F.2.

    Args:
        network: the network in training; its buffers are copied, never averaged.
        halflife: half-life of the average in images; 0 means no average: `ema.network` is the network itself.
        ramp: the half-life is never longer than this share of the images seen.
    """

    def __init__(self, network: nn.Module, halflife: float, ramp: float = 0.1) -> None:
        self.source, self.halflife, self.ramp, self.seen = network, halflife, ramp, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False) if halflife else network

    @torch.no_grad()
    def update(self, count: int, seen: int | None = None) -> None:
        """Move the average towards the weights.

        Args:
            count: number of images in the training step that was just taken.
            seen: number of images in all steps, if you count them yourself.
        """
        self.seen = self.seen + count if seen is None else seen
        if not self.halflife:
            return
        keep = 0.5 ** (count / max(min(self.halflife, self.ramp * self.seen), 1e-9))
        average_into = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
        average_into([*self.network.parameters()], [*self.source.parameters()], 0)
        for average, buffer in zip(self.network.buffers(), self.source.buffers(), strict=True):
            average.copy_(buffer)
