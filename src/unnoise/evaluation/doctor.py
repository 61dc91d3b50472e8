"""`unnoise doctor`: name the faults of a run or of images, what each costs in KID, and what mends it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unnoise.card import Run
from unnoise.config import DoctorConfig, EvalConfig, Sampling
from unnoise.data.dataset import Dataset
from unnoise.errors import InputError
from unnoise.evaluation.diagnosis import Sets, diagnose, features, in_order, is_real, open_sets
from unnoise.evaluation.doctor_text import format_doctor
from unnoise.evaluation.evaluate import how_measured, keep_result, open_run, storage_folder, with_set
from unnoise.evaluation.faults import LONGER
from unnoise.evaluation.features import as_rgb, fitting, open_extractor
from unnoise.evaluation.image_sets import (
    ImageSet,
    dataset_images,
    drawing_settings,
    every_batch,
    extraction_seconds,
    open_images,
    run_data,
    run_images,
)
from unnoise.evaluation.kid_change import Weighted, kid_change
from unnoise.evaluation.memorization import read_batches
from unnoise.evaluation.noise_levels import IMAGES, STARTS, climb, more_steps, parts
from unnoise.evaluation.references import choose_references, parts_of
from unnoise.evaluation.scores import plain_score
from unnoise.evaluation.statistics import content_keys
from unnoise.images import Uint8Images, Uint8Set
from unnoise.options import Spec, data_text
from unnoise.progress import Report, Say, mute, silent
from unnoise.run_folder import metrics_rows
from unnoise.samplers.precision import choose_precision, seconds_per_image
from unnoise.sampling import network_calls
from unnoise.terminal import tell

DRAWN = 1_000  # images drawn from a run by default
LEAST = 100  # images of each set: fewer show no fault
POOL = 10_000  # training images among which copies are looked for, at most
REDRAWN = 256  # images that are drawn with more steps
TIMES = 3  # as many steps
PASSES = 6  # times that the features of the real images are extracted, typically
OF_A_STUDENT = "distill longer (unnoise distill --budget), or with more --steps; see if its teacher has the fault too"
GAP, FALL = 0.1, 0.02  # shares of the held-out loss that are worth a word


class Diagnosis:
    """The faults of a run or of images; `str` gives the page that `unnoise doctor` prints.

    Attributes:
        details: All numbers, as `unnoise doctor --json` writes them.
    """

    def __init__(self, details: dict[str, Any]) -> None:
        self.details = details

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Return the findings, the most costly first: "fault", "name", "cost", "advice" and the measured number."""
        found: list[dict[str, Any]] = self.details["doctor"]["findings"]
        return found

    def __repr__(self) -> str:
        return f"Diagnosis({', '.join(found['fault'] for found in self.findings) or 'nothing found'})"

    def __str__(self) -> str:
        return "\n".join(format_doctor(self.details["doctor"]))


def doctor(  # noqa: PLR0913  # the options of one call
    run_or_images: Any,
    data: Any = None,
    *,
    n: int | None = None,
    reference: int = 2_000,
    features: Spec = "efficientnet",
    size: str | None = None,
    labels: Literal["data", "even"] = "data",
    sampler: Spec | None = None,
    steps: int | None = None,
    spacing: Spec | None = None,
    clip: bool | None = None,
    guidance: float | None = None,
    guidance_interval: str | None = None,
    seed: int = 0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    batch: int = 64,
) -> Diagnosis:
    """Name the faults of a run or of a set of images, with the cost of each in KID.

    Args:
        run_or_images: A run, run folder, model file or `Diffusion`; or images, as `open_data` and `sample` have them.
        data: Real images, as `open_data` takes them (default: held-out images of the run).
        n, reference: How many images are judged, and real images they are compared with, at most.
        features: A spec, or a callable that returns an `Extractor`.
        sampler, steps, spacing, clip, guidance, guidance_interval: Sampling settings (default: the run's own).
        size, labels, seed, precision, batch: Fields of `DoctorConfig`.

    Returns:
        The findings; they are also stored in the run folder, except for models and data in memory.

    Raises:
        InputError: There is nothing to compare with, or a value is not allowed.
    """
    return Diagnosis(run_doctor(DoctorConfig(**with_set(locals())), say=mute))


def run_doctor(config: DoctorConfig, report: Report = silent, say: Say = tell) -> dict[str, Any]:
    """Return the faults as plain values, and store them in the run folder if there is one."""
    run = open_run(config.set)
    found = measure_doctor(config, run, report, say)
    keep_result(storage_folder(as_eval(config), run), found, say)
    return found


def measure_doctor(config: DoctorConfig, run: Run | None, report: Report, say: Say) -> dict[str, Any]:
    """Return the faults as plain values, with the settings and the machine."""
    asked = as_eval(config)
    found = of_run(asked, run, report, say) if run else of_images(asked, report, say)
    return {"doctor": found, **how_measured(config, run)}


def as_eval(config: DoctorConfig) -> EvalConfig:
    """Return the settings as settings of an evaluation, which open the same images."""
    return EvalConfig(**{f.name: getattr(config, f.name) for f in fields(config) if f.name != "json"})


# Images


def of_images(config: EvalConfig, report: Report, say: Say) -> dict[str, Any]:
    """Return the faults of a set of images."""
    if config.data is None:
        raise InputError(f"{data_text(config.set)} is no run: name the real images with --data")
    mine, real = (open_images(data, say, config.size) for data in (config.set, config.data))
    if mine.shape[1:] != real.shape[1:]:
        sizes = [f"{width}x{height}" for _, height, width in (mine.shape, real.shape)]
        raise InputError(f"the images are {sizes[0]}, the real ones {sizes[1]}; --size {sizes[1]} brings both to one")
    drawn = dataset_images(mine, config.n and min(config.n, len(mine)), config.seed, config.batch, say)
    theirs = dataset_images(real, min(len(real), config.reference), config.seed, config.batch, say)
    sets = prepare(config, (drawn, theirs), real, report, say)
    return {**diagnose(sets, report), **about(sets, drawn, theirs)}


def prepare(
    config: EvalConfig, images: tuple[ImageSet, ImageSet], trained: Dataset, report: Report, say: Say, extra: float = 0
) -> Sets:
    """Return the images of both sets in memory, with features, labels, and training images to look for copies."""
    for some in images:
        if some.n < LEAST:
            raise InputError(f"the doctor needs {LEAST} images or more; {some.about['name']} has {some.n}")
    drawn, real = images
    extractor = open_extractor(fitting(config.features, min(trained.shape[1:])))
    passes = (drawn.n + PASSES * real.n) * extraction_seconds(extractor)
    say(f"this takes about {drawn.seconds_per_image * drawn.n + passes + extra:.0f} s")
    pixels, known = as_alike(
        [read(each, task, report) for each, task in zip(images, ("drawing", "reading"), strict=True)]
    )
    rows = np.sort(trained.chosen(min(POOL, len(trained)), config.seed))
    pool = torch.cat([*read_batches(trained, rows)])
    pool = pool if pool.shape[1] == known.shape[1] else as_rgb(pool)
    labels, classes = real.labels() if real.labels else (None, ())
    return open_sets(pixels, known, extractor, labels, classes, pool, rows_among(known, pool))


def read(images: ImageSet, task: str, report: Report) -> Uint8Images:
    """Return all images of a set."""
    found = list[Uint8Images]()
    for batch in images.stream(every_batch):
        found.append(batch.cpu())
        report(task, sum(map(len, found)), images.n)
    return torch.cat(found)


def as_alike(sets: Sequence[Uint8Set]) -> list[Uint8Set]:
    """Return sets of equally many channels: gray if all are gray, else RGB; alpha is laid over white."""
    return list(sets) if all(some.shape[1] == 1 for some in sets) else [as_rgb(some).contiguous() for some in sets]


def rows_among(images: Uint8Set, pool: Uint8Set) -> Tensor:
    """Return the row of each image among others with the same pixels, [n]; -1 if it is not among them."""
    places = {key: i for i, key in enumerate(content_keys(pool).tolist())}
    return torch.tensor([places.get(key, -1) for key in content_keys(images).tolist()])


def about(sets: Sets, drawn: ImageSet, real: ImageSet) -> dict[str, Any]:
    """Return what the findings are of, as plain values."""
    return {"of": drawn.about, "against": real.about, "features": sets.extractor.about}


# A run


def of_run(config: EvalConfig, run: Run, report: Report, say: Say) -> dict[str, Any]:
    """Return the faults of the images that a run draws, of its sampler and of its training."""
    precision = choose_precision(config.precision, run.model.device)
    config = replace(config, precision=precision)
    if config.size:
        raise InputError(f"--size is for two sets of images, and {run.name} is a run; leave it out")
    drawn = run_images(config, run, config.n or DRAWN)
    real, _ = choose_references(config, run, config.reference, say)
    trained = training_images(config, run)
    _, how = drawing_settings(config, run, drawn.n)
    calls = (REDRAWN * TIMES + IMAGES * (STARTS + 1) / 2) * network_calls(how)
    sets = prepare(
        config, (drawn, real), trained, report, say, calls * seconds_per_image(run.model, precision=precision)
    )
    found = diagnose(sets._replace(mirrored=run.card.mirrored), report)
    found["levels"] = levels_of(config, run, how, sets, report)
    found["findings"] = in_order([*found["findings"], *sampler_findings(config, run, how, sets, report)])
    found["findings"] = in_order([*found["findings"], *training_findings(run, found)])
    if run.card.taught:
        found["findings"] = [*map(advise_student, found["findings"])]
    return {**found, **about(sets, drawn, real)}


def training_images(config: EvalConfig, run: Run) -> Dataset:
    """Return the images that a run was trained on; if they are gone or have changed, the data it is compared with."""
    with suppress(InputError, OSError):
        own = run_data(EvalConfig(), run)
        if own.fingerprint == run.card.data.get("fingerprint"):
            return parts_of(own, run)[0]
    return run_data(config, run)


def levels_of(config: EvalConfig, run: Run, how: Sampling, sets: Sets, report: Report) -> dict[str, Any]:
    """Return KID by the level that real images are noised to, and the shares of coarse, middle and fine levels."""
    labels = sets.labels[:IMAGES] if run.card.classes and sets.labels is not None else None
    images = sets.real[:IMAGES]
    if images.shape[1] != run.card.shape[0] or (run.card.classes and labels is None):
        return {}
    precision = choose_precision(config.precision, run.model.device)
    rows = climb(run, how, images, sets.real_features[:IMAGES], labels, sets.extractor, precision, report)
    return {"rows": rows, "parts": parts(rows), "n": len(images)}


def sampler_findings(config: EvalConfig, run: Run, how: Sampling, sets: Sets, report: Report) -> list[dict[str, Any]]:
    """Return the findings that more steps, or clipping, lower KID: the same seeds are drawn again."""
    others = {} if run.card.taught else {"steps": more_steps(how, run.model.schedule.T, TIMES)}
    if not how.clip:
        others["clip"] = replace(how, clip=True)
    found = []
    for name, other in others.items():
        if other == how:
            continue
        asked = replace(config, **{each: getattr(other, each) for each in ("steps", "clip")})
        few = min(REDRAWN, len(sets.drawn))
        pixels = as_alike([read(run_images(asked, run, few), "drawing again", report), sets.real])[0]
        before = Weighted.even(sets.features[:few]), Weighted.even(sets.real_features)
        cost = plain_score(kid_change(before, (Weighted.even(features(pixels, sets.extractor)), before[1])))
        if is_real(cost):
            found.append({"fault": name, "cost": cost, "way": "drawn again", **in_words(name, how, other)})
    return found


def advise_student(finding: dict[str, Any]) -> dict[str, Any]:
    """Return a finding about a student: advice on steps or on a longer training becomes advice on distillation."""
    of_training = LONGER in finding["advice"] or "--steps" in finding["advice"] or finding["fault"] == "training"
    return {**finding, "advice": OF_A_STUDENT} if of_training else finding


def in_words(name: str, how: Sampling, other: Sampling) -> dict[str, Any]:
    """Return name, number and advice of a fault of the sampler."""
    if name == "clip":
        return {
            "name": "the predicted image is not clipped",
            "says": "clip",
            "number": 0,
            "advice": "draw with --clip; unnoise tune stores it in the run",
        }
    return {
        "name": f"too few steps: {how.steps} of {how.sampler}",
        "says": "steps",
        "number": how.steps,
        "advice": f"draw with --steps {other.steps}, or let unnoise tune search a better --sampler and --spacing",
    }


def training_findings(run: Run, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the finding that the network itself is the fault, if KID is high without all other faults."""
    rest = found["rest"]
    explained = max([0.0, *(each["cost"]["value"] for each in found["findings"] if each["way"] == "drawn again")])
    value, (low, high) = rest["value"] - explained, rest["interval"]
    if low - explained <= found["equal_kid"]["interval"][1]:
        return []
    log = [row for row in metrics_rows(run.folder) if "held_out" in row] if run.path else []
    return [
        {
            "fault": "training",
            "name": "the network: shapes and textures that no other finding explains",
            "says": "images seen",
            "number": run.card.training.get("images", 0),
            "cost": {**rest, "value": value, "interval": [low - explained, high - explained]},
            "way": "the rest",
            "advice": training_advice(log),
        }
    ]


def training_advice(log: Sequence[dict[str, Any]]) -> str:
    """Return what to change in the training, by the loss of the averaged weights on held-out and training images."""
    if len(log) < 2:
        return LONGER
    held, trained = (sum(log[-1][name]) for name in ("held_out", "trained"))
    early = sum(log[len(log) // 2]["held_out"])
    if held > (1 + GAP) * trained:
        gap = held / trained - 1
        return f"the loss is {gap:.0%} higher on held-out images: more images, --flip, or a shorter training"
    if early > (1 + FALL) * held:
        return f"the held-out loss still fell by {1 - held / early:.0%} in the second half: {LONGER}"
    return (
        f"the held-out loss fell by less than {FALL:.0%} in the second half: a wider --backbone, or a longer --budget"
    )
