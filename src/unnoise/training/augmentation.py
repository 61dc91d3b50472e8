"""Augmentation: images are moved, turned and stretched, and the network is conditioned on that.

It is the augmentation of Karras et al. 2022 (arXiv:2206.00364), appendix F.2, table 6. A sample is drawn without a
transform. Two things differ from the paper. A stretch enters with twice its angle, since a stretch that is turned by
180 degrees is the same stretch. And the probability falls to 0 during the training: with a constant one and 180
training images, 5 % of the samples were upside down, and 9 % were shifted. Now as few are as without augmentation
(benchmarks/results/leak).
"""

import inspect
import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from unnoise import registry
from unnoise.errors import InputError
from unnoise.options import Spec
from unnoise.types import Images, Transform

NUMBERS = 9  # of a transform: mirrored, upside down, size, cos(turn) - 1, sin(turn), stretch [2], shift [2]
SCALE = 0.2  # standard deviation of the size and of the stretch, in octaves
SHIFT = 0.125  # standard deviation of the shift, as a share of the image
UNTIL = 0.8  # of the training; nothing is transformed from then on


def draw_transforms(n: int, probability: float, generator: Generator) -> Transform:
    """Draw the transforms of n images; each of the six kinds is applied with this probability."""
    on = (torch.rand(6, n, generator=generator) < probability).float()
    flips = torch.randint(2, (2, n), generator=generator)
    turn, across = 2 * math.pi * torch.rand(2, n, generator=generator)
    size, stretch, right, down = torch.randn(4, n, generator=generator)
    numbers = [
        *(on[:2] * flips),
        on[2] * size,
        on[3] * (turn.cos() - 1),
        on[3] * turn.sin(),
        on[4] * stretch * across.cos(),
        on[4] * stretch * across.sin(),
        on[5] * right,
        on[5] * down,
    ]
    return torch.stack(numbers, dim=1)


def falling(probability: float, progress: float) -> float:
    """Return a probability that falls to 0 at UNTIL of the training, so that samples show no transform."""
    return probability * max(0.0, 1 - progress / UNTIL)


def transform_images(x0: Images, transform: Transform) -> Images:
    """Return the transformed images in [-1, 1]; what comes in at the edges is mirrored, and zeros change nothing."""
    rows = transform.any(dim=1).nonzero().flatten()
    if not len(rows):
        return x0
    matrices = sampling_matrices(transform[rows], x0.shape[2], x0.shape[3]).to(x0)
    chosen = x0[rows.to(x0.device)]
    places = F.affine_grid(matrices, [*chosen.shape], align_corners=False)
    moved = F.grid_sample(chosen, places, mode="bicubic", padding_mode="reflection", align_corners=False)
    return x0.index_copy(0, rows.to(x0.device), moved.clamp(-1, 1))


def sampling_matrices(transform: Transform, height: int, width: int) -> Float[Tensor, "b 2 3"]:
    """Return the affine maps from places of the transformed images to places of the images, both in [-1, 1]."""
    mirrored, flipped, size, cos, sin, along, across, right, down = transform.double().unbind(1)
    zero = torch.zeros_like(size)
    flips = matrices([[1 - 2 * mirrored, zero], [zero, 1 - 2 * flipped]])
    turn = matrices([[1 + cos, -sin], [sin, 1 + cos]])
    octaves = matrices([[size + along, across], [across, size - along]])
    pixels = torch.tensor([width, height], dtype=torch.float64)
    forward = turn @ torch.matrix_exp(SCALE * math.log(2) * octaves) @ flips
    back = torch.linalg.inv(forward) * pixels / pixels[:, None]
    shift = 2 * SHIFT * torch.stack([right, down], dim=1)
    return torch.cat([back, -back @ shift[:, :, None]], dim=2)


def with_transforms(backbone: Spec) -> Spec:
    """Return the spec of a network that takes the numbers of a transform; raise InputError if it cannot."""
    made = registry.backbone.get(backbone)
    if "transforms" not in inspect.signature(made.func).parameters:
        raise InputError(
            f"--augment needs a network that can be conditioned on transforms, and {registry.backbone.text(backbone)} "
            f"has no option transforms; use unet or dit, or --augment 0"
        )
    return registry.backbone.text(partial(made, transforms=NUMBERS))


def matrices(rows: list[list[Tensor]]) -> Float[Tensor, "b 2 2"]:
    """Return matrices from their numbers [b], row by row."""
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
