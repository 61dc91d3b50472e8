"""The KID that a training by the default may reach, by how many images it sees and how large they are.

Sets of images differ more than trainings do, so the law is a range that holds for four of five sets.
`benchmarks/quality/expected.py` fits it to measured trainings, and checks it on other sets.
"""

from typing import NamedTuple

from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.evaluation.expectation import Expected
from unnoise.training.optimizers import peak_lr
from unnoise.training.plan import LARGE, WIDTHS, unet

# settings that change the quality, beside the network and lr
DECISIVE = (
    *("classes", "flip", "schedule", "target", "init", "objective", "times", "references", "optimizer", "batch"),
    *("warmup", "decay", "weight_decay", "max_grad_norm", "ema_halflife", "sampler", "steps", "spacing", "clip"),
)
LEAST_COUNT = 1_000  # training images; fewer can be copied, which KID does not see
SIDES = 28, 64  # the shorter sides that were measured, in pixels
SEEN, SEEN_LARGE = (13_000, 460_000), (20_000, 100_000)  # images seen, about as measured; of images from LARGE on


class Law(NamedTuple):
    """KID = limit * (side / 32)^power * (1 + half / images)."""

    limit: float  # the KID of endless trainings of images of 32 pixels
    power: float  # how the limit grows with the shorter side
    half: float  # images seen that bring KID to twice the limit
    spread: float  # the ends of the range lie this factor away

    def at(self, side: int, images: float) -> Expected:
        """Return the KID that is expected for images of a shorter side, in pixels, after a number of images seen."""
        kid = self.limit * (side / 32) ** self.power * (1 + self.half / images)
        return Expected(kid, kid / self.spread, kid * self.spread, images)


LAW = Law(limit=0.0830, power=0.891, half=27_500, spread=3.32)


def was_measured(side: int, images: float) -> bool:
    """Return True if images of this shorter side, in pixels, were measured after this number of images seen."""
    least, most = SEEN_LARGE if side >= LARGE else SEEN
    return SIDES[0] <= side <= SIDES[1] and least <= images <= most


def expected_kid(config: TrainConfig, dataset: Dataset, images: float) -> Expected | None:
    """Return the KID to expect of settings whose network is chosen; None if nothing like them was measured."""
    first, side = TrainConfig(), min(dataset.shape[1:])
    by_default = (
        all(getattr(config, name) == getattr(first, name) for name in DECISIVE)
        and peak_lr(config) == peak_lr(first)
        and config.backbone in [unet(width, dataset.shape) for width in WIDTHS]
    )
    measured = was_measured(side, images) and dataset.shape[0] in (1, 3)
    enough = len(dataset) >= LEAST_COUNT and not config.stream  # streamed data has no references by default
    return LAW.at(side, images) if by_default and measured and enough else None
