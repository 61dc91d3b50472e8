"""Check what a training measured and drew: the same weights, images, seeds and levels give it again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import load
from unnoise.config import Sampling, TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.device import made_with
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError
from unnoise.evaluation.image_sets import extraction_seconds
from unnoise.images import grid
from unnoise.progress import Report, Say
from unnoise.run_folder import BEST, FINAL, METRICS, SAMPLES, metrics_rows, own_file, own_files
from unnoise.samplers.precision import seconds_per_image
from unnoise.sampling import network_calls
from unnoise.training.checks import sampling_settings
from unnoise.training.clock import Clock
from unnoise.training.monitors.drawing import draw_images
from unnoise.training.monitors.kid import MOST_COMPARED, KidMonitor
from unnoise.training.monitors.validation import ValidationMonitor, fixed_subset
from unnoise.training.precision import Precision, choose_precision, place_network
from unnoise.training.signals import Stop
from unnoise.verification.check import (
    DIFFERS,
    UNKNOWN,
    Check,
    compare_values,
    is_number,
    unknown_checks,
    verdict,
)
from unnoise.verification.records import TRAINED_AWAY, compare_images, read_pixels, state_facts

GRIDS = (64, 36, 16, 9, 4, 1)  # images in the last grid
GRID = f"{SAMPLES}/{FINAL}"
HELD_OUT, KID = f"{METRICS} held-out loss", f"{METRICS} KID"
INPUTS = ("count", "pictures")  # how many images were measured
BY_THE_CLOCK = ("images", "seconds")  # values of a row that say when it was measured


class Trained(NamedTuple):
    """Hold what the measurements of a training need: its settings, its images, and how it computed."""

    config: TrainConfig
    dataset: Dataset
    held: Dataset
    precision: str
    exact: bool  # the same machine and version of torch


def how_computed(run: Run, config: TrainConfig) -> tuple[str, bool]:
    """Return the precision of a training, and True if this machine computes as it did."""
    made, facts = run.card.training.get("made_with", {}), state_facts(run.folder)
    device = run.model.device
    precision = facts.get("precision") or choose_precision(config.precision, device)
    if precision not in ("fp32", "bf16", "fp16"):
        raise InputError(f"the state names the precision {precision!r:.40}, which no training has")
    return precision, device.type == "cpu" and made == made_with(device)


@contextmanager
def averaged(run: Run, precision: str) -> Iterator[Diffusion]:
    """Lend a model as the training lends it to its monitors: in the same memory layout and precision."""
    place_network(run.model.backbone, run.model.device, precision)
    with Precision(precision, run.model.device).autocast():
        yield run.model


# The held-out loss


def held_out_checks(run: Run, trained: Trained, say: Say) -> Iterator[Check]:
    """Yield checks of the held-out losses: the last one is measured again, at fixed noise and levels."""
    rows = [row for row in metrics_rows(run.folder) if "held_out" in row]
    for row in rows[:-1]:
        yield from unknown_checks(HELD_OUT, {f"{row['images']} images": measured(row)}, TRAINED_AWAY)
    if not rows:
        return
    last, monitors = rows[-1], state_facts(run.folder).get("monitors", {})
    place = f"{last['images']} images"
    count = last.get("count") or monitors.get("validation", {}).get("count")
    if last["images"] != run.card.training.get("images"):
        yield from unknown_checks(HELD_OUT, {place: measured(last)}, TRAINED_AWAY)
    elif not (isinstance(count, int) and count > 1):
        why = "how many images it was measured on was only in the state, which is gone"
        yield from unknown_checks(HELD_OUT, {place: measured(last)}, why)
    else:
        say(f"held-out loss of {count} images: about {losses_seconds(run, count):.0f} s")
        config = trained.config
        objective = registry.objective.get(config.objective)
        subsets = fixed_subset(trained.dataset), fixed_subset(trained.held)
        monitor = ValidationMonitor(objective, *subsets, images_at_once(run, config), labelled=config.classes)
        monitor.count = min(count, monitor.available)
        with averaged(load(run.file), trained.precision) as model:
            monitor.measure(model)
        yield from compare_values(
            HELD_OUT, {place: measured(last)}, {place: measured(monitor.rows[-1])}, exact=trained.exact
        )


def images_at_once(run: Run, config: TrainConfig) -> int:
    """Return how many images the training measured at a time: a batch, or what memory held by its state."""
    at_once = state_facts(run.folder).get("parts", {}).get("trainer", {}).get("at_once")
    return min(config.batch, at_once) if isinstance(at_once, int) and at_once > 0 else config.batch


def losses_seconds(run: Run, count: int) -> float:
    """Estimate the seconds that both losses take: four levels of each image."""
    return 8 * count * seconds_per_image(run.model)


def measured(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the time when it was measured, and without its inputs."""
    return {key: value for key, value in row.items() if key not in (*BY_THE_CLOCK, *INPUTS)}


# The KID during the training


def kid_checks(run: Run, trained: Trained, report: Report, say: Say) -> Iterator[Check]:
    """Yield checks of the KIDs of the training: the last weights and the best ones are measured again."""
    rows = [row for row in metrics_rows(run.folder) if "kid" in row]
    yield from best_checks(run, rows)
    known = dict(weights_by_images(run))
    for row in rows:
        place = f"{row['images']} images"
        if row["images"] not in known:
            yield from unknown_checks(KID, {place: measured(row)}, TRAINED_AWAY)
            continue
        found = kid_again(load(known[row["images"]]), trained, row, report, say)
        yield from compare_values(KID, {place: measured(row)}, {place: found}, exact=trained.exact)


def weights_by_images(run: Run) -> Iterator[tuple[int, Path]]:
    """Yield the images seen of each model file in a run, and the file."""
    if best := own_file(run.folder, BEST):
        yield load(best, "cpu").card.training.get("images", 0), best
    yield run.card.training.get("images", 0), run.file


def best_checks(run: Run, rows: list[dict[str, Any]]) -> Iterator[Check]:
    """Yield the check that best.safetensors holds the weights of the lowest KID."""
    best = own_file(run.folder, BEST)
    known = [row for row in rows if is_number(row["kid"])]
    if best and known:
        seen = load(best, "cpu").card.training.get("images")
        lowest = min(known, key=lambda row: row["kid"])["images"]
        yield Check(BEST, "images seen of the lowest KID", verdict(seen, lowest), seen, lowest)
    elif best or known:
        missing = "there is no KID in metrics.jsonl" if best else "the weights of the lowest KID are not there"
        yield Check(BEST, "images seen of the lowest KID", DIFFERS, why=missing)


def kid_again(run: Run, trained: Trained, row: dict[str, Any], report: Report, say: Say) -> dict[str, Any]:
    """Return the KID of the images that these weights draw from the seeds of the training."""
    monitor = KidMonitor(trained.dataset, sampling_settings(trained.config), trained.held)
    count = row["pictures"]
    if not (isinstance(count, int) and 1 < count < 10**6):
        raise InputError(f"{METRICS} says that KID was measured with {count!r:.40} images")
    look = extraction_seconds(monitor.extractor())
    seconds = count * (network_calls(monitor.settings) * seconds_per_image(run.model) + look)
    say(f"KID of {count} images: about {seconds + min(MOST_COMPARED, len(monitor.compared)) * look:.0f} s")
    counts = monitor.class_counts() if run.model.classes else None
    monitor.count, clock = count, Clock(None, 1)
    with averaged(run, trained.precision) as model:
        images = draw_images(model, count, monitor.settings, Stop(), class_counts=counts)
        assert images is not None  # nothing stops it
        monitor.add_row(images, clock)
    report("drawing", count, count)
    return measured(monitor.rows[-1])


# The grid of the end


def grid_checks(run: Run, trained: Trained, say: Say) -> Iterator[Check]:
    """Yield the check of the grid of the end, which is drawn again; the weights of the previews are gone."""
    for path in own_files(run.folder, SAMPLES, "[0-9]*.png"):
        yield Check(f"{SAMPLES}/", path.name, UNKNOWN, why=TRAINED_AWAY)
    if (last := own_file(run.folder, SAMPLES, FINAL)) is None:
        return
    stated, count = read_pixels(last), None
    for n in GRIDS:
        if np.asarray(grid(torch.zeros(n, *run.card.shape), run.card.mode)).shape == stated.shape:
            count = n
    if count is None:
        yield Check(GRID, "size", DIFFERS, f"{stated.shape}", why="no grid of images of this run has this size")
        return
    calls = network_calls(run.card.sampling)
    say(f"{GRID}, {count} images: about {count * calls * seconds_per_image(run.model):.0f} s")
    of_training = sampling_settings(trained.config)
    checks = [draw_grid(run, trained, settings, count, stated) for settings in {of_training, run.card.sampling}]
    yield next((check for check in checks if check.verdict != DIFFERS), checks[0])


def draw_grid(run: Run, trained: Trained, settings: Sampling, count: int, stated: np.ndarray) -> Check:
    """Return the check of the grid, drawn with these settings."""
    with averaged(load(run.file), trained.precision) as model:
        images = draw_images(model, count, settings, Stop())
    assert images is not None  # nothing stops it
    return compare_images(GRID, stated, np.asarray(grid(images, run.card.mode)), exact=trained.exact)
