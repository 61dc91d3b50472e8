"""Score one set of images against another, and report everything that is needed to compare the scores."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from unnoise import distributed
from unnoise.card import Run
from unnoise.config import EvalConfig
from unnoise.data.resize import parse_size
from unnoise.errors import InputError
from unnoise.evaluation import metrics, neighbours
from unnoise.evaluation.coverage import simulate
from unnoise.evaluation.expectation import expected_of
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import ImageSet, dataset_images, open_images, run_images
from unnoise.evaluation.judges import chosen_by, judge_facts, open_judges, trained_with
from unnoise.evaluation.ladder import ladder, ladder_seconds, plain_ladder
from unnoise.evaluation.measure import expected_seconds, measure, measure_all
from unnoise.evaluation.metrics import Colour
from unnoise.evaluation.paired import Pairs, contributions, difference, pairs_of
from unnoise.evaluation.references import References, choose_references, copy_warnings, reference_images, shared_images
from unnoise.evaluation.scores import Score, plain_score, read_score
from unnoise.evaluation.statistics import Statistics
from unnoise.options import data_text
from unnoise.progress import Report, Say
from unnoise.samplers.precision import choose_precision, describe_precision

DRAWN = 2_000  # images drawn from a run by default
MIN_IMAGES = 50  # a score needs at least this many images
COLOUR_SHIFT = 0.05  # a larger difference of means or standard deviations, in [-1, 1], is a warning
SATURATION_SHIFT = 0.1  # a larger difference between the shares of values at -1 or 1 is a warning
LABELS_UNKNOWN = (
    "it is not known how many training images each class has, so the classes were drawn in turn; if the data has more "
    "of one class than of another, the scores measure that too"
)


@dataclass(frozen=True)
class Metric:
    """Scores of set a against set b by name, and the score of two such sets of one distribution (the floor).

    The floor, or None, is the third argument of `compute`.
    """

    compute: Callable[[Statistics, Statistics, Any], dict[str, Score]]
    floor: Callable[[Statistics, Statistics], Score] | None = None


def paired(
    score: Callable[..., tuple[Score, Score]], *names: str
) -> Callable[[Statistics, Statistics, Any], dict[str, Score]]:
    """Return a metric of equally many features of both sets, since the neighbours are nearer if there are more."""

    def compute(a: Statistics, b: Statistics, _: Any) -> dict[str, Score]:
        n = min(len(a.kept), len(b.kept))
        return dict(zip(names, score(a.kept[:n], b.kept[:n]), strict=True))

    return compute


METRICS = {
    "kid": Metric(lambda a, b, _: {"kid": metrics.kid(a.kept, b.kept)}, metrics.kid_floor),
    "fid": Metric(lambda a, b, equal: {"fid": metrics.fid(a, b, equal)}, metrics.fid_floor),
    "fid_infinity": Metric(lambda a, b, _: {"fid_infinity": metrics.fid_infinity(a, b)}),
    "precision_recall": Metric(paired(neighbours.precision_recall, "precision", "recall")),
    "density_coverage": Metric(paired(neighbours.density_coverage, "density", "coverage")),
    "inception_score": Metric(lambda a, _, __: {"inception_score": metrics.inception_score(a)}),
}


def compare(
    config: EvalConfig, run: Run | None, names: Sequence[str], report: Report, say: Say, pairs: Pairs
) -> dict[str, Any]:
    """Return the named scores of a run or of images against data, as plain values; add the contributions to `pairs`."""
    opened = open_judges(config, names)
    config = with_precision(config, run, say) if run else config
    with distributed.main_first():  # it fills the cache for the others
        mine, (theirs, training) = image_sets(config, run, say)
    sets = enough_images(mine, theirs, training)
    judges = opened.fitted(shorter_side(sets))
    extractor = judges[0]
    climbing = ladder_seconds(theirs, extractor) if "kid" in names else 0.0
    say(f"this takes about {climbing + sum(expected_seconds(images, *judges) for images in sets):.0f} s")
    b, *seen = measure_all(theirs, judges, "reading", report, shared=True)
    t = measure(training, extractor, "reading training images", report, shared=True) if training else None
    a, *made = measure_all(mine, judges, "drawing" if run else "reading", report, shared=True)
    colours = metrics.colour(a), metrics.colour(b)
    pairs |= pairs_of([a, *made], [b, *seen], judges) if "kid" in names else {}
    beside = training_scores(names, a, b, t, training.about) if t and training else {}
    values = plain_scores(names, a, b)
    second = second_scores(names, judges[1], made[0], seen[0], run) if seen else {}
    return {
        "values": values,
        **({"second": second} if second else {}),
        **({"coverage": check_intervals(names, a, b, t, report, say)} if config.check else {}),
        **damage(values, theirs, b, extractor, report),
        "of": mine.about,
        "against": theirs.about,
        **run_facts(config, run, values),
        **({"training": beside} if beside else {}),
        "features": judge_facts(extractor, run),
        "colour": dict(zip(("of", "against"), map(plain_colour, colours), strict=True)) if "colour" in names else {},
        "warnings": [
            *set_warnings((a, b, t), (mine, theirs, training), beside),
            *few_images_warnings(names, [(a, b), *zip(made, seen, strict=True)]),
            *opened.warnings({"values": values, "features": judge_facts(extractor, run), "second": second}),
            *(colour_warnings(*colours) if mine.channels == theirs.channels else []),
        ],
    }


def with_precision(config: EvalConfig, run: Run, say: Say) -> EvalConfig:
    """Return the settings with the precision that every process takes, before they work one after another."""
    precision = distributed.from_main(lambda: choose_precision(config.precision, run.model.device))
    say(describe_precision(precision, run.model.device))
    return replace(config, precision=precision)


def check_intervals(
    names: Sequence[str], a: Statistics, b: Statistics, trained: Statistics | None, report: Report, say: Say
) -> dict[str, Any]:
    """Return how often the intervals of these scores hold the truth, by simulation with all real images."""
    pool = torch.cat([s.kept for s in (b, trained) if s])
    return simulate(a.kept, pool, len(b.kept), names, report, say)


def enough_images(*sets: ImageSet | None) -> list[ImageSet]:
    """Return the sets that there are; raise InputError if one is too small for a score."""
    present = [images for images in sets if images]
    for images in present:
        if images.n < MIN_IMAGES:
            raise InputError(f"scores need {MIN_IMAGES} images or more; {images.about['name']} has {images.n}")
    return present


def shorter_side(sets: Sequence[ImageSet]) -> int:
    """Return the shorter side of the largest images of some sets, in pixels."""
    return max(min(parse_size(images.about["size"])) for images in sets)


def image_sets(config: EvalConfig, run: Run | None, say: Say) -> tuple[ImageSet, References]:
    """Return the set that is scored, and the sets that it is scored against."""
    if run and config.size:
        raise InputError(
            f"--size is for two sets of images, and {run.name} is a run, which draws {run.card.shape[2]}x"
            f"{run.card.shape[1]}; leave it out"
        )
    if run:
        return run_images(config, run, config.n or DRAWN), choose_references(config, run, config.reference, say)
    data = config.data if config.against is None else config.against
    if data is None:
        raise InputError(
            f"{data_text(config.set)} is no run: name the images to compare it with, as a second set or with --data"
        )
    images = dataset_images(open_images(config.set, say, config.size), config.n, config.seed, config.batch, say)
    return images, References(reference_images(open_images(data, say, config.size), config, config.reference, say))


# Plain values


def run_facts(config: EvalConfig, run: Run | None, values: dict[str, Any]) -> dict[str, Any]:
    """Return what a run was chosen by, what it was trained with, and the KID that it expects, if they are known."""
    expected = expected_of(run, config) if "kid" in values else None
    known = {
        "chosen_by": chosen_by(run),
        "trained_with": trained_with(run),
        "expected": expected and expected._asdict(),
    }
    return {name: fact for name, fact in known.items() if fact}


def second_scores(
    names: Sequence[str], judge: Extractor, a: Statistics, b: Statistics, run: Run | None
) -> dict[str, Any]:
    """Return the scores that the second judge gives, which may know no classes, and its facts."""
    known = [name for name in names if judge.classes or name != "inception_score"]
    values = plain_scores(known, a, b)
    return {"values": values, "features": judge_facts(judge, run)} if values else {}


def damage(
    values: dict[str, Any], images: ImageSet, real: Statistics, extractor: Extractor, report: Report
) -> dict[str, Any]:
    """Return where KID lies on the damage ladder of the reference; nothing if KID was not measured."""
    if "kid" not in values:
        return {}
    rungs = distributed.from_main(lambda: ladder(images, real, extractor, report))
    return {"ladder": plain_ladder(read_score(values["kid"]), rungs)}


def training_scores(
    names: Sequence[str], a: Statistics, held: Statistics, trained: Statistics, about: dict[str, Any]
) -> dict[str, Any]:
    """Return the scores against training images: of set a, and of held-out images, which are real and new."""
    of_two = [name for name in names if name != "inception_score"]
    values, real = (plain_scores(of_two, s, trained, floors=False) for s in (a, held))
    if not values:
        return {}
    nearer = {}
    if "kid" in values:  # both scores have the training images in common
        ours, new = (contributions(s.kept, trained.kept) for s in (a, held))
        nearer = {"kid_difference": plain_score(difference(ours, new, same_seeds=False).score)}
    return {"against": about, "values": values, "held_out": real, "held_out_images": held.n, **nearer}


def plain_scores(names: Sequence[str], a: Statistics, b: Statistics, *, floors: bool = True) -> dict[str, Any]:
    """Compute the named scores of a against b, each with its floor if it has one and `floors` are asked for."""
    scores: dict[str, Any] = {}
    for name in names:
        if name not in METRICS:  # the colours are not a score
            continue
        metric = METRICS[name]
        equal = metric.floor(a, b) if metric.floor and floors else None
        floor = {"floor": plain_score(equal)} if equal else {}
        scores |= {key: plain_score(score) | floor for key, score in metric.compute(a, b, equal).items()}
    return scores


def plain_colour(colour: Colour) -> dict[str, list[dict[str, Any]]]:
    """Return the colours of a set as plain values."""
    return {name: [plain_score(score) for score in scores] for name, scores in colour._asdict().items()}


# Warnings


def set_warnings(
    found: Sequence[Statistics | None], sets: Sequence[ImageSet | None], training: dict[str, Any]
) -> list[str]:
    """Return warnings about the sets themselves: the scored one, its reference, and training images."""
    mine, theirs, *_ = sets
    a = found[0]
    assert mine is not None
    assert theirs is not None
    assert a is not None
    return [
        *([LABELS_UNKNOWN] if "labels_unknown" in mine.about else []),
        *format_warnings(mine, theirs),
        *(["all images are the same"] if len(set(a.keys.tolist())) == 1 else []),
        *shared_images(found, sets),
        *copy_warnings(training),
    ]


def format_warnings(mine: ImageSet, theirs: ImageSet) -> list[str]:
    """Return warnings about differences other than quality that the scores measure too."""
    warnings = []
    sizes = [images.about.get("size") for images in (mine, theirs)]
    if None not in sizes and sizes[0] != sizes[1]:
        text = f"the images have two sizes, {sizes[0]} and {sizes[1]}: the scores measure that too"
        warnings.append(f"{text}; --size {sizes[1]} brings both to one")
    if mine.channels != theirs.channels:
        warnings.append(f"the images have {mine.channels} and {theirs.channels} channels: the scores measure that too")
    return warnings


def few_images_warnings(names: Sequence[str], judges: Sequence[tuple[Statistics, Statistics]]) -> list[str]:
    """Return a warning for each score that needs more images by one of the judges."""
    found = dict[str, str]()
    for (a, b), whose in zip(judges, ("", " of the second judge"), strict=False):
        n, features = min(a.n, b.n), a.kept.shape[1]
        for name, each in (("fid", metrics.ENOUGH), ("fid_infinity", metrics.ENOUGH_HALVED)):
            if name in names and n < each * features:
                text = f"{name} of {n:,} images has no interval: it needs {each * features:,}, {each} for each of the"
                found.setdefault(name, f"{text} {features:,} features{whose}; kid needs fewer")
    return [*found.values()]


def colour_warnings(ours: Colour, real: Colour) -> list[str]:
    """Return a warning for each channel whose colours differ clearly from the data."""
    warnings = []
    for kind, least in (("mean", COLOUR_SHIFT), ("std", COLOUR_SHIFT), ("saturation", SATURATION_SHIFT)):
        for channel, (x, y) in enumerate(zip(getattr(ours, kind), getattr(real, kind), strict=True)):
            error = math.hypot(*(0 if math.isnan(e) else e for e in (x.standard_error, y.standard_error)))
            if abs(x.value - y.value) > max(least, 3 * error):
                warnings.append(
                    f"colour drift: {kind} of channel {channel} is {x.value:.3f}, in the data {y.value:.3f}"
                )
    return warnings
