"""The protocol of a sampler: a generator over decreasing noise levels, and the step that it yields."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.schedule import Levels
from unnoise.types import Images, RandnLike


class Step(NamedTuple):
    """Hold the state after one step: x at `level`, and the clean image that was predicted for it."""

    x: Images
    x0: Images
    level: Level


@runtime_checkable
class Sampler(Protocol):
    """Yield the steps from x at levels[0] to x at levels[-1], [b, c, h, w].

    Options are keyword-only parameters of plain type. A registered sampler declares its order (the weak order if it
    draws noise) and the most evaluations of the network per step. A sampler that visits levels between the given ones
    takes `Levels` and asks `levels.schedule`. All noise comes from randn_like: an image depends only on its seed.
    """

    def __call__(self, denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]: ...
