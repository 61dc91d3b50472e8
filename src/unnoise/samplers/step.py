"""What a sampler is: a generator over decreasing noise levels."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser
from unnoise.types import Images, RandnLike


class Step(NamedTuple):
    """The state after one step: x at `level`, and the clean image that was believed in."""

    x: Images
    x0: Images
    level: Level


class Sampler(Protocol):
    """From x at levels[0] to x at levels[-1]; its options are keyword-only parameters of plain type."""

    def __call__(
        self, denoise: Denoiser, x: Images, levels: Sequence[Level], *, randn_like: RandnLike
    ) -> Iterator[Step]: ...
