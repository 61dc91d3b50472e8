"""Are pictures copies of the training data? The nearest training image of each, against what new pictures have."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unnoise.card import Run
from unnoise.config import EvalConfig
from unnoise.data.dataset import Dataset
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor, resized
from unnoise.evaluation.image_sets import every, run_data, run_images, run_split
from unnoise.files import replacing
from unnoise.images import Uint8Images, as_uint8, grid, to_uint8
from unnoise.progress import Report
from unnoise.types import Images

ALARM = 0.01  # share of new pictures that is flagged by mistake, where there are enough to set the threshold
CALIBRATION = 2_000  # new images that set the threshold, at most
ENOUGH = 200  # held-out images to calibrate on; with fewer, training images stand in for them
TWIN = 0.02  # closeness below which a new image is a copy itself, and says nothing of new ones
SIDE = 32  # pixels are compared at this size
NEIGHBOURS = 20  # of each picture, whose distances are kept
WORST = 24  # pairs on the contact sheet
SPACES = ("features", "pixels")

Vectors = Float[Tensor, "_ _"]


class Nearest(NamedTuple):
    """Of each picture, the distances to its nearest training images so far, the nearest first, and which that is."""

    distances: Float[Tensor, "n k"]
    first: Int[Tensor, " n"]

    @property
    def closeness(self) -> Float[Tensor, " n"]:
        """The nearest over the mean of the next; Carlini et al. 2023 (arXiv:2301.13188), section 5.1.

        A blurred picture is near to all images alike; a copy only to its own.
        """
        return self.distances[:, 0] / self.distances[:, 1:].mean(dim=1).clamp(min=1e-12)


def audit(config: EvalConfig, run: Run, extractor: Extractor, n: int, report: Report) -> dict[str, Any]:
    """Share of n drawn pictures that are nearer to one training image than new ones are, but for ALARM of these.

    New ones are held-out images, or where there are too few training images against all the others: these are as far
    from them as any new picture of the same kind. Half of ALARM goes to each space. Writes a contact sheet of the
    nearest pairs.
    """
    everything = run_data(config, run)
    if not run.card.data.get("fingerprint"):
        raise InputError("memorization needs the images of the training, and this model does not say which they were")
    if everything.fingerprint != run.card.data.get("fingerprint"):
        raise InputError(
            f"memorization is measured against what the run was trained on, and {everything.name} is other data; name "
            "the training data with --data"
        )
    dataset, held = run_split(everything, run)
    new = held if len(held) >= ENOUGH else dataset
    if len(dataset) < NEIGHBOURS + 2:
        raise InputError(f"memorization needs {NEIGHBOURS + 2} training images or more, there are {len(dataset)}")
    pictures = run_images(config, run, n)
    made, vectors = [], []
    with torch.inference_mode():
        for pixels in pictures.stream(every):
            made.append(pixels.cpu())
            vectors.append(seen(pixels, extractor))
            report("drawing", sum(map(len, made)), n)
    samples = [torch.cat(parts) for parts in zip(*vectors, strict=True)]
    chosen = np.sort(np.random.default_rng(config.seed).permutation(len(new))[:CALIBRATION])
    with torch.inference_mode():
        looked = zip(*(seen(p, extractor) for p in batched(new, chosen)), strict=True)
        known = [torch.cat(parts) for parts in looked]
    found = search(samples, known, torch.from_numpy(chosen) if new is dataset else None, dataset, extractor, report)
    calibrated = torch.stack([near.closeness for near in found[1]])
    calibrated = calibrated[:, (calibrated > TWIN).all(dim=0)]
    thresholds, alarm = limits(calibrated)
    flags = torch.stack([near.closeness < limit for near, limit in zip(found[0], thresholds, strict=True)])
    copied = flags.any(dim=0)
    sheet = worst(torch.cat(made), dataset, found[0], thresholds, run)
    share = float(copied.double().mean())
    return {
        "flagged": share,
        "interval": list(wilson(int(copied.sum()), n)),
        "by_space": {space: float(flag.double().mean()) for space, flag in zip(SPACES, flags, strict=True)},
        "thresholds": dict(zip(SPACES, thresholds, strict=True)),
        "false_alarms": alarm,
        "calibrated_on": f"{calibrated.shape[1]} {'training' if new is dataset else 'held-out'} images",
        "copies_in_the_data": len(chosen) - calibrated.shape[1],
        "n": n,
        "training_images": len(dataset),
        "sheet": str(sheet),
        "of": pictures.about,
        "features": extractor.about,
    }


def seen(pixels: Uint8Images, extractor: Extractor) -> tuple[Vectors, Vectors]:
    """Of pictures, both kinds of vectors that are compared."""
    return extractor(pixels)[0].cpu(), small(pixels)


def small(pixels: Uint8Images) -> Vectors:
    """The pixels themselves, at SIDE where they are larger."""
    shrunk = resized(pixels, SIDE) if min(pixels.shape[-2:]) > SIDE else pixels.float() / 127.5 - 1
    return shrunk.flatten(1).cpu()


def batched(dataset: Dataset, indices: np.ndarray, size: int = 256) -> Iterator[Uint8Images]:
    for start in range(0, len(indices), size):
        yield as_uint8(torch.from_numpy(dataset.read(indices[start : start + size])))


def search(
    samples: list[Vectors],
    known: list[Vectors],
    chosen: Int[Tensor, " m"] | None,
    dataset: Dataset,
    extractor: Extractor,
    report: Report,
) -> tuple[list[Nearest], list[Nearest]]:
    """One pass over the training images: the nearest of each sample, and of each known one, itself left out.

    chosen: which training images the known ones are, if they are.
    """
    k = min(NEIGHBOURS, len(dataset) - 1)
    found = [start(len(x), k) for x in samples], [start(len(x), k) for x in known]
    place = 0
    with torch.inference_mode():
        for pixels in batched(dataset, np.arange(len(dataset))):
            vectors, indices = seen(pixels, extractor), torch.arange(place, place + len(pixels))
            for i, training in enumerate(vectors):
                found[0][i] = nearer(found[0][i], samples[i], training, indices, None)
                found[1][i] = nearer(found[1][i], known[i], training, indices, chosen)
            place += len(pixels)
            report("searching", place, len(dataset))
    return found


def nearest(images: Images, dataset: Dataset) -> Images:
    """Of each image, the one of the data that is nearest in its pixels, at SIDE or less."""
    samples, place = small(to_uint8(images)), 0
    found = start(len(samples), 1)
    with torch.inference_mode():
        for pixels in batched(dataset, np.arange(len(dataset))):
            indices = torch.arange(place, place + len(pixels))
            found, place = nearer(found, samples, small(pixels), indices, None), place + len(pixels)
    twins = dataset.read(found.first.numpy())
    return as_uint8(torch.from_numpy(twins)).float() / 127.5 - 1


def start(count: int, k: int) -> Nearest:
    return Nearest(torch.full((count, k), math.inf), torch.full((count,), -1))


def nearer(
    best: Nearest, x: Vectors, training: Vectors, indices: Int[Tensor, " b"], own: Int[Tensor, " n"] | None
) -> Nearest:
    """The nearest so far, and among these; `own` are the indices of x itself, which do not count."""
    apart = torch.cdist(x, training)
    if own is not None:
        apart = apart.masked_fill(own[:, None] == indices, math.inf)
    distance, at = apart.min(dim=1)
    first = torch.where(distance < best.distances[:, 0], indices[at], best.first)
    k = best.distances.shape[1]
    return Nearest(torch.cat([best.distances, apart], dim=1).topk(k, dim=1, largest=False).values, first)


def limits(closeness: Float[Tensor, "2 m"]) -> tuple[list[float], float]:
    """Of both spaces, below what a picture is a copy, and the share of new ones below either, at most.

    A new one is as likely to come before any of the m: below the k-th it lies with k / (m + 1).
    """
    m = closeness.shape[1]
    if not m:
        raise InputError("every image has a copy in the training: there is no new one to tell what is far")
    k = max(1, math.floor(ALARM / 2 * (m + 1)))
    return closeness.kthvalue(k, dim=1).values.tolist(), min(1.0, 2 * k / (m + 1))


def wilson(count: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson 1927: an interval of 95 % for a share, sensible at 0 and 1 too."""
    share, extra = count / n, z**2 / n
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(share * (1 - share) / n + extra / n / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def worst(pixels: Uint8Images, dataset: Dataset, found: list[Nearest], thresholds: list[float], run: Run) -> Path:
    """Contact sheet: the nearest beside their training images, each of these once; by closeness over its threshold."""
    over = torch.stack([near.closeness / max(limit, 1e-12) for near, limit in zip(found, thresholds, strict=True)])
    least, space = over.min(dim=0)
    nearest = dict[int, int]()  # training image -> the nearest picture
    for i in least.argsort().tolist():
        nearest.setdefault(int(found[int(space[i])].first[i]), i)
    pairs = []
    for twin, i in list(nearest.items())[:WORST]:
        pairs += [pixels[i : i + 1], as_uint8(torch.from_numpy(dataset.read(np.array([twin]))))]
    place = run.folder / "memorization.png"
    with replacing(place) as temporary:
        grid(torch.cat(pairs) / 127.5 - 1, run.card.mode, columns=8).save(temporary, format="PNG")
    return place


def table(found: dict[str, Any]) -> list[str]:
    """What is printed of it."""
    low, high = found["interval"]
    spaces = ", ".join(f"{share:.1%} by {space}" for space, share in found["by_space"].items())
    verdict = f"{found['flagged']:.2%} of {found['n']:,} pictures, {low:.2%} to {high:.2%} (95 %)"
    return [
        f"memorization      {verdict}, are nearer to one training image than new ones are",
        f"                  {spaces}; of new pictures {found['false_alarms']:.1%} would be at most, on average",
        f"                  nearest pairs, each drawn picture left of its training image: {found['sheet']}",
    ]
