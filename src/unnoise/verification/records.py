"""Check what needs no network: the card against the data, and the files of a run against each other."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from PIL import Image

from unnoise.card import Run
from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.data.open_image import open_image
from unnoise.data.sources.source import UnreadableImage
from unnoise.errors import InputError
from unnoise.evaluation.image_sets import is_here
from unnoise.options import plain, with_names_of_today
from unnoise.progress import Progress
from unnoise.run_folder import CONFIG, LOSS, METRICS, STATE, metrics_rows, own_file
from unnoise.training.clock import Clock
from unnoise.training.log import Log
from unnoise.training.state import read_facts
from unnoise.training.train import make_card, open_parts
from unnoise.training.trainer import learning_rate
from unnoise.verification.check import (
    AGREES,
    DIFFERS,
    UNKNOWN,
    Check,
    check_number,
    compare_values,
    unknown_checks,
    verdict,
)

ONCE = "it was measured once, on the machine and at the pace of the training"
TRAINED_AWAY = "it is of weights that the training has replaced since, and only another training gives them again"
BY_TRAINING = "only another training gives it again"
ROUNDED_TO = 0.005  # seconds: half of the last digit in metrics.jsonl
PLANNED = "planned_images_per_second"  # a key of the row that a training writes when it begins
CARD, COPIES = "card", "the card and metrics.jsonl"


def training_config(run: Run) -> TrainConfig:
    """Return the settings that the card states; raise InputError if it states none, or settings of another version."""
    stated = with_names_of_today(run.card.training.get("config", {}))
    if not stated:
        raise InputError("the card does not say how the run was trained")
    if unknown := stated.keys() - {f.name for f in fields(TrainConfig)}:
        raise InputError(f"the card has settings of another version: {', '.join(sorted(unknown))}")
    return TrainConfig(**{"allow_copies": True, **stated})  # version 0.1.0 looked for no copies


def training_data(config: TrainConfig, progress: Progress) -> tuple[Dataset, Dataset]:
    """Open the training and the held-out images as the training did; raise InputError if the data is not here."""
    if not (isinstance(config.data, str) and is_here(config.data)):
        raise InputError(
            f"the training data {config.data!r:.200} is not on this machine, or was named from another folder"
        )
    return open_parts(config, progress)


def data_checks(run: Run, config: TrainConfig, dataset: Dataset, held: Dataset) -> Iterator[Check]:
    """Yield checks of all that the card says of the data and the model: it is made anew, as the training makes it."""
    stated, made = plain(run.card), plain(make_card(config, dataset, held))
    for one in (stated, made):
        one.pop("training")
    sampling, of_training = stated.pop("sampling"), made.pop("sampling")
    yield from compare_values(CARD, stated, made)
    yield from sampling_checks(sampling, of_training)


def sampling_checks(stated: dict[str, Any], of_training: dict[str, Any]) -> Iterator[Check]:
    """Yield checks of the sampling settings, which `unnoise tune` may have changed since the training."""
    for check in compare_values(f"{CARD} sampling", stated, of_training):
        why = f"the training set {check.recomputed}, and unnoise tune may have changed it since"
        yield check if check.verdict == AGREES else Check(check.part, check.what, UNKNOWN, check.stated, why=why)


def card_without_data(run: Run, why: object) -> Iterator[Check]:
    """Yield checks of the card where the data cannot be opened."""
    stated = plain(run.card)
    stated.pop("training")
    yield from unknown_checks(CARD, stated, why)


def config_checks(run: Run) -> Iterator[Check]:
    """Yield checks of config.yaml against the settings in the card."""
    path = own_file(run.folder, CONFIG)
    if path is None:
        yield Check(CONFIG, "", UNKNOWN, why="it is not there")
        return
    try:
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield Check(CONFIG, "", DIFFERS, why=f"it cannot be read ({type(error).__name__})")
        return
    yield from compare_values(CONFIG, stated, run.card.training.get("config", {}))


# The log of the training


def is_step(row: dict[str, Any]) -> bool:
    """Return True for a row about training steps."""
    return "loss" in row and "seconds" in row


def log_checks(run: Run, config: TrainConfig | None, trained: int | None) -> Iterator[Check]:
    """Yield checks of metrics.jsonl except for its measurements; `trained` is the number of training images."""
    rows, facts = metrics_rows(run.folder), state_facts(run.folder)
    steps = [row for row in rows if is_step(row)]
    yield from curve_checks(run, rows)
    yield from step_checks(steps, config, facts, trained)
    for row in (row for row in rows if "epoch" in row):
        name = f"{METRICS} epochs"
        if trained:
            yield check_number(name, f"epoch {row['epoch']}.images", row["images"], *2 * (row["epoch"] * trained,))
        yield Check(name, f"epoch {row['epoch']}.loss", UNKNOWN, row["loss"], why=BY_TRAINING)
    for row in (row for row in rows if "copies" in row):
        yield from unknown_checks(f"{METRICS} copies", {f"{row['images']} images": row}, BY_TRAINING)
    for row in (row for row in rows if PLANNED in row and "training_seconds" not in row):
        yield from unknown_checks(f"{METRICS} plan", {f"{row['images']} images": row}, ONCE)
    for row in (row for row in rows if "training_seconds" in row):
        yield from summary_checks(row, run, facts, last=row is rows[-1])


def curve_checks(run: Run, rows: list[dict[str, Any]]) -> Iterator[Check]:
    """Yield checks of the images, seconds and losses that the card has, which metrics.jsonl has too."""
    log, training, facts = Log(None), run.card.training, state_facts(run.folder)
    log.rows = rows
    yield from compare_values(COPIES, {"loss": training.get("loss", [])}, {"loss": log.curve()})
    last = next((row for row in rows[::-1] if is_step(row)), {})
    if "images" in last:
        yield Check(CARD, "training.images", verdict(training["images"], last["images"]), training["images"])
    if clock := facts.get("parts", {}).get("clock"):
        copies = {"images": training.get("images"), "seconds": training.get("seconds")}
        yield from compare_values(f"{CARD} and {STATE}", copies, {"images": clock["seen"], "seconds": clock["elapsed"]})


def step_checks(
    steps: list[dict[str, Any]], config: TrainConfig | None, facts: dict[str, Any], trained: int | None
) -> Iterator[Check]:
    """Yield checks of the rows about training steps: the pace, the learning rate, and what only a training gives."""
    before, name = {"images": 0, "seconds": 0.0}, f"{METRICS} steps"
    clock = Clock.from_config(config, trained) if config and trained else None
    caution = facts.get("parts", {}).get("trainer", {}).get("caution", 1.0)
    for row in steps:
        place, images, seconds = f"{row['images']} images", row["images"], row["seconds"]
        spent, seen = seconds - before["seconds"], images - before["images"]
        pace = seen / (spent + 2 * ROUNDED_TO), seen / max(spent - 2 * ROUNDED_TO, 1e-9)
        yield check_number(name, f"{place}.images_per_second", row["images_per_second"], *pace)
        if clock and config and "lr" in row:
            rates = [rate(config, clock, images, time) for time in (seconds + ROUNDED_TO, before["seconds"])]
            factors = [2.0**-k for k in range(10) if 2.0**-k >= caution]
            tried = [check_number(name, f"{place}.lr", row["lr"], *(f * r for r in rates)) for f in factors]
            yield next((check for check in tried if check.verdict == AGREES), tried[0])
        for key in ("loss", "data_wait", "grad_norm"):
            if key in row:
                why = ONCE if key == "data_wait" else BY_TRAINING
                yield Check(name, f"{place}.{key}", UNKNOWN, row[key], why=why)
        before = row


def rate(config: TrainConfig, clock: Clock, images: int, seconds: float) -> float:
    """Return the learning rate after this number of images and seconds."""
    return learning_rate(config, images, clock.share_done(images, seconds))


def summary_checks(row: dict[str, Any], run: Run, facts: dict[str, Any], *, last: bool) -> Iterator[Check]:
    """Yield checks of the row that a training writes when it ends."""
    name, pace = f"{METRICS} summary", row["images"] / max(row["training_seconds"], 1e-9)
    yield check_number(name, "mean_images_per_second", row["mean_images_per_second"], pace, pace)
    known: dict[str, Any] = known_from_state(facts) if last else {}
    if last:
        training = run.card.training
        known |= {"images": training.get("images"), "training_seconds": training.get("seconds")}
    for key, value in row.items():
        if key == "mean_images_per_second":
            continue
        if key in known:
            yield Check(name, key, verdict(value, known[key]), value, known[key])
        else:
            yield Check(name, key, UNKNOWN, value, why=ONCE)


def known_from_state(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of the last row that follow from the state."""
    try:
        monitors = facts["monitors"]
        spent = {name: monitor.get("budget", monitor)["spent"] for name, monitor in monitors.items()}
        known = {"skipped_steps": facts["parts"]["trainer"]["skipped"], "preview_seconds": spent.pop("previews")}
        own = {*spent} - {
            "validation",
            "kid",
            "copies",
        }  # a monitor of the user's own may count seconds that it does not save
        return known if own else {**known, "measuring_seconds": sum(spent.values())}
    except (KeyError, TypeError, AttributeError):
        return {}


def state_facts(folder: Path) -> dict[str, Any]:
    """Return what the state says beside its tensors; nothing if it is gone or damaged."""
    try:
        return read_facts(folder)
    except InputError:
        return {}


# Images


def read_pixels(path: Path) -> np.ndarray:
    """Return the pixels of an image file; raise InputError if it is damaged."""
    try:
        with open_image(path, load=True) as (image, _):
            return np.asarray(image)
    except UnreadableImage as error:
        raise InputError(f"{path.name} is damaged: {error}") from None


def compare_images(part: str, stated: np.ndarray, drawn: np.ndarray, *, exact: bool) -> Check:
    """Return the check of an image: all pixels are equal, or the largest difference is named."""
    if stated.shape != drawn.shape:
        return Check(part, "pixels", DIFFERS, f"{stated.shape}", f"{drawn.shape}", "the sizes differ")
    apart = np.abs(stated.astype(np.int64) - drawn.astype(np.int64))
    if not apart.any():
        return Check(part, "pixels", AGREES, "every pixel", "the same")
    share = f"{(apart > 0).mean():.2%} of the values differ, by {apart.max()} at most and {apart.mean():.3g} on average"
    rounded = not exact and apart.mean() <= ROOM_OF_PIXELS * np.iinfo(stated.dtype).max
    return Check(part, "pixels", "agrees within rounding" if rounded else DIFFERS, why=share)


ROOM_OF_PIXELS = 0.02  # of the range, on average: rounding of another machine changes drawn images by less


def loss_plot_check(run: Run) -> Iterator[Check]:
    """Yield the check of loss.png: it is plotted again."""
    path = own_file(run.folder, LOSS)
    if path is None:
        return
    with Image.open(path) as image:
        made_by = str(image.info.get("Software", "")).partition(",")[0]
    log = Log(None)
    log.rows = metrics_rows(run.folder)
    with TemporaryDirectory() as folder:
        log.plot(again := Path(folder, LOSS))
        with Image.open(again) as image:
            now = str(image.info.get("Software", "")).partition(",")[0]
        if now != made_by:
            yield Check(LOSS, "pixels", UNKNOWN, why=f"it was plotted by {made_by or 'another program'}, here is {now}")
        else:
            yield compare_images(LOSS, read_pixels(path), read_pixels(again), exact=True)
