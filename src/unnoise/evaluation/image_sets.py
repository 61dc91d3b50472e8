"""Sets of images to measure: images that a run draws, or images of a dataset; streamed, never in memory as a whole."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import weights_hash
from unnoise.config import EvalConfig, SampleConfig, Sampling
from unnoise.data.cache import open_data
from unnoise.data.dataset import ABOUT_CLASSES, Dataset, class_counts, own_split, split_held_out
from unnoise.data.frames import read_as
from unnoise.data.numbers import agree
from unnoise.data.resize import OWN
from unnoise.data.sources.find import find
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor
from unnoise.files import user_path
from unnoise.images import Uint8Images, as_uint8, to_uint8
from unnoise.options import plain
from unnoise.progress import Say, mute
from unnoise.samplers.precision import choose_precision, measure_seconds, seconds_per_image
from unnoise.sampling import network_calls, resolve_settings, sample_batches

BY_COUNT, IN_TURN = "in the proportions of the data", "in turn"  # the classes of drawn images
BatchFilter = Callable[[int], bool]  # True for the number of a batch that is wanted


def every_batch(_: int) -> bool:
    """Return True: no batch is skipped."""
    return True


class ImageSet(NamedTuple):
    """A set of images that can be streamed, and the facts that are reported with its scores."""

    stream: Callable[[BatchFilter], Iterator[Uint8Images]]  # yields the wanted batches, [b, c, h, w]
    n: int
    channels: int
    about: dict[str, Any]
    batch: int  # images
    key: str | None = None  # its statistics are cached under this key
    resumable: bool = True  # unfinished statistics may be saved: `about` names all that the images depend on
    seconds_per_image: float = 0.0  # estimated time to make one image
    labels: Callable[[], tuple[Tensor, tuple[str, ...]]] | None = None  # the class of each image, and their names


def tell_notes(dataset: Dataset, say: Say) -> Dataset:
    """Say how the images of a dataset were read, and return the dataset; classes do not matter here."""
    for note in dataset.notes:
        if not note.startswith(ABOUT_CLASSES):
            say(f"{dataset.name}: {note}")
    return dataset


def tell_news(dataset: Dataset, say: Say) -> None:
    """Say what happened while images were read from their files: another image replaces one that cannot be read."""
    for line in dataset.store.news():
        say(f"warning: {line}")


def open_images(images: Any, say: Say = mute, size: str | None = None) -> Dataset:
    """Open any data that open_data accepts, or images [n, c, h, w] in [-1, 1] as `sample` returns them.

    They keep their own size by default.

    A float tensor with negative values is in [-1, 1]; its pixels are equal to the files that `unnoise sample` writes.
    """
    if isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point() and images.numel():
        images = images.detach().cpu().float()
        if bad := (~images.isfinite().flatten(1).all(1)).sum().item():  # a score of the others would be too good
            raise InputError(f"{bad} of the {len(images)} images hold nan or inf; leave them out, or draw them anew")
        images = to_uint8(images) if images.amin() < -0.001 else images
    return tell_notes(open_data(images, size=size or OWN), say)


def run_data(config: EvalConfig, run: Run, say: Say = mute) -> Dataset:
    """Open the data that the settings name, or else the training data, in the size and channels of the run.

    Args:
        config: The settings.
        run: The run.
        say: Called with a line for each thing that happened when the images were read.
    """
    trained = run.card.training.get("config", {})
    given = config.data if config.against is None else config.against
    source = trained.get("data") if given is None else given
    if source is None:
        raise InputError("this model does not say what it was trained on; name images with --data")
    if given is None and not (isinstance(source, str) and is_here(source)):
        where = "is not on this machine, or was named from another folder"
        raise InputError(f"this run was trained on {source!r:.200}, which {where}; name images with --data")
    c, h, w = run.card.shape
    limit = trained.get("limit") if given is None else None
    column = trained.get("label_column") if given is None else None
    stream = trained.get("stream", False) and find(source, column).groups is not None
    if given is None:
        source = read_as(source, trained.get("frames", "first"), trained.get("max_pixels"), column)
    wishes = {"size": f"{w}x{h}", "channels": c, "fit": trained.get("fit", "crop"), "limit": limit, "stream": stream}
    dataset = open_data(source, **wishes)
    if isinstance(source, Dataset) or agree(dataset.spans, run.card.spans):
        return tell_notes(dataset, say)
    return tell_notes(open_data(replace(find(source), spans=run.card.spans), **wishes), say)


def run_split(dataset: Dataset, run: Run) -> tuple[Dataset, Dataset]:
    """Split the training data of a run into the images it was trained on and the images held out."""
    return split_held_out(dataset, run.card.data.get("held_out", 0))


def is_here(source: str) -> bool:
    """Return True if there is a path or a built-in dataset of this name."""
    return user_path(source).exists() or source.partition(":")[0].strip() in registry.dataset.names()


class LabelRule(NamedTuple):
    """The classes that drawn images get."""

    facts: dict[str, Any]  # reported with the scores; empty for a run without classes
    counts: list[int] | None = None  # of each class and of no class; None: every class in turn


def label_rule(config: EvalConfig, run: Run) -> LabelRule:
    """Return the rule for the classes of drawn images: as the settings say, or in turn if there are no counts."""
    if not run.card.classes:
        return LabelRule({})
    if config.labels == "even":
        return LabelRule({"labels": IN_TURN})
    if counts := training_counts(run):
        return LabelRule({"labels": BY_COUNT, "class_counts": counts}, counts)
    return LabelRule({"labels": IN_TURN, "labels_unknown": True})


def training_counts(run: Run) -> list[int] | None:
    """Return how many training images each class and no class has, by the card or else the data; None if unknown."""
    if counts := run.card.data.get("class_counts"):
        return list(counts)
    try:
        dataset = run_data(EvalConfig(), run)
        known = dataset.fingerprint == run.card.data.get("fingerprint") and dataset.classes == run.card.classes
        return class_counts(run_split(dataset, run)[0]) if known else None
    except (InputError, OSError):
        return None


def drawing_settings(config: EvalConfig, run: Run, n: int) -> tuple[SampleConfig, Sampling]:
    """Return the settings of `sample` that draw n images of a run, and the sampling settings that follow from them."""
    names = ("sampler", "steps", "spacing", "clip", "seed", "guidance", "guidance_interval", "batch")
    asked = SampleConfig(run.name, n, **{name: getattr(config, name) for name in names})
    return asked, resolve_settings(asked, run)


def run_images(config: EvalConfig, run: Run, n: int, rule: LabelRule | None = None) -> ImageSet:
    """Return the set of n images that a run draws, with seeds from `config.seed`.

    Args:
        config, run, n: The settings, the run, and the number of images.
        rule: The classes of the images (default: what `label_rule` returns, which may have to open the data).
    """
    rule = rule or label_rule(config, run)
    asked, how = drawing_settings(config, run, n)
    precision = choose_precision(config.precision, run.model.device)
    asked = replace(asked, precision=precision)
    about = {
        "name": run.name,
        "n": n,
        "weights": weights_hash(run),
        "trained_images": run.card.training.get("images"),
        "seed": config.seed,
        **plain(how),
        "precision": precision,
        "size": f"{run.card.shape[2]}x{run.card.shape[1]}",
        **rule.facts,
    }

    def stream(is_wanted: BatchFilter) -> Iterator[Uint8Images]:
        def is_skipped(seeds: Sequence[int]) -> bool:
            return not is_wanted((seeds[0] - asked.seed) // asked.batch)

        return (
            to_uint8(images) for _, images in sample_batches(asked, run, how, skip=is_skipped, class_counts=rule.counts)
        )

    seconds = network_calls(how) * seconds_per_image(run.model, precision=precision)
    facts = (stream, n, run.card.shape[0], about, config.batch)
    return ImageSet(*facts, resumable=is_file_based(run, how), seconds_per_image=seconds)


def is_file_based(run: Run, how: Sampling) -> bool:
    """Return True if the run is a file and its sampling settings are text; the code of a callable may change."""
    return run.path is not None and isinstance(how.sampler, str) and isinstance(how.spacing, str)


def extraction_seconds(extractor: Extractor) -> float:
    """Measure the seconds that the feature extractor takes for one image."""
    some = torch.zeros(16, 1, 32, 32, dtype=torch.uint8)
    return measure_seconds(lambda: extractor(some)) / len(some)


def dataset_images(dataset: Dataset, n: int | None, seed: int, batch: int, say: Say = mute) -> ImageSet:
    """Return a set of all images of a dataset, or of n of them that the seed chooses.

    The images of held-out splits, such as test/ next to train/, do not count.
    """
    if own_split(dataset) is not None:
        dataset, _ = split_held_out(dataset, 0)
    n = len(dataset) if n is None else n
    if n > len(dataset):
        raise InputError(f"{n} images were asked for, but {dataset.name} has {len(dataset):,}; ask for fewer")
    rows = np.sort(dataset.chosen(n, seed))

    def stream(is_wanted: BatchFilter) -> Iterator[Uint8Images]:
        for i, start in enumerate(range(0, n, batch)):
            if is_wanted(i):
                yield as_uint8(torch.from_numpy(dataset.read(rows[start : start + batch])))
        tell_news(dataset, say)

    def labels() -> tuple[Tensor, tuple[str, ...]]:
        return torch.as_tensor(dataset.labels(rows)), dataset.classes

    _, height, width = dataset.shape
    about = {
        "name": dataset.name,
        "n": n,
        "of": len(dataset),
        "fingerprint": dataset.fingerprint,
        "size": f"{width}x{height}",
    }
    part = None if dataset.rows is None else hashlib.sha256(dataset.rows.tobytes()).hexdigest()
    key = ascii((dataset.fingerprint, part, n, seed if n < len(dataset) else None))
    return ImageSet(stream, n, dataset.shape[0], about, batch, key, labels=labels if dataset.classes else None)
