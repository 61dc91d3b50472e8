"""`unnoise tune`: the way of sampling that gives a run its best pictures in the time one has, by trying them.

Successive halving, Jamieson & Talwalkar 2016 (arXiv:1502.07943): many ways on few pictures, fewer ways on more.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import load, read_model, write_model
from unnoise.config import EvalConfig, Sampling, TuneConfig
from unnoise.errors import InputError
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import dataset_images, run_data, run_images, seconds_to_look
from unnoise.evaluation.measure import seconds, statistics
from unnoise.evaluation.metrics import Score, kid
from unnoise.evaluation.statistics import Statistics
from unnoise.files import lock_folder
from unnoise.interop.diffusers_format import INDEX
from unnoise.options import plain
from unnoise.progress import Report, silent
from unnoise.samplers.draw import check_settings
from unnoise.samplers.precision import Precision, choose_precision, describe_precision, seconds_per_image
from unnoise.sampling import check_guidance, network_calls

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0}
SPACINGS = ("trailing", "karras", "log_snr")
MORE = ("ddim:eta=0.5", "ddpm:variance=large", "heun:churn=10")  # beside every sampler as it is
GUIDANCE = (1.5, 2.0, 3.0)  # for runs with classes; each evaluation costs two calls
ROUNDS = (0.1, 0.3, 1.0)  # of n pictures each; the better quarter goes on
KEEP = 0.25
FEWEST = 20  # pictures of a round


class Tried(NamedTuple):
    how: Sampling
    seconds: float  # a picture
    score: Score


def tune(config: TuneConfig, report: Report = silent, say: Callable[[str], object] = print) -> dict[str, Any]:
    """Try, keep the best in the model file, and return everything as plain values."""
    run = load(config.run)
    if run.file.name == INDEX:
        raise InputError(f"{run.folder} is a pipeline of diffusers, which unnoise does not change")
    if "evaluations" not in registry.sampler.declared(run.card.sampling.sampler) and not config.time:
        raise InputError(f"the run's own sampler {run.card.sampling.sampler} takes as long as it likes; give a --time")
    precision = choose_precision("auto", run.model.device)
    say(describe_precision(precision, run.model.device))
    each = min(seconds_per_image(run.model, config.batch, precision) for _ in range(3))
    time = given(config.time, each) if config.time else each * network_calls(run.card.sampling)
    rivals = [how for how in candidates(run, time / each) if how != run.card.sampling]
    judge = Judge(config, run, precision, registry.features.get(config.features)(), each, report)
    say(f"{len(rivals)} ways in {1000 * time:.0f} ms a picture; this takes about {judge.seconds(rivals):.0f} s")
    tried: list[Tried] = []
    for i, share in enumerate(ROUNDS):
        last = i == len(ROUNDS) - 1
        if i == 1:
            rivals += guided(run, rivals[0], time / each)
        if last and run.card.sampling not in rivals:
            rivals.append(run.card.sampling)
        tried = sorted((judge(how, round(share * config.n), i) for how in rivals), key=lambda one: one.score.value)
        rivals = [one.how for one in tried[: max(2, round(KEEP * len(tried)))]]
    before = next(one for one in tried if one.how == run.card.sampling)
    best = choice([one for one in tried if one is not before], before, time)
    stored_in = keep(run, best.how) if best is not before else None
    rows = [{**plain(one.how), "seconds": one.seconds, **one.score._asdict()} for one in tried]
    return {
        "tried": rows,
        "best": plain(best.how),
        "before": plain(before.how),
        "precision": precision,
        "stored": stored_in,
    }


def given(text: str, each: float) -> float:
    """Seconds a picture may take."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(ms|s|m)", text.removesuffix("/image").strip())
    if not found or not float(found[1]):
        raise InputError(f"--time takes the time of one picture, such as 50ms or 2s, got {text!r}")
    seconds = float(found[1]) * UNITS[found[2]]
    if seconds < 2 * each:
        raise InputError(
            f"--time {text}: one call of this network takes {1000 * each:.1f} ms a picture here; give "
            f"{math.ceil(2000 * each)}ms or more, for two of them"
        )
    return seconds


def candidates(run: Run, evaluations: float) -> Iterator[Sampling]:
    """Every sampler, with as many steps as there is time for, at each spacing it can do with."""
    known = [*registry.sampler.names(), *MORE, *(["ddpm:variance=learned"] if run.card.learned_variance else [])]
    for sampler, spacing in product(known, SPACINGS):
        a_step = registry.sampler.declared(sampler).get("evaluations")
        if a_step is None:  # it takes as many as it likes
            continue
        steps = min(int(evaluations / a_step + 1e-6), run.model.schedule.T)  # 19.999 are 20
        how = replace(run.card.sampling, sampler=sampler, steps=steps, spacing=spacing, guidance=1.0)
        try:
            check_settings(how, run.model.schedule, run.card.learned_variance)
        except InputError:  # such as a spacing of other schedules
            continue
        yield how


def guided(run: Run, best: Sampling, evaluations: float) -> list[Sampling]:
    """The best so far with its class followed more strongly, where there are classes."""
    a_step = registry.sampler.declared(best.sampler).get("evaluations", 1)
    steps = min(int(evaluations / a_step / 2 + 1e-6), run.model.schedule.T)
    try:
        check_guidance(run, None)
    except InputError:  # such as a run that never saw images without their class
        return []
    if steps < 1:
        return []
    return [replace(best, guidance=guidance, steps=steps) for guidance in GUIDANCE]


class Judge:
    """KID against the data, of new seeds in each round, and the same for all."""

    def __init__(  # all that a score depends on
        self,
        config: TuneConfig,
        run: Run,
        precision: Precision,
        extractor: Extractor,
        each: float,
        report: Report,
    ) -> None:
        self.config, self.run, self.extractor, self.each, self.report = config, run, extractor, each, report
        self.asked = EvalConfig(config.run, data=config.data, batch=config.batch, precision=precision)
        dataset = run_data(self.asked, run)
        if len(dataset) < FEWEST:
            raise InputError(f"scores need {FEWEST} pictures or more; {dataset.name} has {len(dataset)}")
        self.data = dataset_images(dataset, min(len(dataset), config.reference), 0, config.batch)
        self.real: Statistics | None = None

    def seconds(self, rivals: list[Sampling]) -> float:
        """About how long all rounds will take."""
        shares, look = sum(share * KEEP**i for i, share in enumerate(ROUNDS)), seconds_to_look(self.extractor)
        drawing = sum(self.each * network_calls(how) + look for how in rivals) * self.config.n * shares
        return drawing + seconds(self.data, self.extractor)

    def __call__(self, how: Sampling, n: int, turn: int) -> Tried:
        if self.real is None:
            self.real = statistics(self.data, self.extractor, "reading", self.report)
        asked = replace(self.asked, seed=turn * self.config.n, **vars(how))
        pictures = run_images(asked, self.run, n)
        found = statistics(pictures, self.extractor, f"round {turn + 1}: {how.sampler}", self.report)
        return Tried(how, self.each * network_calls(how), kid(found.kept, self.real.kept))


def choice(others: list[Tried], before: Tried, seconds: float) -> Tried:
    """The best, unless what the run does now is in time and not clearly worse."""
    best = min(others, key=lambda one: one.score.value)
    clearly = before.score.value - best.score.value > 1.96 * math.hypot(best.score[1], before.score[1])
    return best if clearly or before.seconds > 1.1 * seconds else before


def keep(run: Run, how: Sampling) -> str:
    """Write it into the model file: from now on the run is sampled so."""
    with lock_folder(run.folder):
        card, weights = read_model(run.file)
        write_model(run.file, weights, replace(card, sampling=how))
    return str(run.path)


def table(found: dict[str, Any]) -> list[str]:
    """What is printed of it, the best first."""
    lines = [f"{'sampler':26}{'steps':>6}  {'spacing':10}{'guidance':>8}{'ms':>9}  KID x 1000"]
    for row in found["tried"]:
        here = {name: row[name] for name in found["best"]}
        mark = "  best" if here == found["best"] else "  before" if here == found["before"] else ""
        name = f"{row['sampler']:26}{row['steps']:6}  {row['spacing']:10}{row['guidance']:8.1f}"
        score = f"{1000 * row['value']:.1f} +- {1960 * row['standard_error']:.1f}"
        lines.append(f"{name}{1000 * row['seconds']:9.1f}  {score}{mark}")
    kept = f"stored in {found['stored']}" if found["stored"] else "the run's own way is as good: nothing was changed"
    return [*lines, kept]
