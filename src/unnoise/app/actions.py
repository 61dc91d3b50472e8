"""Do what the page offers, step by step; nothing here knows of the page."""

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
from unnoise.samplers.draw import draw, initial_noise, labels_in_turn
from unnoise.samplers.precision import choose_precision, seconds_per_image
from unnoise.sampling import network_calls, resolve_settings
from unnoise.types import Images

MAX_IMAGES = 64  # in one request
MAX_NETWORK_CALLS = 20_000  # in one request; a call is counted once for each image


class Frame(NamedTuple):
    """The images after some of the steps: noisy as they are, and as the network predicts them."""

    x: Images
    x0: Images
    done: int
    steps: int


def check_cost(n: int, calls: int) -> None:
    """Raise InputError for a request that keeps other users waiting; `calls` is the network calls of one image."""
    if not 1 <= n <= MAX_IMAGES:
        raise InputError(f"a request takes 1 to {MAX_IMAGES} images, got {n}")
    if n * calls > MAX_NETWORK_CALLS:
        raise InputError(
            f"{n} images of {calls} network calls are {n * calls:,}; a request takes {MAX_NETWORK_CALLS:,} at most"
        )


def sample_frames(run: Run, settings: dict[str, Any]) -> Iterator[Frame]:
    """Yield a frame after each step, and draw the same images as `unnoise sample`.

    Args:
        run: The trained run.
        settings: Fields of SampleConfig.
    """
    config = SampleConfig(run.name, **settings)
    how = resolve_settings(config, run)
    check_cost(config.n, network_calls(how))
    seeds = range(config.seed, config.seed + config.n)
    labels = labels_in_turn(run.card.classes, seeds)
    if config.label is not None:
        labels = torch.full((config.n,), run.card.classes.index(config.label))
    precision = choose_precision(config.precision, run.model.device)
    for done, step in enumerate(draw(run.model, seeds, how, labels, precision=precision), 1):
        yield Frame(step.x, step.x0, done, how.steps)


class SamplerFrame(NamedTuple):
    """The images that a sampler has made so far, and its seconds of work; `done` is true after its last step."""

    sampler: str
    images: Images
    seconds: float
    done: bool


def compare_samplers(run: Run, samplers: Sequence[str], settings: dict[str, Any]) -> Iterator[SamplerFrame]:
    """Run one sampler after another from the same noise, and yield a frame after each step.

    The network is called once before the first clock starts, since its first call is slower.
    """
    if not samplers:
        raise InputError("choose at least one sampler")
    n, requests = settings["n"], [{**settings, "sampler": name} for name in samplers]
    check_cost(n, sum(network_calls(resolve_settings(SampleConfig(run.name, **each), run)) for each in requests))
    seconds_per_image(run.model, n, choose_precision("auto", run.model.device))
    for name, request in zip(samplers, requests, strict=True):
        spent, begun = 0.0, synchronize()
        for frame in sample_frames(run, request):
            spent += synchronize() - begun
            yield SamplerFrame(name, frame.x0, spent, done=False)
            begun = synchronize()
        yield SamplerFrame(name, frame.x, spent, done=True)


def edit_frames(
    run: Run, settings: dict[str, Any], images: tuple[ImageLike, ...] = (), mask: ImageLike | None = None
) -> tuple[Images, Iterator[Frame]]:
    """Return the given images as the model sees them, and an iterator with a frame after each step.

    Args:
        run: The trained run.
        settings: Fields of EditConfig.
        images: The images to edit.
        mask: The area to fill in is white.
    """
    config = EditConfig(run.name, **settings)
    how, _ = resolve_edit(config, run)
    check_cost(config.n, edit_calls(config, how))
    edit = start_edit(config, run, images, mask)
    return edit.given, count_steps(edit, how.steps)


def count_steps(edit: Edit, steps: int) -> Iterator[Frame]:
    """Yield the steps of an edit as frames; an edit that resamples makes more steps than were planned."""
    for done, step in enumerate(edit.steps, 1):
        yield Frame(step.x, step.x0, done, max(done, steps))


def add_noise(run: Run, image: ImageLike, count: int, seed: int = 0) -> tuple[Images, list[int]]:
    """Return an image at evenly spaced noise levels under the same noise, and the times of the levels."""
    x0 = open_image(image, run.card.shape, run.card.mode, spans=run.card.spans).to(run.model.device)
    _, eps = initial_noise(run.model, [seed])
    times = torch.linspace(0, run.model.schedule.T - 1, count).round().long().tolist()
    return torch.cat([q_sample(x0, eps, run.model.schedule.level(time)) for time in times]), times


def training_images(run: Run) -> Dataset:
    """Return the images that the run was trained on; raise InputError if they are not on this machine."""
    everything = run_data(EvalConfig(run.name), run)
    if everything.fingerprint != run.card.data.get("fingerprint"):
        raise InputError(f"{everything.name} is no longer what this run was trained on")
    return run_split(everything, run)[0]


def nearest_training_images(run: Run, images: Images) -> Images:
    """Return, for each image, the training image that is nearest in its pixels."""
    return nearest(images, training_images(run))
