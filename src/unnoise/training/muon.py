"""Muon: orthogonal steps for matrices, divided over the processes. PyTorch's own takes 2-D weights only."""

from collections.abc import Callable, Iterable
from itertools import count, groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unnoise import distributed

Matrices = Float[Tensor, "k m n"]
TOGETHER = 5  # polynomials that are multiplied: rounding makes eigenvalues of 0 negative, which grow 12-fold in each


class Muon(torch.optim.AdamW):
    """Step by AdamW for its own parameters, and orthogonally for `matrices`.

    Set `shared` if all processes step together; each then computes its part of the orthogonal steps.
    """

    shared = False

    def __init__(  # the options of the optimizer
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
        """Take one step of both kinds."""
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
        """Move all matrices of a group; matrices of one shape are computed at once, since they are small and many."""
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
        moves = self.orthogonal_moves(group, zip(given, ahead, strict=True))
        shared = sum_over_processes(list(moves.values())) if self.processes > 1 else moves.values()
        for p, move in zip(moves, shared, strict=True):
            p.add_(move)

    def orthogonal_moves(self, group: dict[str, Any], pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[Tensor, Tensor]:
        """Return the move of each parameter, from its direction; zeros for parameters of other processes."""
        turns, moves, processes = count(), dict[Tensor, Tensor](), self.processes
        for shape, same in group_by_shape(pairs):
            mine = [pair for pair in same if next(turns) % processes == distributed.rank() % processes]
            made = dict[Tensor, Tensor]()
            if mine:
                stacked = torch.stack([direction.reshape(shape) for _, direction in mine])
                steps = orthogonalize(stacked, group["iterations"]) * (-0.2 * group["lr"] * max(shape) ** 0.5)
                made = {p: step.reshape(p.shape) for (p, _), step in zip(mine, steps, strict=True)}
            moves |= {p: made[p] if p in made else torch.zeros_like(p) for p, _ in same}
        return moves

    @property
    def processes(self) -> int:
        """Return the number of processes that step together."""
        return distributed.world_size() if self.shared else 1


def sum_over_processes(moves: list[Tensor]) -> list[Tensor]:
    """Return the sum of each tensor over all processes, by one message."""
    flat = distributed.all_reduce_sum(torch.cat([move.flatten() for move in moves]))
    sizes = [move.numel() for move in moves]
    return [part.view(move.shape) for part, move in zip(torch.split(flat, sizes), moves, strict=True)]


def group_by_shape(
    pairs: Iterable[tuple[Tensor, Tensor]],
) -> Iterable[tuple[tuple[int, int], list[tuple[Tensor, Tensor]]]]:
    """Group (weight, direction) by the shape of the matrix: the first dimension, by all others."""

    def shape(pair: tuple[Tensor, Tensor]) -> tuple[int, int]:
        return len(pair[0]), pair[0].numel() // len(pair[0])

    return ((key, list(same)) for key, same in groupby(sorted(pairs, key=shape), shape))


def orthogonalize(x: Matrices, iterations: int) -> Matrices:
    """Return about the nearest matrix with orthonormal rows or columns, by an odd polynomial of the singular values.

    Jordan et al. 2024: five iterations of 3.4445 s - 4.775 s^3 + 2.0315 s^5 take all singular values near 1. Each
    iteration is a polynomial of x x^T times x. These polynomials commute: they are multiplied first, since they are
    smaller than most x.
    """
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for begun in range(0, iterations, TOGETHER):
        x = multiply_polynomials(x @ x.mT, min(TOGETHER, iterations - begun)) @ x
    return x.mT if tall else x


def multiply_polynomials(gram: Matrices, count: int) -> Matrices:
    """Return the product of `count` polynomials, each of the Gram matrix that the ones before it leave."""
    total = factor = polynomial(gram)
    for _ in range(count - 1):
        gram = factor @ gram @ factor
        factor = polynomial(gram)
        total = factor @ total
    return total


def polynomial(gram: Matrices) -> Matrices:
    """Return 3.4445 - 4.775 g + 2.0315 g^2 of a Gram matrix g."""
    result = torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315)
    result.diagonal(dim1=1, dim2=2).add_(3.4445)
    return result
