"""The copy horizon: how many images a training may see before its network draws copies of few training images.

Copies begin after a time in proportion to the number of training images; good images come after a time that does not
depend on it (Bonnaire et al. 2025, arXiv:2505.17638).
"""

PASSES = 100  # over the training images, until copies begin; benchmarks/results/few_images has 79 to 124
SAFE = 0.75  # of the horizon: the training ends there, and its learning rate is 0 by then
LEAST, MOST = 22, 1_000  # training images: copies of fewer cannot be told, and more were not measured


def copy_horizon(count: int) -> float | None:
    """Return the images seen after which copies of `count` training images begin, or None if it is not known."""
    return float(PASSES * count) if LEAST <= count <= MOST else None


def safe_images(count: int) -> float | None:
    """Return the images after which a training with `count` images should end, or None if there is no limit."""
    horizon = copy_horizon(count)
    return None if horizon is None else SAFE * horizon
