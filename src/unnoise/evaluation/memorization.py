"""Audit a run for copies: compare the nearest training image of each drawn image with what new images have."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from unnoise.card import Run
from unnoise.config import EvalConfig
from unnoise.data.dataset import Dataset
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor, resized
from unnoise.evaluation.image_sets import ImageSet, every_batch, run_data, run_images, run_split, tell_news
from unnoise.evaluation.scores import wilson
from unnoise.files import replacing
from unnoise.images import Uint8Images, as_uint8, grid, to_uint8
from unnoise.progress import Report, Say, mute
from unnoise.types import Images

ALARM = 0.01  # share of new images that is flagged by mistake, if there are enough images to set the threshold
CALIBRATION = 2_000  # new images that set the threshold, at most
ENOUGH = 200  # held-out images to calibrate on; if there are fewer, training images take their place
TWIN = 0.02  # a new image with a smaller closeness is a copy itself, and says nothing about new images
SIDE = 32  # pixels are compared at this size
NEIGHBOURS = 20  # nearest training images of each image whose distances are kept
WORST = 24  # pairs on the contact sheet
SPACES = ("features", "pixels")

Vectors = Float[Tensor, "_ _"]  # [n, d], one row for each image


class Nearest(NamedTuple):
    """The distances of each image to its nearest training images, ascending, and the index of the nearest one."""

    distances: Float[Tensor, "n k"]
    first: Int[Tensor, " n"]

    @property
    def closeness(self) -> Float[Tensor, " n"]:
        """Return the nearest distance over the mean of the next: Carlini et al. 2023 (arXiv:2301.13188), section 5.1.

        A blurred image is near to all training images alike; a copy is near to its own original only.
        """
        return self.distances[:, 0] / self.distances[:, 1:].mean(dim=1).clamp(min=1e-12)


class Reference(NamedTuple):
    """The training images, and the new images that set the threshold.

    New images are held-out images. If too few are held out, training images take their place, each compared with all
    other training images: it is as far from them as any new image of the same kind.
    """

    trained: Dataset
    new: Dataset
    chosen: Int[np.ndarray, " m"]  # the new images that are used

    @property
    def stands_in(self) -> bool:
        """Return True if training images take the place of new images, since too few are held out."""
        return self.new is self.trained


def audit(
    config: EvalConfig,
    run: Run,
    extractor: Extractor,
    n: int,
    report: Report,
    folder: Path | None = None,
    say: Say = mute,
) -> dict[str, Any]:
    """Measure the share of drawn images that are nearer to one training image than new images are.

    Args:
        config: The settings; they name the data and the sampling settings.
        run, extractor: The run to audit, and the feature extractor.
        n, report, say: The number of images to draw; called with (task, items done, items in total), and with a line.
        folder: Where the contact sheet of the nearest pairs is written, as memorization.png; None writes no sheet.

    Returns:
        The flagged share with its interval and settings; a new image is flagged with probability ALARM at most.

    Raises:
        InputError: If the data is not the training data of the run, or there are too few images.
    """
    reference = open_reference(config, run, say)
    pixels, samples = draw_and_describe(images := run_images(config, run, n), extractor, report)
    found, known = search(samples, reference, extractor, report, say)
    calibrated = torch.stack([near.closeness for near in known])
    calibrated = calibrated[:, (calibrated > TWIN).all(dim=0)]
    thresholds, alarm = limits(calibrated)
    pairs = contact_sheet(pixels, reference.trained, found, thresholds)
    return {
        **verdict(torch.stack([near.closeness < limit for near, limit in zip(found, thresholds, strict=True)])),
        "thresholds": dict(zip(SPACES, thresholds, strict=True)),
        "false_alarms": alarm,
        **describe_reference(reference, calibrated.shape[1]),
        "n": n,
        "sheet": write_sheet(pairs, run.card.mode, folder, say) if folder else None,
        "of": images.about,
        "features": extractor.about,
    }


def describe_reference(reference: Reference, calibrated: int) -> dict[str, Any]:
    """Return facts about the reference; `calibrated` new images have set the threshold."""
    return {
        "calibrated_on": f"{calibrated} {'training' if reference.stands_in else 'held-out'} images",
        "copies_in_the_data": len(reference.chosen) - calibrated,
        "training_images": len(reference.trained),
    }


def open_reference(config: EvalConfig, run: Run, say: Say = mute) -> Reference:
    """Open the training data of a run; raise InputError if it is other data or too small."""
    everything = run_data(config, run, say)
    if not run.card.data.get("fingerprint"):
        raise InputError("memorization needs the training images, and this model does not say which they were")
    if everything.fingerprint != run.card.data.get("fingerprint"):
        raise InputError(
            f"memorization is measured against the training data of the run, and {everything.name} is other data; name "
            "the training data with --data"
        )
    trained, held_out = run_split(everything, run)
    new = held_out if len(held_out) >= ENOUGH else trained
    if len(trained) < NEIGHBOURS + 2:
        raise InputError(f"memorization needs {NEIGHBOURS + 2} training images or more, there are {len(trained)}")
    return Reference(trained, new, np.sort(np.random.default_rng(config.seed).permutation(len(new))[:CALIBRATION]))


def draw_and_describe(images: ImageSet, extractor: Extractor, report: Report) -> tuple[Uint8Images, list[Vectors]]:
    """Return all images of a set, [n, c, h, w], and their vectors in both spaces."""
    drawn, vectors = list[Tensor](), list[tuple[Vectors, Vectors]]()
    with torch.inference_mode():
        for pixels in images.stream(every_batch):
            drawn.append(pixels.cpu())
            vectors.append(describe(pixels, extractor))
            report("drawing", sum(map(len, drawn)), images.n)
    return torch.cat(drawn), [torch.cat(parts) for parts in zip(*vectors, strict=True)]


def describe(pixels: Uint8Images, extractor: Extractor) -> tuple[Vectors, Vectors]:
    """Return the vectors of images in both spaces: features, and pixels."""
    return extractor(pixels)[0].cpu(), small_pixels(pixels)


def small_pixels(pixels: Uint8Images) -> Vectors:
    """Return the pixels in [-1, 1] as vectors; images larger than SIDE are shrunk to it."""
    shrunk = resized(pixels, SIDE) if min(pixels.shape[-2:]) > SIDE else pixels.float() / 127.5 - 1
    return shrunk.flatten(1).cpu()


def read_batches(dataset: Dataset, indices: np.ndarray, size: int = 256) -> Iterator[Uint8Images]:
    """Yield these images of a dataset, 8-bit, in batches."""
    for start in range(0, len(indices), size):
        yield as_uint8(torch.from_numpy(dataset.read(indices[start : start + size])))


def search(
    samples: list[Vectors], reference: Reference, extractor: Extractor, report: Report, say: Say = mute
) -> tuple[list[Nearest], list[Nearest]]:
    """Find the nearest training images of the samples and of the new images, in both spaces, in one pass.

    A training image that takes the place of a new image is not compared with itself.
    """
    with torch.inference_mode():
        described = (describe(pixels, extractor) for pixels in read_batches(reference.new, reference.chosen))
        known = [torch.cat(parts) for parts in zip(*described, strict=True)]
    dataset, own = reference.trained, torch.from_numpy(reference.chosen) if reference.stands_in else None
    k = min(NEIGHBOURS, len(dataset) - 1)
    found = [no_neighbours(len(x), k) for x in samples], [no_neighbours(len(x), k) for x in known]
    place = 0
    with torch.inference_mode():
        for pixels in read_batches(dataset, np.arange(len(dataset))):
            vectors, indices = describe(pixels, extractor), torch.arange(place, place + len(pixels))
            for i, training in enumerate(vectors):
                found[0][i] = nearer(found[0][i], samples[i], training, indices, None)
                found[1][i] = nearer(found[1][i], known[i], training, indices, own)
            place += len(pixels)
            report("searching", place, len(dataset))
    tell_news(dataset, say)
    return found


def nearest(images: Images, dataset: Dataset) -> Images:
    """Return the image of a dataset that is nearest to each image, by pixels that are shrunk to SIDE."""
    samples, place = small_pixels(to_uint8(images)), 0
    found = no_neighbours(len(samples), 1)
    with torch.inference_mode():
        for pixels in read_batches(dataset, np.arange(len(dataset))):
            indices = torch.arange(place, place + len(pixels))
            found, place = nearer(found, samples, small_pixels(pixels), indices, None), place + len(pixels)
    twins = dataset.read(found.first.numpy())
    return as_uint8(torch.from_numpy(twins)).float() / 127.5 - 1


def no_neighbours(count: int, k: int) -> Nearest:
    """Return the start of a search for k neighbours: all distances are infinite."""
    return Nearest(torch.full((count, k), math.inf), torch.full((count,), -1))


def nearer(
    best: Nearest, x: Vectors, training: Vectors, indices: Int[Tensor, " b"], own: Int[Tensor, " n"] | None
) -> Nearest:
    """Return the nearest of the best so far and these training images.

    `indices` number the training images. `own` numbers x if they are training images, which do not count themselves.
    """
    apart = torch.cdist(x, training)
    if own is not None:
        apart = apart.masked_fill(own[:, None] == indices, math.inf)
    distance, at = apart.min(dim=1)
    first = torch.where(distance < best.distances[:, 0], indices[at], best.first)
    k = best.distances.shape[1]
    return Nearest(torch.cat([best.distances, apart], dim=1).topk(k, dim=1, largest=False).values, first)


def limits(closeness: Float[Tensor, "2 m"]) -> tuple[list[float], float]:
    """Return the threshold of closeness in each space, and the largest share of new images below either threshold.

    A new image is equally likely to fall anywhere between the m calibration images: it lies below the k-th of them with
    probability k / (m + 1).
    """
    m = closeness.shape[1]
    if not m:
        raise InputError("every image has a copy among the training images: no new image is left to set the threshold")
    k = max(1, math.floor(ALARM / 2 * (m + 1)))
    return closeness.kthvalue(k, dim=1).values.tolist(), min(1.0, 2 * k / (m + 1))


def verdict(flags: Bool[Tensor, "2 n"]) -> dict[str, Any]:
    """Return the share of flagged images with its interval, and the share in each space."""
    copied = flags.any(dim=0)
    return {
        "flagged": float(copied.double().mean()),
        "interval": list(wilson(float(copied.double().mean()), len(copied))),
        "by_space": {space: float(flag.double().mean()) for space, flag in zip(SPACES, flags, strict=True)},
    }


def contact_sheet(
    pixels: UInt8[Tensor, "n _ _ _"], dataset: Dataset, found: list[Nearest], thresholds: list[float]
) -> Uint8Images:
    """Return the nearest pairs, [2 pairs, c, h, w]: each drawn image followed by its training image.

    They are ordered by closeness over its threshold, and each training image appears once.
    """
    over = torch.stack([near.closeness / max(limit, 1e-12) for near, limit in zip(found, thresholds, strict=True)])
    least, space = over.min(dim=0)
    nearest = dict[int, int]()  # training image -> the nearest drawn image
    for i in least.argsort().tolist():
        nearest.setdefault(int(found[int(space[i])].first[i]), i)
    pairs = []
    for twin, i in list(nearest.items())[:WORST]:
        pairs += [pixels[i : i + 1], as_uint8(torch.from_numpy(dataset.read(np.array([twin]))))]
    return torch.cat(pairs)


def write_sheet(sheet: Uint8Images, mode: str, folder: Path, say: Say) -> str | None:
    """Write the contact sheet into a folder, and return its path; return None, and say why, if that is impossible."""
    place = folder / "memorization.png"
    try:
        with replacing(place) as temporary:
            grid(sheet / 127.5 - 1, mode, columns=8).save(temporary, format="PNG")
    except OSError as error:
        say(f"warning: the nearest pairs are not written to {place}: {error}")
        return None
    return str(place)


def format_audit(result: dict[str, Any]) -> list[str]:
    """Return the lines that `unnoise eval` prints."""
    low, high = result["interval"]
    spaces = ", ".join(f"{share:.1%} by {space}" for space, share in result["by_space"].items())
    share = f"{result['flagged']:.2%} of {result['n']:,} images, {low:.2%} to {high:.2%} (95 %)"
    lines = [
        f"memorization      {share}, are nearer to one training image than new images are",
        f"                  {spaces}; of new images at most {result['false_alarms']:.1%} are flagged, on average",
    ]
    if result["sheet"]:
        lines.append(f"                  nearest pairs, each drawn image left of its training image: {result['sheet']}")
    return lines
