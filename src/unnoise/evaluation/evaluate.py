"""`unnoise eval`: scores of a set of pictures against another, with all that is needed to compare them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unnoise import distributed, registry
from unnoise.card import Run
from unnoise.checkpoint import load
from unnoise.config import EvalConfig
from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset
from unnoise.errors import InputError, unknown
from unnoise.evaluation import metrics
from unnoise.evaluation.image_sets import ImageSet, dataset_images, run_data, run_images
from unnoise.evaluation.likelihood import bits_per_dim
from unnoise.evaluation.measure import seconds, statistics
from unnoise.evaluation.memorization import audit
from unnoise.evaluation.metrics import Colour, Score
from unnoise.evaluation.statistics import Statistics
from unnoise.interop.diffusers_format import INDEX
from unnoise.progress import Report, silent
from unnoise.run_folder import MODEL, keep_evaluation
from unnoise.samplers.precision import choose_precision, describe_precision

FEWEST = 50  # pictures a score is computed from
DRAWN = 2_000  # pictures drawn from a run, if nothing else is asked for
TINT = 0.05  # a difference of means or deviations, in [-1, 1], worth a warning
ENDS = 0.1  # likewise of the share of values at an end of the range
TOLD = ("sampler", "steps", "spacing", "guidance", "precision", "seed")  # of how pictures were drawn


@dataclass(frozen=True)
class Metric:
    """One score of set a against set b, or several of one kind, by name; `floor` is what real pictures get."""

    compute: Callable[[Statistics, Statistics], dict[str, Score]]
    floor: Callable[[Statistics, int], Score] | None = None


def paired(
    measure: Callable[..., tuple[Score, Score]], *names: str
) -> Callable[[Statistics, Statistics], dict[str, Score]]:
    """Of as many kept features on both sides, since the balls grow smaller with their number."""

    def compute(a: Statistics, b: Statistics) -> dict[str, Score]:
        n = min(len(a.kept), len(b.kept))
        return dict(zip(names, measure(a.kept[:n], b.kept[:n]), strict=True))

    return compute


METRICS = {
    "kid": Metric(lambda a, b: {"kid": metrics.kid(a.kept, b.kept)}, metrics.kid_floor),
    "fid": Metric(lambda a, b: {"fid": metrics.fid(a, b)}, metrics.fid_floor),
    "fid_infinity": Metric(lambda a, b: {"fid_infinity": metrics.fid_infinity(a, b)}),
    "precision_recall": Metric(paired(metrics.precision_recall, "precision", "recall")),
    "density_coverage": Metric(paired(metrics.density_coverage, "density", "coverage")),
    "inception_score": Metric(lambda a, _: {"inception_score": metrics.inception_score(a)}),
}
ALONE = ("bpd", "memorization")  # of a run, not of two sets
KNOWN = (*METRICS, "colour", *ALONE)


def evaluate(config: EvalConfig, report: Report = silent, say: Callable[[str], object] = print) -> dict[str, Any]:
    """Everything asked for, as plain values."""
    wanted = wishes(config)
    run = load(config.set) if is_run(config.set) else None
    result: dict[str, Any] = {}
    for name in ALONE:
        if name in wanted and run is None:
            raise InputError(f"metric {name} is of a run, and {config.set} is none")
    if run and "bpd" in wanted:
        result["bpd"] = bits_per_dim(config, run, report)
    if run and "memorization" in wanted:
        extractor = registry.features.get(config.features)()
        result["memorization"] = audit(config, run, extractor, config.n or DRAWN, report)
    if compared := [name for name in wanted if name not in ALONE]:
        result["scores"] = compare(config, run, compared, report, say)
    if run and run.path and distributed.is_main():
        keep_evaluation(run.folder, result)
    return result


def wishes(config: EvalConfig) -> list[str]:
    """The metrics asked for; refuses what can't be before anything is read."""
    wanted = [name.strip() for name in config.metrics.split(",") if name.strip()]
    if not wanted:
        raise InputError(f"--metrics is empty: name one or more of {', '.join(KNOWN)}")
    for name in wanted:
        if name not in KNOWN:
            raise unknown("metric", name, KNOWN)
    if config.against and config.data:
        raise InputError("name the data to compare with once: as a second set, or with --data")
    return wanted


def is_run(place: str) -> bool:
    path = Path(place)
    return path.suffix == ".safetensors" or any((path / name).is_file() for name in (MODEL, INDEX))


def compare(
    config: EvalConfig, run: Run | None, wanted: Sequence[str], report: Report, say: Callable[[str], object]
) -> dict[str, Any]:
    extractor = registry.features.get(config.features)()
    if "inception_score" in wanted and not extractor.classes:
        raise InputError(f"metric inception_score needs a network that tells classes; {config.features} does not")
    if run:  # before they work one after another
        asked = config.precision
        precision = distributed.from_main(lambda: choose_precision(asked, run.model.device))
        config = replace(config, precision=precision)
        say(describe_precision(precision, run.model.device))
    with distributed.main_first():  # which fills the cache for the others
        mine, theirs = both(config, run)
    for pictures in (mine, theirs):
        if pictures.n < FEWEST:
            raise InputError(f"scores need {FEWEST} pictures or more; {pictures.about['name']} has {pictures.n}")
    say(f"this takes about {seconds(mine, extractor) + seconds(theirs, extractor):.0f} s")
    b = statistics(theirs, extractor, "reading", report, shared=True)
    a = statistics(mine, extractor, "drawing" if run else "reading", report, shared=True)
    scores: dict[str, Any] = {}
    for name in wanted:
        if name == "colour":
            continue
        metric = METRICS[name]
        floor = {"floor": plain(metric.floor(b, a.n))} if metric.floor else {}
        scores |= {key: plain(score) | floor for key, score in metric.compute(a, b).items()}
    colours = metrics.colour(a), metrics.colour(b)
    return {
        "values": scores,
        "of": mine.about,
        "against": theirs.about,
        "features": extractor.about,
        "colour": dict(zip(("of", "against"), map(tints, colours), strict=True)) if "colour" in wanted else {},
        "warnings": [
            *spoiled(mine, theirs),
            *(["all pictures are the same"] if len(set(a.keys.tolist())) == 1 else []),
            *(drift(*colours) if mine.channels == theirs.channels else []),
        ],
    }


def both(config: EvalConfig, run: Run | None) -> tuple[ImageSet, ImageSet]:
    """The set to measure, and the data it is measured against."""
    if run:
        return run_images(config, run, config.n or DRAWN), reference(run_data(config, run), config)
    data = config.against or config.data
    if data is None:
        raise InputError(f"{config.set} is no run: name what to compare it with, a second set or --data DATA")
    return dataset_images(open_data(config.set), config.n, config.seed, config.batch), reference(
        open_data(data), config
    )


def reference(dataset: Dataset, config: EvalConfig) -> ImageSet:
    """Data to compare with: all, or as many as --reference says."""
    return dataset_images(dataset, min(len(dataset), config.reference), config.seed, config.batch)


def plain(score: Score) -> dict[str, Any]:
    return {"value": score.value, "standard_error": score.standard_error, "interval": list(score.interval)}


def tints(colour: Colour) -> dict[str, list[dict[str, Any]]]:
    return {name: [plain(score) for score in scores] for name, scores in colour._asdict().items()}


def spoiled(mine: ImageSet, theirs: ImageSet) -> list[str]:
    """What else than quality the scores measure."""
    said = []
    sizes = [pictures.about.get("size") for pictures in (mine, theirs)]
    if None not in sizes and sizes[0] != sizes[1]:
        said.append(f"the pictures are of two sizes, {sizes[0]} and {sizes[1]}: the scores measure that too")
    if mine.channels != theirs.channels:
        said.append(f"the pictures have {mine.channels} and {theirs.channels} channels: the scores measure that too")
    return said


def drift(ours: Colour, real: Colour) -> list[str]:
    """Where the colours are not those of the data."""
    said = []
    for what, least in (("mean", TINT), ("std", TINT), ("saturation", ENDS)):
        for channel, (x, y) in enumerate(zip(getattr(ours, what), getattr(real, what), strict=True)):
            apart = x.value - y.value
            if abs(apart) > max(least, 3 * math.hypot(*(0 if math.isnan(e) else e for e in (x[1], y[1])))):
                said.append(f"colour drift: {what} of channel {channel} is {x.value:.3f}, in the data {y.value:.3f}")
    return said


def shown(values: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Each score in words: its name, value, interval, and what real pictures get."""
    rows = []
    for name, score in values.items():
        unit, floor = 1000 if name == "kid" else 1, score.get("floor")
        real = told(unit, " +- ", floor["value"], floor["standard_error"]) if floor else ""
        value, interval = told(unit, "", score["value"]), told(unit, " to ", *score["interval"])
        rows.append((name if unit == 1 else f"{name} x {unit}", value, interval, real))
    return rows


def told(unit: float, between: str, *numbers: float | None) -> str:
    """Of numbers that are not known, as of pictures that are all alike, "-"."""
    known = [f"{unit * number:.3f}" for number in numbers if number is not None and math.isfinite(number)]
    return between.join(known) if len(known) == len(numbers) else "-"


def table(result: dict[str, Any]) -> list[str]:
    """What is printed of a comparison."""
    of, against = result["of"], result["against"]
    head = ("score", "value", "95 % interval", "real pictures get")
    lines = [f"{a:18}{b:>12}  {c:<24}{d}".rstrip() for a, b, c, d in (head, *shown(result["values"]))]
    how = ", ".join(f"{key} {of[key]}" for key in TOLD if key in of)
    ours, theirs, about = of.get("weights") or of["fingerprint"], against["fingerprint"], result["features"]
    lines.append(f"of        {of['name']}: {of['n']:,} pictures, {how + ', ' if how else ''}sha256 {ours[:16]}")
    lines.append(f"against   {against['name']}: {against['n']:,} of {against['of']:,} pictures, sha256 {theirs[:16]}")
    lines.append(f"features  {about['network']}, {about['resize']}, sha256 {about['weights'][:16]}")
    return [*lines, *(f"warning: {text}" for text in result["warnings"])]
