"""`unnoise distill`: train a student of a run, which draws in few steps what the run draws in many."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unnoise import distributed
from unnoise.card import Card, Run
from unnoise.checkpoint import RunLike, load, path_of
from unnoise.config import EvalConfig, TrainConfig
from unnoise.distillation.config import DistillConfig
from unnoise.errors import InputError
from unnoise.evaluation.evaluate import run_evaluation
from unnoise.progress import Report, Say
from unnoise.recipes import train_config
from unnoise.run_folder import keep_beside
from unnoise.training.monitors.monitor import Monitor
from unnoise.training.train import train
from unnoise.types import RGBA

BUDGET = "20m"
SPACING = "trailing"  # of the levels of a student: the half of its steps are levels of a student of half as many
DATA = ("size", "channels", "fit", "limit", "frames", "max_pixels", "stream", "held_out", "label_column", "flip")
OF_A_STUDENT: dict[str, Any] = {  # benchmarks/trials.md
    "sampler": "ddim",
    "spacing": SPACING,
    "warmup": 500,
    "ema_halflife": 5_000.0,
    "label_dropout": 0.0,
    "references": 0,
    "allow_copies": True,  # what the teacher draws is what is learned, however often an image is seen
}


def distill(run: RunLike, *, monitors: Sequence[Monitor] = (), **settings: Any) -> Run:
    """Train a student that draws in few steps what a run draws in many, and return it; it is a run like any other.

    Args:
        run: The run folder or model file of the teacher.
        monitors: Your own, as in `unnoise.train`.
        settings: The fields of `DistillConfig` but n, for example `steps=1` or `budget="20m"`.

    Returns:
        The student, opened from its folder.

    Raises:
        InputError: A setting cannot be used, or the run cannot teach.
    """
    if "n" in settings:
        raise InputError("n is of the command, which scores at the end; here, score by unnoise.evaluate(student)")
    return load(distill_run(DistillConfig(run=path_of(run), **settings), monitors))


def distill_run(config: DistillConfig, monitors: Sequence[Monitor] = ()) -> Path:
    """Train a student, or resume the same command where it was stopped; return its folder."""
    return train(student_config(config, load(config.run, "cpu")), monitors)


def score_both(config: DistillConfig, folder: Path, report: Report, say: Say) -> None:
    """Score the teacher as it draws, the teacher in the steps of the student, and the student; keep all results.

    The results of the teacher are also kept in the folder of the student, for its report.
    """
    few = {"sampler": OF_A_STUDENT["sampler"], "spacing": SPACING, "steps": config.steps}
    ways = [(config.run, few), (config.run, {}), (str(folder), {})]
    results = []
    for run, how in ways if load(config.run, "cpu").card.taught is None else ways[1:]:  # a student draws in one way
        say(f"scores    of {config.n} images of {run}" + (f", {config.steps} steps" if how else ""))
        results.append(run_evaluation(EvalConfig(set=run, n=config.n, data=config.data, **how), report, say))
    if distributed.is_main():
        keep_beside(folder, results[:-1])


def student_config(config: DistillConfig, teacher: Run) -> TrainConfig:
    """Return the settings of the training of a student."""
    then, card = teacher.card.training.get("config", {}), teacher.card
    data = then.get("data") if config.data is None else config.data
    if data is None:
        raise InputError(f"{teacher.name} does not say what it was trained on; name images with --data")
    length = {"budget": config.budget or (None if config.images else BUDGET), "images": config.images}
    return train_config(
        None,
        {
            **(as_before(then) if config.data is None else sizes(card)),
            **OF_A_STUDENT,
            **length,
            "data": data,
            "classes": bool(card.classes),
            "init": config.run,
            "distill": config.method,
            "objective": "distance" if card.shape[0] <= RGBA else "capped_v:gamma=1",
            "steps": config.steps,
            "clip": card.sampling.clip,
            "lr": config.lr,
            "seed": config.seed,
            "out": config.out,
            "fresh": config.fresh,
        },
    )


def as_before(then: dict[str, Any]) -> dict[str, Any]:
    """Return how the images of an earlier training were read."""
    return {name: then[name] for name in DATA if name in then}


def sizes(card: Card) -> dict[str, Any]:
    """Return how images are made as large as the images of a run."""
    channels, height, width = card.shape
    return {"size": f"{width}x{height}", "channels": channels}
