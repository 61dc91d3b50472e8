"""What the app does, step by step; nothing here knows of the page."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from unnoise.card import Run
from unnoise.config import EditConfig, EvalConfig, SampleConfig
from unnoise.data.dataset import Dataset
from unnoise.device import synchronize
from unnoise.diffusion.process import q_sample
from unnoise.editing.edit import edit_calls, resolve_edit, start_edit
from unnoise.editing.inputs import Edit, ImageLike, open_image
from unnoise.errors import InputError
from unnoise.evaluation.image_sets import run_data, run_split
from unnoise.evaluation.memorization import nearest
from unnoise.samplers.draw import draw as run_sampler
from unnoise.samplers.draw import initial_noise, labels_in_turn
from unnoise.samplers.precision import choose_precision, seconds_per_image
from unnoise.sampling import network_calls, resolve_settings
from unnoise.types import Images

MOST = 64  # pictures at once
WORK = 20_000  # network calls, of one picture each, that may be asked for at once


class Frame(NamedTuple):
    """The images after so many of all steps: as they are, and as they are believed to become."""

    x: Images
    x0: Images
    done: int
    steps: int


def affordable(n: int, calls: int) -> None:
    """Refuse what would keep the others waiting; `calls` of the network for each picture."""
    if not 1 <= n <= MOST:
        raise InputError(f"1 to {MOST} pictures at once, not {n}")
    if n * calls > WORK:
        raise InputError(f"{n} pictures of {calls} network calls are {n * calls:,}; at most {WORK:,} at once")


def sampled(run: Run, settings: dict[str, Any]) -> Iterator[Frame]:
    """As `unnoise sample` draws them; settings are fields of SampleConfig."""
    config = SampleConfig(str(run.path), **settings)
    how = resolve_settings(config, run)
    affordable(config.n, network_calls(how))
    seeds = range(config.seed, config.seed + config.n)
    labels = labels_in_turn(run.card.classes, seeds)
    if config.label is not None:
        labels = torch.full((config.n,), run.card.classes.index(config.label))
    precision = choose_precision(config.precision, run.model.device)
    for done, step in enumerate(run_sampler(run.model, seeds, how, labels, precision=precision), 1):
        yield Frame(step.x, step.x0, done, how.steps)


class Compared(NamedTuple):
    """What a sampler makes of the same noise so far, and the seconds it took; `done` at the end."""

    sampler: str
    images: Images
    seconds: float
    done: bool


def compared(run: Run, samplers: Sequence[str], settings: dict[str, Any]) -> Iterator[Compared]:
    """One sampler after another, the network warmed up before."""
    if not samplers:
        raise InputError("choose at least one sampler")
    ways = [{**settings, "sampler": name} for name in samplers]
    affordable(
        settings["n"], sum(network_calls(resolve_settings(SampleConfig(str(run.path), **way), run)) for way in ways)
    )
    seconds_per_image(run.model, settings["n"], choose_precision("auto", run.model.device))
    for name, way in zip(samplers, ways, strict=True):
        spent, begun = 0.0, synchronize()
        for frame in sampled(run, way):
            spent += synchronize() - begun
            yield Compared(name, frame.x0, spent, done=False)
            begun = synchronize()
        yield Compared(name, frame.x, spent, done=True)


def edited(
    run: Run, settings: dict[str, Any], pictures: tuple[ImageLike, ...] = (), mask: ImageLike | None = None
) -> tuple[Images, Iterator[Frame]]:
    """What was given as it is seen, and the steps; settings are fields of EditConfig."""
    config = EditConfig(str(run.path), **settings)
    how, _ = resolve_edit(config, run)
    affordable(config.n, edit_calls(config, how))
    made = start_edit(config, run, pictures, mask)
    return made.given, framed(made, how.steps)


def framed(made: Edit, steps: int) -> Iterator[Frame]:
    """Resampling makes more steps than are visited: then the count is of what is done."""
    for done, step in enumerate(made.steps, 1):
        yield Frame(step.x, step.x0, done, max(done, steps))


def noised(run: Run, picture: ImageLike, count: int, seed: int = 0) -> tuple[Images, list[int]]:
    """The forward process, as the notebook shows it: a picture at evenly spaced levels, under one noise."""
    x0 = open_image(picture, run.card.shape, run.card.mode).to(run.model.device)
    _, eps = initial_noise(run.model, [seed])
    times = torch.linspace(0, run.model.schedule.T - 1, count).round().long().tolist()
    return torch.cat([q_sample(x0, eps, run.model.schedule.level(time)) for time in times]), times


def training_images(run: Run) -> Dataset:
    """Those the run saw, where its data is on this machine."""
    everything = run_data(EvalConfig(str(run.path)), run)
    if everything.fingerprint != run.card.data.get("fingerprint"):
        raise InputError(f"{everything.name} is no longer what this run was trained on")
    return run_split(everything, run)[0]


def nearest_seen(run: Run, images: Images) -> Images:
    """Of each image, the training image that is nearest in its pixels."""
    return nearest(images, training_images(run))
