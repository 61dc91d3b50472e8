"""DPM-Solver++: multistep solvers of the probability-flow ODE in half_log_snr."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.registry import sampler
from unnoise.samplers.step import Step
from unnoise.types import Images, RandnLike


@sampler
def dpmpp_2m(
    denoise: Denoiser,
    x: Images,
    levels: Sequence[Level],
    *,
    randn_like: RandnLike = torch.randn_like,  # noqa: ARG001  # deterministic
) -> Iterator[Step]:
    """Lu et al. 2022 (arXiv:2211.01095), algorithm 2: second order, one evaluation a step."""
    before: tuple[Images, Level] | None = None  # x0 at the level before t
    for t, s in pairwise(levels):
        x0 = denoise(x, t).x0
        slope = x0
        if before is not None and s.sigma > 0:  # the last step, to infinite half_log_snr, is of first order
            last_x0, r = before
            k = (s.half_log_snr - t.half_log_snr) / (2 * (t.half_log_snr - r.half_log_snr))  # 1 / (2 r_i)
            slope = x0 + k.to(x) * (x0 - last_x0)
        # alpha_s (e^{-h} - 1) = sigma_s alpha_t / sigma_t - alpha_s, which is finite at the clean level too
        x = (s.sigma / t.sigma).to(x) * x + (s.alpha - s.sigma * t.alpha / t.sigma).to(x) * slope
        before = (x0, t)
        yield Step(x, x0, s)
