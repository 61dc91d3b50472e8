"""Optimizers: (network, lr, weight_decay) -> torch.optim.Optimizer."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count, groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unnoise import processes, registry
from unnoise.config import TrainConfig
from unnoise.errors import InputError
from unnoise.registry import optimizer

Matrices = Float[Tensor, "k m n"]
TOGETHER = 5  # polynomials that are multiplied: rounding makes eigenvalues of 0 negative, which grow 12-fold in each


def as_configured(config: TrainConfig) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return partial(registry.optimizer.get(config.optimizer), lr=config.lr, weight_decay=config.weight_decay)


def with_state(optimizer: Any, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Give it the slots that were saved by the number of the parameter, laid out in memory as the parameters are."""
    groups = optimizer.state_dict()["param_groups"]
    every = [p for group in optimizer.param_groups for p in group["params"]]

    def laid_out(value: Any, p: Tensor) -> Any:
        alike = isinstance(value, Tensor) and value.shape == p.shape
        return torch.empty_like(p, dtype=value.dtype).copy_(value) if alike else value

    slots = {
        int(i): {name: laid_out(value, every[int(i)]) for name, value in slot.items()} for i, slot in saved.items()
    }
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


@optimizer
def adamw(network: nn.Module, lr: float, weight_decay: float, *, beta1: float = 0.9, beta2: float = 0.999) -> Any:
    """Loshchilov & Hutter 2019 (arXiv:1711.05101): Adam with decoupled weight decay."""
    shares("adamw", beta1=beta1, beta2=beta2)
    on_cpu = all(p.device.type == "cpu" for p in network.parameters())  # where one pass over the memory pays
    betas = (beta1, beta2)
    return torch.optim.AdamW(network.parameters(), lr, betas, weight_decay=weight_decay, fused=on_cpu or None)


@optimizer
def muon(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    momentum: float = 0.95,
    iterations: int = 5,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> Any:
    """Jordan et al. 2024 (Muon) for the weights of layers, AdamW for the rest.

    Of the size Liu et al. 2025 (arXiv:2502.16982), eq. 4, give the steps, `lr` means the same for both.
    """
    shares("muon", momentum=momentum, beta1=beta1, beta2=beta2)
    if iterations < 1:
        raise InputError(f"optimizer muon: iterations takes 1 or more, got {iterations}")
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}  # rows, and no matrix
    every = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in every if p.ndim >= 2 and id(p) not in tables]
    rest = [p for p in every if p.ndim < 2 or id(p) in tables]
    return Muon(matrices, rest, lr, weight_decay, momentum, iterations, (beta1, beta2))


def shares(name: str, **options: float) -> None:
    """Refuse what is no share of the past."""
    for option, value in options.items():
        if not 0 <= value < 1:
            raise InputError(f"optimizer {name}: {option} is 0 or more and below 1, got {value:g}")


class Muon(torch.optim.AdamW):
    """AdamW for its own parameters, and orthogonal steps for `matrices`.

    `shared`: all processes step together, and each makes its part of the steps.
    """

    shared = False

    def __init__(
        self,
        matrices: list[nn.Parameter],
        rest: list[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float,
        iterations: int,
        betas: tuple[float, float],
    ) -> None:
        orthogonal: dict[str, Any] = {"params": matrices, "momentum": momentum, "iterations": iterations}
        super().__init__([{"params": rest}, orthogonal], lr, betas=betas, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step of both kinds."""
        with torch.enable_grad():
            loss = closure() if closure else None
        plain, orthogonal = self.param_groups
        self.param_groups = [plain]
        try:
            super().step()
        finally:
            self.param_groups = [plain, orthogonal]
        self.orthogonal_step(orthogonal)
        return loss

    def orthogonal_step(self, group: dict[str, Any]) -> None:
        """Of equal matrices all at once: theirs are small, and there are many."""
        given = [p for p in group["params"] if p.grad is not None]
        if not given:
            return
        for p in given:
            if not self.state[p]:  # AdamW looks for a step in every state it loads
                self.state[p].update(step=torch.tensor(0.0), momentum=torch.zeros_like(p))
        buffers = [self.state[p]["momentum"] for p in given]
        gradients = [p.grad for p in given]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])  # Nesterov
        torch._foreach_mul_(given, 1 - group["lr"] * group["weight_decay"])
        turns, moves, others = count(), dict[Tensor, Tensor](), processes.count() if self.shared else 1
        for shape, same in grouped(zip(given, ahead, strict=True)):
            mine = [pair for pair in same if next(turns) % others == processes.rank() % others]
            made = dict[Tensor, Tensor]()
            if mine:
                stacked = torch.stack([direction.reshape(shape) for _, direction in mine])
                steps = orthogonalised(stacked, group["iterations"]) * (-0.2 * group["lr"] * max(shape) ** 0.5)
                made = {p: step.reshape(p.shape) for (p, _), step in zip(mine, steps, strict=True)}
            moves |= {p: made[p] if p in made else torch.zeros_like(p) for p, _ in same}
        for p, move in zip(moves, together(list(moves.values())) if others > 1 else moves.values(), strict=True):
            p.add_(move)


def together(moves: list[Tensor]) -> list[Tensor]:
    """The sums over all processes, in one message."""
    flat = processes.summed(torch.cat([move.flatten() for move in moves]))
    sizes = [move.numel() for move in moves]
    return [part.view(move.shape) for part, move in zip(torch.split(flat, sizes), moves, strict=True)]


def grouped(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterable[tuple[tuple[int, int], list[tuple[Tensor, Tensor]]]]:
    """By the shape of the matrix: a weight's first dimension, which of layers is the channels made, by all others."""

    def shape(pair: tuple[Tensor, Tensor]) -> tuple[int, int]:
        return len(pair[0]), pair[0].numel() // len(pair[0])

    return ((key, list(same)) for key, same in groupby(sorted(pairs, key=shape), shape))


def orthogonalised(x: Matrices, iterations: int) -> Matrices:
    """The nearest matrix with orthonormal rows or columns, about, by an odd polynomial of the singular values.

    Jordan et al. 2024: five iterations of 3.4445 s - 4.775 s^3 + 2.0315 s^5 take all of them near 1, if not to it. Each
    is a polynomial of x x^T times x, and these commute: they are multiplied first, being smaller than most x.
    """
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for begun in range(0, iterations, TOGETHER):
        x = product(x @ x.mT, min(TOGETHER, iterations - begun)) @ x
    return x.mT if tall else x


def product(gram: Matrices, count: int) -> Matrices:
    """Of so many polynomials, each of the Gram matrix that the ones before it leave."""
    total = factor = polynomial(gram)
    for _ in range(count - 1):
        gram = factor @ gram @ factor
        factor = polynomial(gram)
        total = factor @ total
    return total


def polynomial(gram: Matrices) -> Matrices:
    result = torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315)
    result.diagonal(dim1=1, dim2=2).add_(3.4445)
    return result
