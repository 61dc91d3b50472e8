"""`unnoise tune`: search sampling settings for a time budget, and store the best in the run.

Successive halving, Jamieson & Talwalkar 2016 (arXiv:1502.07943): many settings are scored on few images, and the best
settings on more images. The least of many scores is too low by chance. So the best settings and the run's own settings
are scored again on new seeds, and these scores decide.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import load, read_model, write_model
from unnoise.config import EvalConfig, Sampling, TuneConfig
from unnoise.errors import InputError
from unnoise.evaluation.comparison import LABELS_UNKNOWN
from unnoise.evaluation.features import Extractor, fitting, open_extractor
from unnoise.evaluation.image_sets import (
    ImageSet,
    LabelRule,
    extraction_seconds,
    label_rule,
    run_images,
)
from unnoise.evaluation.judges import TUNED_BY
from unnoise.evaluation.measure import expected_seconds, measure
from unnoise.evaluation.metrics import kid
from unnoise.evaluation.paired import Contributions, difference, pairs_of
from unnoise.evaluation.references import choose_references
from unnoise.evaluation.scores import Score, is_below, plain_score, symmetric
from unnoise.evaluation.statistics import Statistics
from unnoise.files import lock_folder, unwritable
from unnoise.interop.diffusers_read import is_of_diffusers
from unnoise.options import plain
from unnoise.progress import Report, Say, silent
from unnoise.samplers.draw import NonfiniteError, check_settings
from unnoise.samplers.precision import choose_precision, describe_precision, seconds_per_image
from unnoise.sampling import check_guidance, network_calls
from unnoise.terminal import tell

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0}
SPACINGS = ("trailing", "karras", "log_snr")
VARIANTS = ("ddim:eta=0.5", "ddpm:variance=large", "heun:churn=10")  # tried besides every sampler with its defaults
GUIDANCE = (1.5, 2.0, 3.0)  # tried for runs with classes; a step with guidance calls the network twice
ROUNDS = (0.1, 0.3, 1.0)  # each round scores this share of n images
KEPT_SHARE = 0.25  # of the candidates, for the next round
MIN_IMAGES = 20  # in a round, and in the data


class Candidate(NamedTuple):
    """Sampling settings with their score, and the seconds that an image takes."""

    how: Sampling
    seconds: float
    score: Score
    pair: Contributions | None = None  # of each image to the score, if all are kept


class Final(NamedTuple):
    """The best settings and the run's own settings, scored again on new seeds, and the difference of their KIDs."""

    best: Candidate
    before: Candidate
    change: Score


class Scorer(NamedTuple):
    """Everything that a score depends on, except the sampling settings."""

    config: EvalConfig
    run: Run
    extractor: Extractor
    data: ImageSet
    labels: LabelRule
    call_seconds: float  # of one network call, for one image
    report: Report


def tune(config: TuneConfig, report: Report = silent, say: Say = tell) -> dict[str, Any]:
    """Search sampling settings, store the best in the model file, and return everything as plain values."""
    run = load(config.run)
    check_tunable(config, run)
    if why := unwritable(run.file):
        say(f"warning: the best settings will only be printed, since {run.file} cannot be written ({why})")
    precision = choose_precision("auto", run.model.device)
    say(describe_precision(precision, run.model.device))
    call_seconds = min(seconds_per_image(run.model, config.batch, precision) for _ in range(3))
    own = run.card.sampling
    time = parse_time(config.time, call_seconds) if config.time else call_seconds * network_calls(own)
    rivals = [how for how in candidate_settings(run, time / call_seconds) if how != own]
    scorer = make_scorer(config, run, call_seconds, report, say)
    seconds = search_seconds(scorer, rivals, config.n)
    say(f"{len(rivals)} sampling settings in {1000 * time:.0f} ms an image; this takes about {seconds:.0f} s")
    if rule := scorer.labels.facts.get("labels"):
        say(f"warning: {LABELS_UNKNOWN}" if "labels_unknown" in scorer.labels.facts else f"classes are drawn {rule}")
    real = measure(scorer.data, scorer.extractor, "reading", report)
    tried = search(scorer, rivals, config.n, time, real)
    before = next(one for one in tried if one.how == own)
    final = final_round(scorer, tried, before, config.n, time, real)
    best = choose_best(final, before, time)
    return {
        "tried": plain_candidates(tried, before),
        "final": plain_final(final, config.n) if final else None,
        "best": plain(best),
        "before": plain(own),
        "precision": precision,
        **scorer.labels.facts,
        "stored": try_to_store(scorer, best, say) if best != own else None,
    }


def check_tunable(config: TuneConfig, run: Run) -> None:
    """Raise InputError if a run or its settings cannot be tuned."""
    if is_of_diffusers(run.file):
        raise InputError(f"{run.folder} is a folder of diffusers, which unnoise does not change")
    if run.card.taught:
        raise InputError(
            f"{run.name} was taught its {run.card.taught[0]} steps and no others; there is nothing to tune"
        )
    if "evaluations" not in registry.sampler.declared(run.card.sampling.sampler) and not config.time:
        raise InputError(f"the run's own sampler {run.card.sampling.sampler} chooses its own steps; give a --time")


def parse_time(text: str, call_seconds: float) -> float:
    """Return the seconds that an image may take; raise InputError if that is less than two network calls."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(ms|s|m)", text.removesuffix("/image").strip())
    if not found or not float(found[1]):
        raise InputError(f"--time takes the time of one image, such as 50ms or 2s, got {text!r}")
    seconds = float(found[1]) * UNITS[found[2]]
    if seconds < 2 * call_seconds:
        raise InputError(
            f"--time {text}: one call of this network takes {1000 * call_seconds:.1f} ms an image here; give "
            f"{math.ceil(2000 * call_seconds)}ms or more, for two calls"
        )
    return seconds


# Candidates


def candidate_settings(run: Run, calls: float) -> Iterator[Sampling]:
    """Yield every sampler at each spacing it can use, with the steps that this many network calls allow."""
    samplers = [*registry.sampler.names(), *VARIANTS, *(["ddpm:variance=learned"] if run.card.learned_variance else [])]
    for sampler, spacing in product(samplers, SPACINGS):
        calls_a_step = registry.sampler.declared(sampler).get("evaluations")
        if calls_a_step is None:  # it chooses its own steps
            continue
        steps = min(int(calls / calls_a_step + 1e-6), run.model.schedule.T)  # 19.999 are 20
        how = replace(run.card.sampling, sampler=sampler, steps=steps, spacing=spacing, guidance=1.0)
        try:
            check_settings(how, run.model.schedule, run.card.learned_variance)
        except InputError:  # for example a spacing that needs another schedule
            continue
        yield how


def guided_settings(run: Run, best: Sampling, calls: float) -> list[Sampling]:
    """Return the best settings with stronger guidance, or nothing if the run cannot be guided."""
    calls_a_step = registry.sampler.declared(best.sampler).get("evaluations", 1)
    steps = min(int(calls / calls_a_step / 2 + 1e-6), run.model.schedule.T)
    try:
        check_guidance(run, None)
    except InputError:  # for example a run that never saw images without their class
        return []
    return [replace(best, guidance=guidance, steps=steps) for guidance in GUIDANCE] if steps >= 1 else []


# Scores


def make_scorer(config: TuneConfig, run: Run, call_seconds: float, report: Report, say: Say) -> Scorer:
    """Open the data and the feature extractor that all candidates are scored with."""
    extractor = open_extractor(fitting(config.features, min(run.card.shape[1:])))
    settings = EvalConfig(set=run, data=config.data, batch=config.batch)
    data = choose_references(settings, run, config.reference, say).main
    if data.n < MIN_IMAGES:
        raise InputError(f"scores need {MIN_IMAGES} images or more; {data.about['name']} has {data.n}")
    say(f"compared with {data.n:,} {data.about.get('which', 'images')} of {data.about['name']}")
    return Scorer(settings, run, extractor, data, label_rule(settings, run), call_seconds, report)


def search_seconds(scorer: Scorer, rivals: list[Sampling], n: int) -> float:
    """Estimate the seconds that all rounds take."""
    shares, look = sum(share * KEPT_SHARE**i for i, share in enumerate(ROUNDS)), extraction_seconds(scorer.extractor)
    each = [scorer.call_seconds * network_calls(how) + look for how in rivals]
    drawing = n * (shares * sum(each) + 2 * max(each, default=0.0))
    return drawing + expected_seconds(scorer.data, scorer.extractor)


def search(scorer: Scorer, rivals: list[Sampling], n: int, time: float, real: Statistics) -> list[Candidate]:
    """Return the candidates of the last round, the best first; the run's own settings are among them."""
    tried = list[Candidate]()
    for i, share in enumerate(ROUNDS):
        if i == 1:
            rivals += guided_settings(scorer.run, rivals[0], time / scorer.call_seconds)
        if i == len(ROUNDS) - 1 and scorer.run.card.sampling not in rivals:
            rivals.append(scorer.run.card.sampling)
        scored = (score_settings(scorer, how, round(share * n), i, i * n, real) for how in rivals)
        tried = sorted(scored, key=lambda one: one.score.value)
        rivals = [one.how for one in tried[: max(2, round(KEPT_SHARE * len(tried)))]]
    if tried[0].score.value == math.inf:
        raise NonfiniteError("no sampling settings draw images that are finite numbers; is the model damaged?")
    return tried


def score_settings(scorer: Scorer, how: Sampling, n: int, turn: int, seed: int, real: Statistics) -> Candidate:
    """Score n images that these settings draw; all candidates of a round have the same seeds, and no other round.

    Settings that draw no numbers get the worst score.
    """
    images = run_images(replace(scorer.config, seed=seed, **vars(how)), scorer.run, n, scorer.labels)
    seconds = scorer.call_seconds * network_calls(how)
    try:
        found = measure(images, scorer.extractor, f"round {turn + 1}: {how.sampler}", scorer.report)
    except NonfiniteError:
        return Candidate(how, seconds, Score(math.inf, 0.0, (math.inf, math.inf)))
    pair = pairs_of([found], [real], [scorer.extractor]).get(scorer.extractor.about["network"])
    return Candidate(how, seconds, kid(found.kept, real.kept), pair)


def final_round(
    scorer: Scorer, tried: list[Candidate], before: Candidate, n: int, time: float, real: Statistics
) -> Final | None:
    """Score the best of the other settings and the run's own settings again, on n seeds that no round had.

    Return None, without drawing, if the run's own settings keep to the time and have the lowest score already.
    """
    best = min((one for one in tried if one is not before), key=lambda one: one.score.value)
    if before.score.value <= best.score.value and keeps_to(before, time):
        return None
    turn = len(ROUNDS)
    again, own = (score_settings(scorer, one.how, n, turn, turn * n, real) for one in (best, before))
    return Final(again, own, change(again, own))


def keeps_to(candidate: Candidate, time: float) -> bool:
    """Return True if an image takes no longer than asked for, about."""
    return candidate.seconds <= 1.1 * time


def choose_best(final: Final | None, before: Candidate, time: float) -> Sampling:
    """Return the best settings, unless the run's own settings keep to the time and are not clearly worse."""
    if final and (is_below(final.change) or not keeps_to(before, time)):
        return final.best.how
    return before.how


def change(one: Candidate, before: Candidate, comparisons: int = 1) -> Score:
    """Return the KID of settings less the KID of others; their images have the same seeds."""
    if one.pair and before.pair:
        return difference(one.pair, before.pair, comparisons).score
    return symmetric(one.score.value - before.score.value, one.score.standard_error**2 + before.score.standard_error**2)


# Plain values


def plain_candidates(tried: list[Candidate], before: Candidate) -> list[dict[str, Any]]:
    """Return the candidates of the last round as plain values; the intervals of their differences hold together."""
    return [
        {
            **plain(one.how),
            "seconds": one.seconds,
            **one.score._asdict(),
            "difference": plain_score(change(one, before, max(len(tried) - 1, 1))),
        }
        for one in tried
    ]


def plain_final(final: Final, n: int) -> dict[str, Any]:
    """Return the last two scores as plain values."""
    scores = {"best": final.best.score, "before": final.before.score, "difference": final.change}
    return {
        "images": n,
        "settings": plain(final.best.how),
        **{name: plain_score(score) for name, score in scores.items()},
    }


def try_to_store(scorer: Scorer, how: Sampling, say: Say) -> str | None:
    """Store the settings and return the path of the file; say why, and return None, if that is impossible."""
    try:
        return store_best(scorer.run, how, scorer.extractor.about["network"])
    except (InputError, OSError) as error:
        say(f"warning: the best settings are not stored: {error}")
        return None


def store_best(run: Run, how: Sampling, network: str) -> str:
    """Write the settings into the model file, and by whose KID they were chosen; return the path.

    From now on the run is sampled with them.
    """
    with lock_folder(run.folder):
        card, weights = read_model(run.file)
        training = {**card.training, TUNED_BY: network}
        write_model(run.file, weights, replace(card, sampling=how, training=training))
    return str(run.file)
