"""From a set of pictures to what is kept of it: by one process or by several, from where it was stopped."""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

import torch

from unnoise import distributed
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import ImageSet, seconds_to_look
from unnoise.evaluation.statistics import KEEP, Statistics
from unnoise.files import cache_folder
from unnoise.images import Uint8Images
from unnoise.progress import Report
from unnoise.tensors import read_tensors, save_tensors

FORMAT = 2  # of the kept statistics: raise it whenever they change
SAVE_EVERY, FORGOTTEN = 60.0, 7 * 86_400.0  # seconds: between saves, and after which what was begun is removed


def statistics(
    pictures: ImageSet, extractor: Extractor, doing: str, report: Report, *, shared: bool = False
) -> Statistics:
    """What is kept of the set; of data it is computed once, and lies in the cache from then on.

    `shared`: all processes are here, and each takes its batches; what they were stopped at is in the cache too.
    """
    place = kept_at(pictures, extractor)
    known = place is not None and place.exists()
    if shared:
        known = distributed.all_reduce_max(not known) == [0]  # of all
    if place and known:
        with suppress(InputError):  # damaged: computed again
            return Statistics(**read_tensors(place)[1])
    partial = partial_at(pictures, extractor) if shared else None
    result = taken_in(pictures, extractor, doing, report, partial)
    if shared:
        result = merged(result)
    if place and (not shared or distributed.is_main()):
        with suppress(InputError, OSError):  # a full disk ends no score
            save_tensors(place, vars(result), {**pictures.about, **extractor.about})
    if partial:
        partial.unlink(missing_ok=True)
    return result


def taken_in(
    pictures: ImageSet, extractor: Extractor, doing: str, report: Report, partial: Path | None = None
) -> Statistics:
    """Of this process's batches, all where there is no `partial`, or of those that are not in it yet."""
    result = Statistics.empty(extractor.features, extractor.classes, pictures.channels)
    taken, saved = 0, time.monotonic()
    if partial and partial.exists():
        with suppress(InputError):
            found = read_tensors(partial)[1]
            taken, result = int(found.pop("taken")), Statistics(**found)
            report(doing, result.n, pictures.n)

    def mine(i: int) -> bool:
        turn, owner = divmod(i, distributed.world_size())
        return partial is None or (owner == distributed.rank() and turn >= taken)

    with torch.inference_mode():
        for pixels in pictures.stream(mine):
            result.add(*extractor(pixels), pixels)
            taken += 1
            report(doing, result.n, pictures.n)
            if partial and time.monotonic() - saved > SAVE_EVERY:
                with suppress(InputError, OSError):  # likewise
                    save_tensors(partial, {**vars(result), "taken": torch.tensor(taken)}, {})
                saved = time.monotonic()
    return result


def merged(mine: Statistics) -> Statistics:
    """That of all processes: sums are added, and the features kept are those with the smallest keys of all."""
    if distributed.world_size() == 1:
        return mine
    sums = {
        name: distributed.all_reduce_sum(value).cpu()
        for name, value in vars(mine).items()
        if name not in ("kept", "keys")
    }
    last = torch.cat(distributed.all_gather(mine.keys)).sort().values[:KEEP][-1:]
    few = mine.keys <= last
    kept, keys = (
        torch.cat(parts) for parts in zip(*distributed.all_gather((mine.kept[few], mine.keys[few])), strict=True)
    )
    order = keys.argsort(stable=True)[:KEEP]
    return Statistics(**sums, kept=kept[order], keys=keys[order])


def gathered(pixels: Uint8Images, extractor: Extractor) -> Statistics:
    """What is kept of pictures that are in memory."""
    result = Statistics.empty(extractor.features, extractor.classes, pixels.shape[1])
    with torch.inference_mode():
        for part in torch.split(pixels, 64):
            result.add(*extractor(part), part)
    return result


def kept_at(pictures: ImageSet, extractor: Extractor) -> Path | None:
    return None if pictures.key is None else file_of("", pictures.key, extractor)


def partial_at(pictures: ImageSet, extractor: Extractor) -> Path:
    """What a process has of a set that is not finished; what was begun long ago goes."""
    for old in (cache_folder() / "statistics").glob("partial-*"):
        with suppress(OSError):  # of somebody else, or gone
            if time.time() - old.stat().st_mtime > FORGOTTEN:
                old.unlink()
    part = (pictures.about, pictures.key, pictures.batch, distributed.rank(), distributed.world_size())
    return file_of("partial-", part, extractor)


def file_of(kind: str, of: object, extractor: Extractor) -> Path:
    key = ascii((of, sorted(extractor.about.items()), FORMAT))
    (folder := cache_folder() / "statistics").mkdir(parents=True, exist_ok=True)
    return folder / f"{kind}{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def seconds(pictures: ImageSet, extractor: Extractor) -> float:
    """About how long making and reading the set will take; 0 where its statistics are kept."""
    place = kept_at(pictures, extractor)
    if place and place.exists():
        return 0.0
    return (pictures.each + seconds_to_look(extractor)) * pictures.n
