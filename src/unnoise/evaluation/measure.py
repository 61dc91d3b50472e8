"""Collect the statistics of a set of images: in one or several processes, resumed from the last saved state."""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from unnoise import distributed
from unnoise.cache_folder import cache_folder, is_real_folder, keep_file, mark_used
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import ImageSet, extraction_seconds
from unnoise.evaluation.statistics import MAX_KEPT, Statistics
from unnoise.images import Uint8Images
from unnoise.progress import Report
from unnoise.tensors import read_tensors, save_tensors

FORMAT = 2  # of the cached statistics: raise it whenever they change
SAVE_EVERY = 60.0  # seconds between saves of unfinished statistics
PARTIAL_LIFETIME = 7 * 86_400.0  # seconds after which unfinished statistics are removed


def measure(images: ImageSet, extractor: Extractor, task: str, report: Report, *, shared: bool = False) -> Statistics:
    """Return the statistics of a set of images; for a dataset they are computed once and cached.

    Args:
        images: The set of images.
        extractor: The feature extractor.
        task: The name of this work in the progress bar.
        report: Called with (task, images done, images in total).
        shared: Every process calls this function and takes its share of the batches. Unfinished statistics are saved,
            and the next call resumes from them.
    """
    place = cached_at(images, extractor)
    known = place is not None and place.exists()
    if shared:
        known = distributed.all_reduce_max(not known) == [0]  # known to every process
    if place and known and (kept := read_kept(place)) is not None:  # a damaged file is computed again
        return Statistics(**kept)
    resumable = shared and images.resumable and extractor.cacheable
    partial = partial_at(images, extractor) if resumable else None
    result = collect(images, extractor, task, report, shared=shared, partial=partial)
    if shared:
        result = merge_processes(result)
    if place and (not shared or distributed.is_main()):
        with suppress(InputError, OSError):  # a full disk does not end a measurement
            about = {**images.about, **extractor.about}
            keep_file(place, lambda path: save_tensors(path, vars(result), about))
    if partial:
        with suppress(OSError):
            partial.unlink()
    return result


def collect(
    images: ImageSet, extractor: Extractor, task: str, report: Report, *, shared: bool, partial: Path | None
) -> Statistics:
    """Return the statistics of this process's batches, or of all unless `shared`; resume from the file `partial`."""
    result = Statistics.empty(extractor.features, extractor.classes, images.channels)
    finished, saved = 0, time.monotonic()
    if partial and (found := read_kept(partial)) is not None:
        finished, result = int(found.pop("taken")), Statistics(**found)
        report(task, result.n, images.n)
    skipped = finished

    def is_mine(i: int) -> bool:
        turn, owner = divmod(i, distributed.world_size())
        return not shared or (owner == distributed.rank() and turn >= skipped)

    with torch.inference_mode():
        for pixels in images.stream(is_mine):
            result.add(*extractor(pixels), pixels)
            finished += 1
            report(task, result.n, images.n)
            if partial and time.monotonic() - saved > SAVE_EVERY:
                with suppress(InputError, OSError):  # a full disk does not end a measurement
                    state = {**vars(result), "taken": torch.tensor(finished)}
                    keep_file(partial, lambda path: save_tensors(path, state, {}))  # noqa: B023  # written at once
                saved = time.monotonic()
    return result


def merge_processes(mine: Statistics) -> Statistics:
    """Return the statistics of all processes together: the sums are added, and the smallest keys are kept."""
    if distributed.world_size() == 1:
        return mine
    sums = {
        name: distributed.all_reduce_sum(value).cpu()
        for name, value in vars(mine).items()
        if name not in ("kept", "keys")
    }
    last = torch.cat(distributed.all_gather(mine.keys)).sort().values[:MAX_KEPT][-1:]
    few = mine.keys <= last
    kept, keys = (
        torch.cat(parts) for parts in zip(*distributed.all_gather((mine.kept[few], mine.keys[few])), strict=True)
    )
    order = keys.argsort(stable=True)[:MAX_KEPT]
    return Statistics(**sums, kept=kept[order], keys=keys[order])


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


def partial_at(images: ImageSet, extractor: Extractor) -> Path:
    """Return the file of a process's unfinished statistics; remove unfinished ones that are older than a week."""
    for old in (cache_folder() / "statistics").glob("partial-*"):
        with suppress(OSError):  # it belongs to another user, or is gone
            if time.time() - old.stat().st_mtime > PARTIAL_LIFETIME:
                old.unlink()
    part = (images.about, images.key, images.batch, distributed.rank(), distributed.world_size())
    return statistics_file("partial-", part, extractor)


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


def expected_seconds(images: ImageSet, extractor: Extractor) -> float:
    """Estimate the seconds that measuring a set takes; 0 if its statistics are cached."""
    place = cached_at(images, extractor)
    if place and place.exists():
        return 0.0
    return (images.seconds_per_image + extraction_seconds(extractor)) * images.n
