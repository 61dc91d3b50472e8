"""Sets of pictures to measure: those a run draws, and those of any data; streamed, never held as a whole."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unnoise import registry
from unnoise.checkpoint import WEIGHTS, Run, read_tensors, save_tensors, weights_of
from unnoise.config import EvalConfig, SampleConfig, Sampling
from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset
from unnoise.data.split import split
from unnoise.errors import InputError
from unnoise.evaluate.features import Eight, Extractor, eight_bit, read_pixels
from unnoise.evaluate.statistics import Statistics
from unnoise.files import cache_folder
from unnoise.sampling import batches, resolve

Report = Callable[[str, int, int], object]  # what is done, pictures just done, pictures in all
FORMAT = 2  # of the kept statistics: raise it whenever they change


class Pictures(NamedTuple):
    """A set that can be streamed once, and what must be told beside any score of it."""

    stream: Iterator[Eight]
    n: int
    channels: int
    about: dict[str, Any]
    key: str | None = None  # under which its statistics are kept, where they may be
    each: float = 0.0  # seconds that making a picture takes, about


def data_of(config: EvalConfig, run: Run) -> Dataset:
    """The pictures named, or those of the training, fitted to the run's size and channels."""
    trained, named = run.card.training.get("config", {}), config.against or config.data
    source = named or trained.get("data")
    if source is None:
        raise InputError("this model does not say what it was trained on; name pictures with --data")
    if not named and not here(source):
        raise InputError(f"this run was trained on {source!r}, which is not here now; name pictures with --data")
    c, h, w = run.card.shape
    limit = None if named else trained.get("limit")
    stream = not named and trained.get("stream", False)
    return open_data(source, size=f"{w}x{h}", channels=c, fit=trained.get("fit", "crop"), limit=limit, stream=stream)


def parts_of(dataset: Dataset, run: Run) -> tuple[Dataset, Dataset]:
    """Of the data a run was trained on, the images it saw, and those held out."""
    return split(dataset, run.card.data.get("held_out", 0))


def here(source: str) -> bool:
    """Whether there is data by that name: a path, or a built-in set."""
    return Path(source).expanduser().exists() or source.partition(":")[0].strip() in registry.dataset.names()


def drawn(config: EvalConfig, run: Run, n: int) -> Pictures:
    """Pictures of a run, of the seeds from `seed` on, as `unnoise sample` draws them."""
    names = ("sampler", "steps", "spacing", "clip", "seed", "guidance", "guidance_interval", "batch")
    asked = SampleConfig(str(run.path), n, **{name: getattr(config, name) for name in names})
    how = resolve(asked, run)
    about = {
        "name": str(run.path.parent if run.path.name == WEIGHTS else run.path),
        "n": n,
        "weights": weights_of(run),
        "trained_images": run.card.training.get("images"),
        "seed": config.seed,
        **asdict(how),
    }
    stream = (eight_bit(images) for _, images in batches(asked, run, how))
    return Pictures(stream, n, run.card.shape[0], about, each=calls(how) * call(run))


def calls(how: Sampling) -> int:
    """Of the network for a picture, about: samplers that take as many as they like count as two a step."""
    return how.steps * registry.sampler.declared(how.sampler).get("evaluations", 2) * (1 + (how.guidance != 1))


def call(run: Run, batch: int = 16) -> float:
    """Seconds that a call of the network takes for a picture, by one on a few."""
    level, some = run.model.schedule.level(run.model.schedule.T // 2), torch.zeros(batch, *run.card.shape)
    return timed(lambda: run.model(some.to(run.model.device), level)) / len(some)


def timed(work: Callable[[], object]) -> float:
    """Seconds it takes, the second time: the first is slower."""
    with torch.inference_mode():
        for _ in range(2):
            begun = time.monotonic()
            work()
            spent = finished() - begun
    return spent


def finished() -> float:
    """The time when the device has done all that it was asked for."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.monotonic()


def seeing(extractor: Extractor) -> float:
    """Seconds that looking at a picture takes, about."""
    some = torch.zeros(16, 1, 32, 32, dtype=torch.uint8)
    return timed(lambda: extractor(some)) / len(some)


def stored(dataset: Dataset, n: int | None, seed: int, batch: int) -> Pictures:
    """Pictures of a data set: all, or n of them drawn by the seed."""
    n = len(dataset) if n is None else n
    if n > len(dataset):
        raise InputError(f"{n} pictures were asked for, but {dataset.name} has {len(dataset):,}; ask for fewer")
    chosen = np.sort(dataset.chosen(n, seed))

    def stream() -> Iterator[Eight]:
        for start in range(0, n, batch):
            yield read_pixels(torch.from_numpy(dataset.read(chosen[start : start + batch])))

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
    return Pictures(stream(), n, dataset.shape[0], about, key)


def statistics(pictures: Pictures, extractor: Extractor, doing: str, report: Report) -> Statistics:
    """What is kept of the set; of data it is computed once, and lies in the cache from then on."""
    place = kept_at(pictures, extractor)
    if place and place.exists():
        with suppress(InputError):  # damaged: computed again
            return Statistics(**read_tensors(place)[1])
    result = Statistics.empty(extractor.features, extractor.classes, pictures.channels)
    with torch.inference_mode():
        for pixels in pictures.stream:
            result.add(*extractor(pixels), pixels)
            report(doing, len(pixels), pictures.n)
    if place:
        place.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(place, vars(result), {**pictures.about, **extractor.about})
    return result


def gathered(pixels: Eight, extractor: Extractor) -> Statistics:
    """What is kept of pictures that are in memory."""
    result = Statistics.empty(extractor.features, extractor.classes, pixels.shape[1])
    with torch.inference_mode():
        for part in torch.split(pixels, 64):
            result.add(*extractor(part), part)
    return result


def kept_at(pictures: Pictures, extractor: Extractor) -> Path | None:
    if pictures.key is None:
        return None
    key = ascii((pictures.key, sorted(extractor.about.items()), FORMAT))
    return cache_folder() / "statistics" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def seconds(pictures: Pictures, extractor: Extractor) -> float:
    """About how long making and reading the set will take; 0 where its statistics are kept."""
    place = kept_at(pictures, extractor)
    if place and place.exists():
        return 0.0
    return (pictures.each + seeing(extractor)) * pictures.n
