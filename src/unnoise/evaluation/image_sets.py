"""Sets of pictures to measure: those a run draws, and those of any data; streamed, never held as a whole."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import weights_hash
from unnoise.config import EvalConfig, SampleConfig
from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset, split_held_out
from unnoise.data.sources.find import find
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor
from unnoise.images import Uint8Images, as_uint8, to_uint8
from unnoise.options import plain
from unnoise.samplers.precision import choose_precision, measure_seconds, seconds_per_image
from unnoise.sampling import network_calls, resolve_settings, sample_batches

Chosen = Callable[[int], bool]  # which batches, by their number


def every(_: int) -> bool:
    return True


class ImageSet(NamedTuple):
    """A set that can be streamed, and what must be told beside any score of it."""

    stream: Callable[[Chosen], Iterator[Uint8Images]]  # its batches of those numbers
    n: int
    channels: int
    about: dict[str, Any]
    batch: int  # pictures
    key: str | None = None  # under which its statistics are kept, where they may be
    each: float = 0.0  # seconds that making a picture takes, about


def run_data(config: EvalConfig, run: Run) -> Dataset:
    """The pictures named, or those of the training, fitted to the run's size and channels."""
    trained, named = run.card.training.get("config", {}), config.against or config.data
    source = named or trained.get("data")
    if source is None:
        raise InputError("this model does not say what it was trained on; name pictures with --data")
    if not named and not here(source):
        raise InputError(f"this run was trained on {source!r}, which is not on this machine; name pictures with --data")
    c, h, w = run.card.shape
    limit = None if named else trained.get("limit")
    stream = trained.get("stream", False) and find(source).groups is not None
    return open_data(source, size=f"{w}x{h}", channels=c, fit=trained.get("fit", "crop"), limit=limit, stream=stream)


def run_split(dataset: Dataset, run: Run) -> tuple[Dataset, Dataset]:
    """Of the data a run was trained on, the images it saw, and those held out."""
    return split_held_out(dataset, run.card.data.get("held_out", 0))


def here(source: str) -> bool:
    """Whether there is data by that name: a path, or a built-in set."""
    return Path(source).expanduser().exists() or source.partition(":")[0].strip() in registry.dataset.names()


def run_images(config: EvalConfig, run: Run, n: int) -> ImageSet:
    """Pictures of a run, of the seeds from `seed` on, as `unnoise sample` draws them."""
    names = ("sampler", "steps", "spacing", "clip", "seed", "guidance", "guidance_interval", "batch")
    asked = SampleConfig(str(run.path), n, **{name: getattr(config, name) for name in names})
    how = resolve_settings(asked, run)
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
    }

    def stream(chosen: Chosen) -> Iterator[Uint8Images]:
        def another(seeds: Sequence[int]) -> bool:
            return not chosen((seeds[0] - asked.seed) // asked.batch)

        return (to_uint8(images) for _, images in sample_batches(asked, run, how, skip=another))

    return ImageSet(
        stream,
        n,
        run.card.shape[0],
        about,
        config.batch,
        each=network_calls(how) * seconds_per_image(run.model, precision=precision),
    )


def seconds_to_look(extractor: Extractor) -> float:
    """Seconds that looking at a picture takes, about."""
    some = torch.zeros(16, 1, 32, 32, dtype=torch.uint8)
    return measure_seconds(lambda: extractor(some)) / len(some)


def dataset_images(dataset: Dataset, n: int | None, seed: int, batch: int) -> ImageSet:
    """Pictures of a data set: all, or n of them drawn by the seed."""
    n = len(dataset) if n is None else n
    if n > len(dataset):
        raise InputError(f"{n} pictures were asked for, but {dataset.name} has {len(dataset):,}; ask for fewer")
    rows = np.sort(dataset.chosen(n, seed))

    def stream(chosen: Chosen) -> Iterator[Uint8Images]:
        for i, start in enumerate(range(0, n, batch)):
            if chosen(i):
                yield as_uint8(torch.from_numpy(dataset.read(rows[start : start + batch])))

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
    return ImageSet(stream, n, dataset.shape[0], about, batch, key)
