"""Collect the statistics of a set of images: in one or several processes, resumed from the last saved state."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from unnoise import distributed
from unnoise.cache_folder import cache_folder, is_real_folder, keep_file, mark_used
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import ImageSet, extraction_seconds
from unnoise.evaluation.statistics import MAX_KEPT, OF_IMAGES, Statistics
from unnoise.images import Uint8Images
from unnoise.progress import Report
from unnoise.tensors import read_tensors, save_tensors

FORMAT = 3  # of the cached statistics: raise it whenever they change
SAVE_EVERY = 60.0  # seconds between saves of unfinished statistics
PARTIAL_LIFETIME = 7 * 86_400.0  # seconds after which unfinished statistics are removed


def measure(images: ImageSet, extractor: Extractor, task: str, report: Report, *, shared: bool = False) -> Statistics:
    """Return the statistics of a set of images by one feature extractor: see `measure_all`."""
    return measure_all(images, [extractor], task, report, shared=shared)[0]


def measure_all(
    images: ImageSet, extractors: Sequence[Extractor], task: str, report: Report, *, shared: bool = False
) -> list[Statistics]:
    """Return the statistics of a set of images by each extractor, in one pass; statistics of a dataset are cached.

    Args:
        images: The set of images. It is drawn or decoded once, and not at all if all statistics are cached.
        extractors: The feature extractors.
        task: The name of this work in the progress bar.
        report: Called with (task, images done, images in total).
        shared: Every process calls this function and takes its share of the batches. Unfinished statistics are saved,
            and the next call resumes from them.
    """
    found = [read_known(images, extractor, shared=shared) for extractor in extractors]
    missing = [extractor for extractor, known in zip(extractors, found, strict=True) if known is None]
    if not missing:
        return [known for known in found if known]
    resumable = shared and images.resumable and all(extractor.cacheable for extractor in missing)
    partial = partial_at(images, missing) if resumable else None
    made = collect(images, missing, task, report, shared=shared, partial=partial)
    if shared:
        made = [merge_processes(one) for one in made]
    if not shared or distributed.is_main():
        for extractor, one in zip(missing, made, strict=True):
            keep_known(images, extractor, one)
    if partial:
        with suppress(OSError):
            partial.unlink()
    new = iter(made)
    return [known or next(new) for known in found]


def read_known(images: ImageSet, extractor: Extractor, *, shared: bool) -> Statistics | None:
    """Return the cached statistics of a set, or None if a process has none."""
    place = cached_at(images, extractor)
    kept = read_kept(place) if place else None  # a damaged file is computed again
    if shared and distributed.all_reduce_max(kept is None) != [0]:  # the processes work together
        return None
    return Statistics(**kept) if kept is not None else None


def keep_known(images: ImageSet, extractor: Extractor, found: Statistics) -> None:
    """Keep the statistics of a set in the cache, if they can be cached."""
    if place := cached_at(images, extractor):
        with suppress(InputError, OSError):  # a full disk does not end a measurement
            about = {**images.about, **extractor.about}
            keep_file(place, lambda path: save_tensors(path, vars(found), about))


def collect(
    images: ImageSet,
    extractors: Sequence[Extractor],
    task: str,
    report: Report,
    *,
    shared: bool,
    partial: Path | None,
) -> list[Statistics]:
    """Return the statistics of this process's batches, or of all unless `shared`; resume from the file `partial`."""
    results = [Statistics.empty(one.features, one.classes, images.channels) for one in extractors]
    finished, saved = 0, time.monotonic()
    if partial and (found := read_kept(partial)) is not None:
        finished, results = divide_partial(found, len(extractors))
        report(task, results[0].n, images.n)
    skipped = finished

    def is_mine(i: int) -> bool:
        turn, owner = divmod(i, distributed.world_size())
        return not shared or (owner == distributed.rank() and turn >= skipped)

    with torch.inference_mode():
        for pixels in images.stream(is_mine):
            number = finished * distributed.world_size() + distributed.rank() if shared else finished  # of the batch
            for extractor, result in zip(extractors, results, strict=True):
                result.add(*extractor(pixels), pixels, images.batch * number)
            finished += 1
            report(task, results[0].n, images.n)
            if partial and time.monotonic() - saved > SAVE_EVERY:
                keep_partial(partial, finished, results)
                saved = time.monotonic()
    return results


def keep_partial(place: Path, finished: int, results: Sequence[Statistics]) -> None:
    """Save unfinished statistics of the first `finished` batches, by all extractors in one file."""
    state = {f"{part_name(i)}{name}": value for i, one in enumerate(results) for name, value in vars(one).items()}
    with suppress(InputError, OSError):  # a full disk does not end a measurement
        keep_file(place, lambda path: save_tensors(path, {**state, "taken": torch.tensor(finished)}, {}))


def divide_partial(found: dict[str, Tensor], count: int) -> tuple[int, list[Statistics]]:
    """Return the number of finished batches, and the unfinished statistics of each of `count` extractors."""
    names = [field.name for field in fields(Statistics)]
    parts = [Statistics(**{name: found[f"{part_name(i)}{name}"] for name in names}) for i in range(count)]
    return int(found["taken"]), parts


def part_name(i: int) -> str:
    """Return what the names of an extractor's unfinished statistics begin with; for the first one, nothing."""
    return f"{i}." if i else ""


def merge_processes(mine: Statistics) -> Statistics:
    """Return the statistics of all processes together: the sums are added, and the smallest keys are kept."""
    if distributed.world_size() == 1:
        return mine
    sums = {
        name: distributed.all_reduce_sum(value).cpu() for name, value in vars(mine).items() if name not in OF_IMAGES
    }
    last = torch.cat(distributed.all_gather(mine.keys)).sort().values[:MAX_KEPT][-1:]
    few = mine.keys <= last
    rows = tuple(getattr(mine, name)[few] for name in OF_IMAGES)
    kept, keys, order = (torch.cat(parts) for parts in zip(*distributed.all_gather(rows), strict=True))
    least = keys.argsort(stable=True)[:MAX_KEPT]
    return Statistics(**sums, kept=kept[least], keys=keys[least], order=order[least])


def measure_pixels(pixels: Uint8Images, extractor: Extractor) -> Statistics:
    """Return the statistics of images that are in memory, [n, c, h, w]."""
    result = Statistics.empty(extractor.features, extractor.classes, pixels.shape[1])
    with torch.inference_mode():
        for part in torch.split(pixels, 64):
            result.add(*extractor(part), part)
    return result


def cached_at(images: ImageSet, extractor: Extractor) -> Path | None:
    """Return the cache file of finished statistics, or None if they are not cached."""
    return statistics_file("", images.key, extractor) if images.key is not None and extractor.cacheable else None


def partial_at(images: ImageSet, extractors: Sequence[Extractor]) -> Path:
    """Return the file of a process's unfinished statistics; remove unfinished ones that are older than a week."""
    for old in (cache_folder() / "statistics").glob("partial-*"):
        with suppress(OSError):  # it belongs to another user, or is gone
            if time.time() - old.stat().st_mtime > PARTIAL_LIFETIME:
                old.unlink()
    names = [field.name for field in fields(Statistics)]  # other versions have others
    part = (images.about, images.key, images.batch, distributed.rank(), distributed.world_size(), names)
    others = [sorted(extractor.about.items()) for extractor in extractors[1:]]
    return statistics_file("partial-", (*part, *others), extractors[0])


def statistics_file(prefix: str, content: object, extractor: Extractor) -> Path:
    """Return the cache file for this content and feature extractor."""
    key = ascii((content, sorted(extractor.about.items()), FORMAT))
    return cache_folder() / "statistics" / f"{prefix}{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def read_kept(place: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a file in the cache; None if it is missing, damaged, or a link."""
    with suppress(InputError, OSError):
        if is_real_folder(place.parent) and place.is_file() and not place.is_symlink():
            kept = read_tensors(place)[1]
            mark_used(place)
            return kept
    return None


def expected_seconds(images: ImageSet, *extractors: Extractor) -> float:
    """Estimate the seconds that measuring a set takes; 0 if its statistics are cached."""
    places = [(extractor, cached_at(images, extractor)) for extractor in extractors]
    missing = [extractor for extractor, place in places if not (place and place.exists())]
    if not missing:
        return 0.0
    return (images.seconds_per_image + sum(map(extraction_seconds, missing))) * images.n
