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
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import ImageSet, every_batch, run_data, run_images, run_split, tell_news
from unnoise.evaluation.near_copies import (
    NEAR,
    PLANTED,
    SPACES,
    VIEWS,
    Closest,
    Vectors,
    both_ways,
    closest,
    describe,
    describe_copies,
    nearer,
    no_neighbours,
    plant,
    share_of_copies,
    small_pixels,
)
from unnoise.evaluation.scores import wilson
from unnoise.files import replacing
from unnoise.images import Uint8Images, as_uint8, grid, to_uint8
from unnoise.progress import Report, Say, mute
from unnoise.types import Images

ALARM = 0.01  # share of new images that is flagged by mistake, if there are enough images to set the threshold
CALIBRATION = 2_000  # new images that set the threshold, at most
ENOUGH = 200  # held-out images to calibrate on; if there are fewer, training images take their place
TWIN = 0.02  # a new image with a smaller closeness is a copy itself, and says nothing about new images
NEIGHBOURS = 20  # nearest training images of each image whose distances are kept
LEAST_TRAINED = NEIGHBOURS + 2  # images
WORST = 24  # pairs on the contact sheet
CLASSES_TOLD = 5  # classes with the most flagged images that are printed


class Reference(NamedTuple):
    """The training images, and the new images that set the threshold.

    New images are held-out images. If too few are held out, training images take their place, each compared with all
    other training images: it is as far from them as any new image of the same kind.
    """

    trained: Dataset
    new: Dataset
    chosen: Int[np.ndarray, " m"]  # the new images that are used
    mirrored: bool  # the run was trained on mirrored images too

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
    planted = plant_and_describe(reference, extractor, config.seed)
    found, known, *near_copies = search(samples, [*planted.values()], reference, extractor, report, say)
    judged = judge(found, known, dict(zip(planted, near_copies, strict=True)), reference)
    pairs = contact_sheet(pixels, reference.trained, found, [*judged["thresholds"].values()])
    return {
        **judged,
        "n": n,
        "sheet": write_sheet(pairs, run.card.mode, folder, say) if folder else None,
        "of": images.about,
        "features": extractor.about,
    }


def judge(found: Closest, known: Closest, planted: dict[str, Closest], reference: Reference) -> dict[str, Any]:
    """Return what the closeness of the drawn images means, from new images and planted copies."""
    new = (known.closeness > TWIN).all(dim=0)
    thresholds, alarm = limits(known.closeness[:, new])
    limit = torch.tensor(thresholds)[:, None]
    flags, alarms = found.closeness < limit, (known.closeness <= limit).any(dim=0)
    caught = {kind: (near.closeness < limit).any(dim=0) for kind, near in planted.items()}
    return {
        **verdict(flags),
        "thresholds": dict(zip(SPACES, thresholds, strict=True)),
        "false_alarms": alarm,
        **estimate(flags.any(dim=0), alarms, caught),
        "by_class": flagged_classes(flags, found, thresholds, reference.trained),
        **describe_reference(reference, int(new.sum())),
    }


def estimate(flagged: Bool[Tensor, " n"], alarms: Bool[Tensor, " m"], caught: dict[str, Tensor]) -> dict[str, Any]:
    """Return the share of copies, and its sources: flags of new images, twins included, and of planted copies."""
    counts = [(int(each.sum()), len(each)) for each in (flagged, alarms, torch.cat([caught[kind] for kind in NEAR]))]
    return {
        "false_alarms_with_twins": float(alarms.double().mean()),
        "detection": {kind: float(each.double().mean()) for kind, each in caught.items()},
        "copies": share_of_copies(counts[0], counts[1], counts[2]),
    }


def plant_and_describe(reference: Reference, extractor: Extractor, seed: int) -> dict[str, list[Vectors]]:
    """Return the vectors of near copies of some training images, by kind, in all views."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(reference.trained))[:PLANTED])
    images, others = (
        torch.cat(list(read_batches(data, indices)))
        for data, indices in ((reference.trained, chosen), (reference.new, reference.chosen[:PLANTED]))
    )
    with torch.inference_mode():
        return {kind: list(describe(made, extractor)) for kind, made in plant(images, others, seed).items()}


def flagged_classes(
    flags: Bool[Tensor, "s n"], found: Closest, thresholds: list[float], dataset: Dataset
) -> dict[str, int]:
    """Return the number of flagged images by the class of their nearest training image; nothing without classes."""
    if not dataset.classes or not flags.any():
        return {}
    space = over_thresholds(found, thresholds).argmin(dim=0)
    twins = found.first.gather(0, space[None])[0][flags.any(dim=0)]
    found_labels = dataset.labels(twins.numpy())
    labels = [] if found_labels is None else [int(label) for label in found_labels if label >= 0]
    return {dataset.classes[label]: labels.count(label) for label in sorted(set(labels))}


def over_thresholds(found: Closest, thresholds: list[float]) -> Float[Tensor, "s n"]:
    """Return the closeness in every space over its threshold: where it is least, an image is most like a copy."""
    return found.closeness / torch.tensor(thresholds)[:, None].clamp(min=1e-12)


def describe_reference(reference: Reference, calibrated: int) -> dict[str, Any]:
    """Return facts about the reference; `calibrated` new images have set the threshold."""
    return {
        "calibrated_on": f"{calibrated} {'training' if reference.stands_in else 'held-out'} images",
        "copies_in_the_data": len(reference.chosen) - calibrated,
        "twins": 1 - calibrated / len(reference.chosen),
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
    if len(trained) < LEAST_TRAINED:
        raise InputError(f"memorization needs {LEAST_TRAINED} training images or more, there are {len(trained)}")
    chosen = np.sort(np.random.default_rng(config.seed).permutation(len(new))[:CALIBRATION])
    return Reference(trained, new, chosen, run.card.mirrored)


def draw_and_describe(images: ImageSet, extractor: Extractor, report: Report) -> tuple[Uint8Images, list[Vectors]]:
    """Return all images of a set, [n, c, h, w], and their vectors in all views."""
    drawn, vectors = list[Tensor](), list[tuple[Vectors, ...]]()
    with torch.inference_mode():
        for pixels in images.stream(every_batch):
            drawn.append(pixels.cpu())
            vectors.append(describe(pixels, extractor))
            report("drawing", sum(map(len, drawn)), images.n)
    return torch.cat(drawn), [torch.cat(parts) for parts in zip(*vectors, strict=True)]


def read_batches(dataset: Dataset, indices: np.ndarray, size: int = 256) -> Iterator[Uint8Images]:
    """Yield these images of a dataset, 8-bit, in batches."""
    for start in range(0, len(indices), size):
        yield as_uint8(torch.from_numpy(dataset.read(indices[start : start + size])))


def search(
    samples: list[Vectors],
    planted: list[list[Vectors]],
    reference: Reference,
    extractor: Extractor,
    report: Report,
    say: Say = mute,
) -> list[Closest]:
    """Find the nearest training images of the samples, the new images and the planted copies, in one pass.

    A training image that takes the place of a new image is not compared with itself.
    """
    with torch.inference_mode():
        described = (describe(pixels, extractor) for pixels in read_batches(reference.new, reference.chosen))
        known = [torch.cat(parts) for parts in zip(*described, strict=True)]
    asked, dataset = [samples, known, *planted], reference.trained
    own = torch.from_numpy(reference.chosen) if reference.stands_in else None
    k = min(NEIGHBOURS, len(dataset) - 1)
    found = [[no_neighbours(len(x), k) for x in vectors] for vectors in asked]
    place = 0
    with torch.inference_mode():
        for pixels in read_batches(dataset, np.arange(len(dataset))):
            indices = torch.arange(place, place + len(pixels))
            for shown in both_ways(pixels, mirrored=reference.mirrored):
                training = describe(shown, extractor)
                for which, vectors in enumerate(asked):
                    same = own if which == 1 else None
                    for view in range(len(VIEWS)):
                        found[which][view] = nearer(found[which][view], vectors[view], training[view], indices, same)
            place += len(pixels)
            report("searching", place, len(dataset))
    tell_news(dataset, say)
    return [closest(each, [x.shape[1] for x in samples[3:]]) for each in found]


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


def limits(closeness: Float[Tensor, "s m"]) -> tuple[list[float], float]:
    """Return the threshold of closeness in each space, and the largest share of new images below any threshold.

    A new image is equally likely to fall anywhere between the m calibration images: it lies below the k-th of them with
    probability k / (m + 1).
    """
    spaces, m = closeness.shape
    if not m:
        raise InputError("every image has a copy among the training images: no new image is left to set the threshold")
    k = max(1, math.floor(ALARM / spaces * (m + 1)))
    return closeness.kthvalue(k, dim=1).values.tolist(), min(1.0, spaces * k / (m + 1))


def verdict(flags: Bool[Tensor, "s n"]) -> dict[str, Any]:
    """Return the share of flagged images with its interval, and the share in each space."""
    copied = flags.any(dim=0)
    return {
        "flagged": float(copied.double().mean()),
        "interval": list(wilson(float(copied.double().mean()), len(copied))),
        "by_space": {space: float(flag.double().mean()) for space, flag in zip(SPACES, flags, strict=True)},
    }


def contact_sheet(
    pixels: UInt8[Tensor, "n _ _ _"], dataset: Dataset, found: Closest, thresholds: list[float]
) -> Uint8Images:
    """Return the nearest pairs, [2 pairs, c, h, w]: each drawn image followed by its training image.

    They are ordered by closeness over its threshold, and each training image appears once.
    """
    least, space = over_thresholds(found, thresholds).min(dim=0)
    nearest = dict[int, int]()  # training image -> the nearest drawn image
    for i in least.argsort().tolist():
        nearest.setdefault(int(found.first[space[i], i]), i)
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
    of_new = f"{result['false_alarms_with_twins']:.1%} of new images are flagged too"
    twins = f"{result['twins']:.1%} of them have a twin in the training images" if result["twins"] else ""
    lines = [
        f"memorization      {share}, are nearer to one training image than new images are",
        f"                  {spaces}; {', '.join(filter(None, [of_new, twins]))}",
        f"                  {describe_copies(result['copies'])}",
        "                  found of planted copies: "
        + ", ".join(f"{share:.0%} by {kind}" for kind, share in result["detection"].items()),
    ]
    if result["by_class"]:
        counts = sorted(result["by_class"].items(), key=lambda pair: -pair[1])[:CLASSES_TOLD]
        lines.append("                  of classes: " + ", ".join(f"{name} {count}" for name, count in counts))
    if result["sheet"]:
        lines.append(f"                  nearest pairs, each drawn image left of its training image: {result['sheet']}")
    return lines
