"""Does `--flip` suit a set of images? A linear classifier tries to distinguish them from their mirror images."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from unnoise.data.dataset import Dataset
from unnoise.evaluation.features import FIRST, Extractor, open_extractor
from unnoise.images import Uint8Set, as_uint8
from unnoise.types import RGBA

LEAST, MOST = 22, 500  # images that are looked at
ALIKE = 0.6  # share of images that may be distinguished from their mirror images, if --flip suits them
FOLDS, THUMBNAIL = 5, 16  # parts of the images; pixels

Differences = Float64[Tensor, "n d"]  # of an image and its mirror image


def distinguished_share(dataset: Dataset) -> float | None:
    """Return the share of images that are distinguished from their mirror images, by pixels or features; chance is 0.5.

    Returns None for fewer than LEAST images.
    """
    if len(dataset) < LEAST:
        return None
    pixels = as_uint8(torch.from_numpy(dataset.read(np.sort(dataset.chosen(MOST, 0)))))
    views = [of_thumbnails(pixels)]
    if pixels.shape[1] <= RGBA:
        views.append(of_features(pixels, open_extractor(FIRST)))
    return max(map(share_by, views))


def of_thumbnails(pixels: Uint8Set) -> Differences:
    """Return the differences between small gray images and their mirror images."""
    gray = adaptive_avg_pool2d(pixels.double().mean(dim=1, keepdim=True), THUMBNAIL)
    return (gray - gray.flip(-1)).flatten(1)


def of_features(pixels: Uint8Set, extractor: Extractor) -> Differences:
    """Return the differences between the features of images and of their mirror images."""
    with torch.inference_mode():
        found = [extractor(part)[0] - extractor(part.flip(-1))[0] for part in torch.split(pixels, 64)]
    return torch.cat(found).double().cpu().clone()


def share_by(differences: Differences) -> float:
    """Return the share of images that a direction distinguishes from their mirror images.

    An image and its mirror image differ by opposite numbers. A ridge regression on all images but a fold gives the
    direction, which is applied to the fold.
    """
    n, dimensions = differences.shape
    ridge = torch.eye(dimensions, dtype=torch.float64) * differences.square().mean().clamp(min=1e-12)
    signs = torch.zeros(n, dtype=torch.float64)
    for fold in torch.randperm(n, generator=torch.Generator().manual_seed(0)).chunk(FOLDS):
        taught = differences[~torch.isin(torch.arange(n), fold)]
        direction = torch.linalg.solve(taught.T @ taught + len(taught) * ridge, taught.sum(dim=0))
        signs[fold] = (differences[fold] @ direction).sign()
    return float((1 + signs).mean() / 2)


def describe_mirrored(share: float | None) -> list[str]:
    """Return a line that says if images look alike in a mirror; none if the share is not known."""
    if share is None:
        return []
    verdict = "they look alike" if share < ALIKE else "they look different"
    return [f"mirrored  {share:.0%} of the images are distinguished from their mirror images, by chance 50%: {verdict}"]
