"""Evaluate a run or a set of images: `unnoise eval` and `unnoise.evaluate` share one path and give the same numbers."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from unnoise import distributed
from unnoise.card import Run
from unnoise.checkpoint import MODEL_FILES, as_run
from unnoise.config import DoctorConfig, EvalConfig
from unnoise.data.sources.memory import is_in_memory
from unnoise.device import made_with, pick_device
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError, unknown
from unnoise.evaluation.comparison import DRAWN, METRICS, compare
from unnoise.evaluation.features import SECOND, open_extractor
from unnoise.evaluation.likelihood import bits_per_dim, format_bits
from unnoise.evaluation.memorization import LEAST_TRAINED, audit, format_audit
from unnoise.evaluation.paired import Pairs, keep_contributions
from unnoise.evaluation.score_table import format_scores
from unnoise.evaluation.scores import Score, read_score
from unnoise.options import Spec, data_text, plain
from unnoise.progress import Report, Say, mute, silent
from unnoise.run_folder import keep_evaluation
from unnoise.terminal import tell

OF_A_RUN = ("bpd", "memorization")  # metrics of a run alone, not of two sets of images
NAMES = (*METRICS, "colour", *OF_A_RUN)
BY_DEFAULT = ("kid", "fid", "precision_recall", "density_coverage", "colour")
FEW, LOOKED_AT = 1_000, 500  # training images, of fewer of which copies are looked for; drawn images that are looked at


class Evaluation(Mapping[str, Score]):
    """The scores of a run or of images by name; `str` gives the table, and `float(score)` the value.

    Attributes:
        details: All numbers and all facts that are needed to compare them, as `unnoise eval --json` writes them. The
            colours and the audit for copies are not scores, and are found only here and in the table.
        second: The scores by the second feature extractor, by name; empty if there is none.
    """

    def __init__(self, details: dict[str, Any]) -> None:
        self.details = details
        for name, why in details.get("failed", {}).items():
            warnings.warn(f"{name} could not be measured: {why}", stacklevel=3)
        values = details.get("scores", {}).get("values", {})
        self._scores = {name: read_score(found) for name, found in values.items()}
        by_second = details.get("scores", {}).get("second", {}).get("values", {})
        self.second = {name: read_score(found) for name, found in by_second.items()}
        for name, part in (("bpd", "bound"), ("bpd_ode", "ode")):
            if found := details.get("bpd", {}).get(part):
                self._scores[name] = Score(found["mean"], found["standard_error"], tuple(found["interval"]))

    def __getitem__(self, name: str) -> Score:
        """Return a score by name; raise KeyError, which names all scores, if it was not measured."""
        if name not in self._scores:
            raise KeyError(f"no score {name!r}; measured are {', '.join(self._scores) or 'none'} (see also .details)")
        return self._scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __repr__(self) -> str:
        return f"Evaluation({', '.join(f'{name} {score.value:.4g}' for name, score in self._scores.items())})"

    def __str__(self) -> str:
        return "\n".join(format_evaluation(self.details))


def evaluate(  # noqa: PLR0913  # the options of one call
    run_or_images: Any,
    data: Any = None,
    *,
    metrics: str | None = None,
    n: int | None = None,
    reference: int = 10_000,
    features: Spec = "efficientnet",
    second: Spec = SECOND,
    size: str | None = None,
    check: bool = False,
    labels: Literal["data", "even"] = "data",
    sampler: Spec | None = None,
    steps: int | None = None,
    spacing: Spec | None = None,
    clip: bool | None = None,
    guidance: float | None = None,
    guidance_interval: str | None = None,
    levels: int = 100,
    variance: Literal["small", "large", "learned"] | None = None,
    ode: bool = True,
    seed: int = 0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    batch: int = 64,
) -> Evaluation:
    """Score a run or a set of images against data.

    Args:
        run_or_images: A run, run folder, model file or `Diffusion`; or images, as `open_data` and `sample` have them.
        data: Images to compare with, as `open_data` takes them (default: held-out images of the run).
        metrics, n, reference, size, check, labels, levels, variance, ode, seed, precision, batch: Of `EvalConfig`.
        features, second, sampler, steps, spacing, clip, guidance, guidance_interval: Of `EvalConfig` too.

    Returns:
        The scores by name; they are also stored in the run folder, except for models and data in memory.

    Raises:
        InputError: There is nothing to compare with, or a value is not allowed.
    """
    return Evaluation(run_evaluation(EvalConfig(**with_set(locals())), say=mute))


def with_set(given: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments of `evaluate` or `doctor` as fields of their settings."""
    return {"set" if name == "run_or_images" else name: value for name, value in given.items()}


def run_evaluation(config: EvalConfig, report: Report = silent, say: Say = tell) -> dict[str, Any]:
    """Measure everything that the settings ask for; return plain values, and store them in the run folder if any."""
    requested_metrics(config)
    run = open_run(config.set)
    folder, say = storage_folder(config, run), once(say)
    pairs: Pairs = {}
    result = measure_evaluation(config, run, folder, report, say, pairs)
    keep_result(folder, result, say, pairs)
    return result


def keep_result(folder: Path | None, result: dict[str, Any], say: Say, pairs: Pairs | None = None) -> None:
    """Store a result in a run folder, if there is one, with what each image contributes; say why if it is not kept."""
    if folder is None or not distributed.is_main():
        return
    try:
        if (place := keep_evaluation(folder, result)) and pairs:
            keep_contributions(place, result["scores"]["of"], pairs)
    except (InputError, OSError) as error:
        say(f"warning: the result is not kept in {folder}: {error}")


def measure_evaluation(
    config: EvalConfig, run: Run | None, folder: Path | None, report: Report, say: Say, pairs: Pairs
) -> dict[str, Any]:
    """Return everything that the settings ask for as plain values, with the settings and the machine.

    Args:
        config, run: The settings, and the run that they name, if it is one.
        folder: Where the contact sheet of the audit is written; None writes none.
        report, say: Called with (task, items done, items in total), and with a line.
        pairs: What each image contributes to a KID is put in here.
    """
    names = requested_metrics(config, run)
    for name in OF_A_RUN:
        if name in names and run is None:
            raise InputError(f"metric {name} needs a run, and {data_text(config.set)} is none")
    parts: dict[str, Callable[[], dict[str, Any]]] = {}
    if run and "bpd" in names:
        parts["bpd"] = partial(bits_per_dim, config, run, report, say)
    if compared := [name for name in names if name not in OF_A_RUN]:
        parts["scores"] = partial(compare, config, run, compared, report, say, pairs)
    if run and "memorization" in names:
        count = config.n or (LOOKED_AT if config.metrics is None else DRAWN)
        parts["memorization"] = lambda: audit(config, run, open_extractor(config.features), count, report, folder, say)
    return measure_parts(parts, say) | how_measured(config, run)


def how_measured(config: EvalConfig | DoctorConfig, run: Run | None) -> dict[str, Any]:
    """Return what a result was measured with, as plain values: settings, sampling settings of the run, and machine."""
    asked = {name: value for name, value in plain(config).items() if name not in ("set", "json")}
    own = {"sampling": plain(run.card.sampling)} if run else {}  # tune may change it later
    return {"asked": asked, **own, "made_with": made_with(run.model.device if run else pick_device())}


def measure_parts(parts: Mapping[str, Callable[[], dict[str, Any]]], say: Say) -> dict[str, Any]:
    """Measure one part after another; a later part that fails does not throw away what was measured before."""
    result: dict[str, Any] = {}
    for name, work in parts.items():
        try:
            result[name] = work()
        except InputError as error:
            if not result:
                raise
            result.setdefault("failed", {})[name] = str(error)
            say(f"warning: {name} {'are' if name == 'scores' else 'is'} not measured: {error}")
    return result


def once(say: Say) -> Say:
    """Return `say` for lines that were not said before: two metrics may open the same data."""
    said = set[str]()

    def say_once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_once


def requested_metrics(config: EvalConfig, run: Run | None = None) -> list[str]:
    """Return the names of the requested metrics; raise InputError before any data is read."""
    given = config.metrics
    names = by_default(config, run) if given is None else [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise InputError(f"--metrics is empty: name one or more of {', '.join(NAMES)}")
    for name in names:
        if name not in NAMES:
            raise unknown("metric", name, NAMES)
    if config.against is not None and config.data is not None:
        raise InputError("name the data to compare with once: as a second set, or with --data")
    return names


def by_default(config: EvalConfig, run: Run | None) -> list[str]:
    """Return the metrics that are measured if none are named: also copies, for a run with few training images."""
    if run is None or config.data is not None or config.against is not None or not run.card.data.get("fingerprint"):
        return [*BY_DEFAULT]
    few = LEAST_TRAINED <= run.card.data.get("count", 0) < FEW
    return [*BY_DEFAULT, "memorization"] if few else [*BY_DEFAULT]


def open_run(subject: Any) -> Run | None:
    """Return the run that is to be evaluated, or None if `subject` is a set of images."""
    if isinstance(subject, Run | Diffusion):
        return as_run(subject)
    if not isinstance(subject, str | os.PathLike):
        return None
    path = Path(subject)
    is_run = path.suffix == ".safetensors" or any((path / name).is_file() for name in MODEL_FILES)
    return as_run(path) if is_run else None


def storage_folder(config: EvalConfig, run: Run | None) -> Path | None:
    """Return the run folder that results are stored in, or None for models and data in memory."""
    in_memory = any(data is not None and is_in_memory(data) for data in (config.data, config.against))
    return None if run is None or run.path is None or in_memory else run.folder


def format_evaluation(result: dict[str, Any]) -> list[str]:
    """Return the lines that `unnoise eval` prints."""
    parts = {"bpd": format_bits, "scores": format_scores, "memorization": format_audit}
    return [line for part, lines in parts.items() if part in result for line in lines(result[part])]
