"""Few training images: when a network begins to draw copies of them, and what to expect before.

Copies begin after a time in proportion to the number of training images; good images come after a time that does not
depend on it (Bonnaire et al. 2025, arXiv:2505.17638).
"""

from dataclasses import replace

from unnoise import distributed
from unnoise.config import TrainConfig
from unnoise.data.audit import count_different
from unnoise.data.dataset import Dataset
from unnoise.evaluation.memorization import LEAST_TRAINED
from unnoise.evaluation.mirrored import ALIKE, describe_mirrored, distinguished_share

PASSES = (
    100  # over the training images, until copies begin; benchmarks/results/few_images has 79 to 123, of the default
)
CHANGED = 1.5  # times as many if images are mirrored or transformed; there are 133 to 177
SAFE = 0.75  # of the horizon: the training ends there, and its learning rate is 0 by then
LEAST, MOST = LEAST_TRAINED, 1_000  # training images: copies of fewer are not found, and more were not measured
LEAST_FLIPPED = 100  # training images; how fewer look in a mirror says too little of others
ENOUGH = 200  # different images; a training on fewer ends before its images are good


def choose_flip(config: TrainConfig, dataset: Dataset) -> tuple[TrainConfig, list[str]]:
    """Return the settings with --flip chosen if they leave it open, and a line that says why.

    Few images are mirrored if they look alike in a mirror: with 180 faces this gave 0.7 of the KID and 1.4 of the
    recall, at as few copies (benchmarks/results/few_images).
    """
    if config.flip is not None:
        return config, []
    if not LEAST_FLIPPED <= len(dataset) <= MOST or dataset.groups is not None or config.augment:
        return replace(config, flip=False), []
    share = distributed.from_main(lambda: distinguished_share(dataset))
    flip = share is not None and share < ALIKE
    so = "trained on both (--no-flip: as they are)" if flip else "trained on as they are (--flip: on both)"
    return replace(config, flip=flip), [f"{line}; {so}" for line in describe_mirrored(share)]


def later(config: TrainConfig) -> float:
    """Return the factor by which copies begin later with these settings."""
    return CHANGED if config.flip or config.augment else 1.0


def copy_horizon(count: int, factor: float = 1.0) -> float | None:
    """Return the images seen after which copies of `count` training images begin, or None if it is not known.

    `later` returns the factor.
    """
    return PASSES * count * factor if LEAST <= count <= MOST else None


def safe_images(count: int, factor: float = 1.0) -> float | None:
    """Return the images after which a training with `count` images should end, or None if there is no limit."""
    horizon = copy_horizon(count, factor)
    return None if horizon is None else SAFE * horizon


def warn_of_few(dataset: Dataset, held: int = 0) -> list[str]:
    """Return a warning about training images that are too few, or too much alike, to learn from; nothing if not.

    `held` more images are held out.
    """
    if len(dataset) > MOST or dataset.groups is not None:
        return []
    few = describe_few(count_different(dataset), len(dataset), held)
    return [f"warning: {few}"] if few else []


def describe_few(different: int, count: int, held: int = 0) -> str:
    """Return what to expect of a number of different images, among `count`; "" if they are enough to learn from."""
    if different + held >= ENOUGH:
        return ""
    advice = f"give {ENOUGH} or more that differ"
    if different <= 1:
        what = "all images are alike" if count > 1 else "there is one image"
        return f"{what}: the network can only learn to draw that one again; {advice}"
    among = f" among {count:,}" if different < count else ""
    what = f"{different} different images{among} are few: "
    if different < LEAST:
        return f"{what}the network learns them by heart, and draws copies of them; {advice}"
    return f"{what}the network draws copies of them before its images are good; {advice}"
