"""What a sampler is: a generator over decreasing noise levels."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.schedule import Levels
from unnoise.types import Images, RandnLike


class Step(NamedTuple):
    """The state after one step: x at `level`, and the clean image that was believed in."""

    x: Images
    x0: Images
    level: Level


@runtime_checkable
class Sampler(Protocol):
    """From x at levels[0] to x at levels[-1]; its options are keyword-only parameters of plain type.

    It declares its order (weak, where it draws noise) and its evaluations a step, at most. One that visits levels
    between the given ones takes `Levels` and asks `levels.schedule`.
    """

    def __call__(self, denoise: Denoiser, x: Images, levels: Levels, *, randn_like: RandnLike) -> Iterator[Step]: ...
