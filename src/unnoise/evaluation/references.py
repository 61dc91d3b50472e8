"""The images that a run is compared with: held-out images if there are enough, and as many training images."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch

from unnoise.card import Run
from unnoise.config import EvalConfig
from unnoise.data.dataset import Dataset, own_split
from unnoise.evaluation.image_sets import ImageSet, dataset_images, run_data, run_split
from unnoise.evaluation.scores import is_below, read_score
from unnoise.evaluation.statistics import Statistics
from unnoise.progress import Say

ENOUGH = 500  # held-out images; with fewer, KID tells few runs apart: at 500 its interval for equal sets is -3 to 3
MOST = 5_000  # held-out images, and training images: together they are read as fast as the 10,000 of one set
HELD_OUT, TRAINING = "held-out images", "training images"
NEARER = (
    "the images are nearer to the training images than real images are, so some may be copies; look with --metrics "
    "memorization"
)
TOLD_SHARE = 0.01  # of images that two sets share; a larger share is a warning


class References(NamedTuple):
    """The images that scores are compared with, and as many training images if those are held out."""

    main: ImageSet
    training: ImageSet | None = None


def choose_references(config: EvalConfig, run: Run, most: int, say: Say) -> References:
    """Return held-out images and equally many training images of a run, or the data that the settings name.

    No set has more than `most` images. If fewer than ENOUGH images are held out, or the data has changed since the
    training, the set is chosen from all its images.
    """
    dataset = run_data(config, run, say)
    if config.data is not None or config.against is not None:
        return References(reference_images(dataset, config, most, say))
    if dataset.fingerprint != run.card.data.get("fingerprint"):
        say(
            f"warning: {dataset.name} has changed since the training, so it is not known which images were held out: "
            "the scores compare with all images"
        )
        return References(reference_images(dataset, config, most, say))
    trained, held = parts_of(dataset, run)
    if len(held) < ENOUGH:
        which = f"{TRAINING}, since {len(held) or 'no'} images are held out and {ENOUGH} are needed"
        return References(marked(reference_images(dataset, config, most, say), which))
    few = min(most, MOST, len(held), len(trained))
    parts = ((held, HELD_OUT), (trained, TRAINING))
    return References(*(marked(reference_images(part, config, few, say), which) for part, which in parts))


def new_or_trained(trained: Dataset, held: Dataset | None) -> tuple[Dataset, str]:
    """Return the held-out images if there are enough, else the training images, and which they are."""
    return (trained, TRAINING) if held is None or len(held) < ENOUGH else (held, HELD_OUT)


def parts_of(dataset: Dataset, run: Run) -> tuple[Dataset, Dataset]:
    """Return the images that a run was trained on, and all images that it has not seen: whole splits if there are."""
    trained, held = run_split(dataset, run)
    own = own_split(dataset)
    return trained, held if own is None else dataset.part(np.flatnonzero(own))


def marked(images: ImageSet, which: str) -> ImageSet:
    """Return the same images with the fact which of the data they are."""
    return images._replace(about={**images.about, "which": which})


def reference_images(dataset: Dataset, config: EvalConfig, most: int, say: Say) -> ImageSet:
    """Return the data to compare with: all images, or at most this many of them."""
    return dataset_images(dataset, min(len(dataset), most), config.seed, config.batch, say)


# Images in both sets


def shared_shares(a: Statistics, b: Statistics) -> tuple[float, float]:
    """Return the share of images of a that are also in b, pixel for pixel, and the share of images of b in a.

    The keys of large sets are only the smallest ones. So only keys that would be kept in both sets are compared.
    """
    ends = [int(s.keys.max()) for s in (a, b) if s.n > len(s.keys)]
    kept = [s.keys[s.keys <= min(ends)] if ends else s.keys for s in (a, b)]
    shares = [float(torch.isin(x, y).double().mean()) if len(x) else 0.0 for x, y in (kept, kept[::-1])]
    return shares[0], shares[1]


def overlap_warnings(a: Statistics, b: Statistics, names: tuple[str, str]) -> list[str]:
    """Return a warning if two named sets have images in common: copies score better than new images do."""
    (of_a, of_b), (first, second) = shared_shares(a, b), names
    if max(of_a, of_b) < TOLD_SHARE:
        return []
    if min(of_a, of_b) == 1:
        what = f"{first} and {second} are the same images"
    elif max(of_a, of_b) == 1:
        inner, outer = names if of_a == 1 else names[::-1]
        what = f"all of {inner} are also in {outer}"
    else:
        what = f"{of_a:.0%} of {first} are also in {second}"
    return [f"{what}, pixel for pixel: such images score better than new real images do"]


def shared_images(found: Sequence[Statistics | None], sets: Sequence[ImageSet | None]) -> list[str]:
    """Return warnings about images that are in two of three sets: the scored one, its reference, training images."""
    names = [
        f"the {images.n:,} {images.about.get('which', 'images').partition(',')[0]} of {images.about['name']}"
        for images in sets
        if images
    ]
    known = [s for s in found if s]
    pairs = combinations(zip(known, names, strict=True), 2)
    return [text for (a, one), (b, other) in pairs for text in overlap_warnings(a, b, (one, other))]


def copy_warnings(training: dict[str, Any]) -> list[str]:
    """Return a warning if images are clearly nearer to the training images than held-out images are, by KID."""
    found = training.get("kid_difference")
    return [NEARER] if found and is_below(read_score(found)) else []
