"""Add a sampler in one function: Heun's method on the probability-flow ODE.

The sampler is registered under its own name. Its spec string works wherever a sampler is named: `heun2:average=0.5`.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.registry import sampler
from unnoise.samplers.base import Step
from unnoise.types import Images, RandnLike


@sampler.declare(order=2, evaluations=2)
def heun2(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    average: float = 0.5,
    randn_like: RandnLike = torch.randn_like,  # noqa: ARG001  # deterministic
) -> Iterator[Step]:
    """Karras et al. 2022 (arXiv:2206.00364), algorithm 1: step with two evaluations, the last time with one."""
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        if s.sigma > 0:
            ahead = denoise(s.alpha.to(x) * x0 + s.sigma.to(x) * eps, s)  # Euler's step, and the slope at its end
            eps = torch.lerp(eps, ahead.eps, average)
        x = s.alpha.to(x) * (x / t.alpha.to(x) + (s.ratio - t.ratio).to(x) * eps)  # d(x / alpha) / d ratio = eps
        yield Step(x, x0, s)


if __name__ == "__main__":
    import sys

    import unnoise

    images = unnoise.sample(sys.argv[1], 16, sampler="heun2", steps=10)
    unnoise.show(images, to="heun2.png")
