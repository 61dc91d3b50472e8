"""The KID that a training by the default may reach, by how many images it sees and how large they are.

Sets of images differ more than trainings do, so the law is a range that holds for four of five sets.
`benchmarks/quality/expected.py` fits it to measured trainings, and checks it on other sets.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset, default_held_out
from unnoise.evaluation.expectation import Expected
from unnoise.evaluation.mirrored import ALIKE
from unnoise.training.few_images import CHANGED, LEAST_FLIPPED, describe_few, later, safe_images
from unnoise.training.optimizers import peak_lr
from unnoise.training.plan import LARGE, WIDTHS, unet

# settings that change the quality, beside the network and lr
DECISIVE = (
    *("classes", "schedule", "target", "init", "objective", "times", "references", "optimizer", "batch"),
    *("warmup", "decay", "weight_decay", "max_grad_norm", "ema_halflife", "sampler", "steps", "spacing", "clip"),
)
LEAST_COUNT = 1_000  # training images; fewer can be copied, which KID does not see, unless the training ends before
SIDES = 28, 64  # the shorter sides that were measured, in pixels
USUAL = 50_000  # images seen by a training of many images, about as in ten minutes of a core with AVX-512
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


LAW = Law(limit=0.0744, power=0.921, half=35_100, spread=3.22)


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
    end = safe_images(len(dataset), later(config)) or 0
    without_copies = (len(dataset) >= LEAST_COUNT and not config.flip) or images <= end
    as_measured = by_default and measured and not config.stream  # streamed data has no references by default
    return LAW.at(side, images) if as_measured and without_copies else None


def expected_of_data(audit: Mapping[str, Any]) -> list[str]:
    """Return what `unnoise data` prints of a training by the default: if images are few, its end, and its KID."""
    count, (_, channels, *sides) = audit["files"] - audit["broken"]["count"], audit["becomes"]
    few = describe_few(audit["duplicates"]["different"], count)
    trained = count - default_held_out(count)
    alike = trained >= LEAST_FLIPPED and audit["mirrored"] is not None and audit["mirrored"] < ALIKE
    end = safe_images(trained, CHANGED if alike else 1.0)
    images = end or USUAL
    told = [f"few       {few}"] if few else []
    told += [f"limit     a training by --budget ends after {end:,.0f} images, before copies begin"] if end else []
    if channels in (1, 3) and was_measured(min(sides), images):
        kid = LAW.at(min(sides), images)
        told.append(f"expected  KID x 1000 of {kid}, after {images:,.0f} images")
    return told
