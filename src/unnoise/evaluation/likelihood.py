"""Measure the bits per dimension of images under a run: by the variational bound, and by the probability-flow ODE."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import weights_hash
from unnoise.config import EvalConfig
from unnoise.data.dataset import Dataset
from unnoise.diffusion.level import Level
from unnoise.diffusion.likelihood import Bound, bounds, ode_bits_per_dim
from unnoise.diffusion.model import clip_x0
from unnoise.diffusion.process import Variance
from unnoise.errors import InputError
from unnoise.evaluation.image_sets import run_data, run_split, tell_news
from unnoise.evaluation.scores import symmetric
from unnoise.images import to_float
from unnoise.progress import Report, Say, mute, silent
from unnoise.samplers.draw import seeded_noise
from unnoise.types import Images, Labels

PROBES = 2  # of the trace, for each image
IMAGES = 256  # measured by default
SPACING = "log_snr"  # spends the levels where the bits are: at the clean end
ONE_VALUE = 1 / 127.5  # the step between two of 256 values


def bits_per_dim(config: EvalConfig, run: Run, report: Report = silent, say: Say = mute) -> dict[str, Any]:
    """Return both estimates over the same images, each with its standard error over the images, as plain values."""
    if run.card.taught:
        raise InputError(
            f"bits per dimension need all noise levels, and {run.name} was taught {run.card.taught[0]} steps"
        )
    dataset, name, trained_on = measured_data(config, run, say)
    spacing = config.spacing or SPACING
    levels, variances = run.model.schedule.grid(config.levels, spacing), variances_of(config, run)
    noisy_enough = without_weak_noise(levels)
    visited = levels if config.spacing else noisy_enough
    count = IMAGES if config.n is None else config.n
    chosen = np.sort(np.random.default_rng(config.seed).permutation(len(dataset))[:count])
    by_bound, exact, probing = list[dict[Variance, Bound]](), list[Tensor](), list[Tensor]()
    for images, labels, seeds in batches(run, dataset, chosen, config.batch, say):
        known = run.model.given(labels)
        clipped = clip_x0(known) if run.card.sampling.clip else known
        by_bound.append(bounds(clipped, images, visited, variances, randn_like=seeded_noise(seeds)))
        if config.ode:
            value, error = ode_bits_per_dim(known, images, noisy_enough, probes=PROBES, randn_like=seeded_noise(seeds))
            exact.append(value)
            probing.append(error)
        report("measuring", sum(len(found[variances[0]].prior) for found in by_bound), len(chosen))
    variance, result = best_bound(by_bound, [float(level.time) for level in visited[:-1]])
    if config.ode:
        trace = torch.cat(probing).square().sum().sqrt().item() / len(chosen)
        result["ode"] = mean_of(torch.cat(exact)) | {"error_of_the_trace": trace, "probes": PROBES}
    return result | {
        "n": len(chosen),
        "data": {"name": name, "count": len(dataset), "fingerprint": dataset.fingerprint},
        "trained_on_it": trained_on,
        "weights": weights_hash(run),
        "settings": {
            "levels": config.levels,
            "spacing": registry.spacing.text(spacing),
            "variance": variance,
            "seed": config.seed,
        },
    }


def variances_of(config: EvalConfig, run: Run) -> tuple[Variance, ...]:
    """Return the variances whose bounds are measured: the requested one, or all that the run has."""
    if config.variance == "learned" and not run.card.learned_variance:
        raise InputError("--variance learned: this run did not learn a variance; choose small or large")
    if config.variance:
        return (config.variance,)
    return ("small", "large", "learned") if run.card.learned_variance else ("small", "large")


def without_weak_noise(levels: Sequence[Level]) -> Sequence[Level]:
    """Return the levels whose noise is not weaker than the step between two values of a pixel, and the clean level.

    Weaker noise does not make the values continuous. A network that has not learned the grid of 256 values then gives
    each of them the density of a smooth image, which is up to a bit too many.
    """
    kept = [level for level in levels[:-1] if level.ratio >= ONE_VALUE]
    return [*kept, levels[-1]] if kept else levels


def best_bound(found: Sequence[dict[Variance, Bound]], times: list[float]) -> tuple[Variance, dict[str, Any]]:
    """Return the variance with the lowest bound, that bound, and the bounds of all variances."""
    results = {
        variance: summarize_bound(
            torch.cat([each[variance].prior for each in found]),
            torch.cat([each[variance].terms for each in found]),
            times,
        )
        for variance in found[0]
    }
    ordered = sorted(results, key=lambda variance: results[variance]["bound"]["mean"])
    return ordered[0], results[ordered[0]] | {"bounds": {name: results[name]["bound"] for name in ordered}}


def measured_data(config: EvalConfig, run: Run, say: Say) -> tuple[Dataset, str, bool]:
    """Return the images to measure, their name, and True if the run was trained on them; held-out ones come first."""
    dataset = run_data(config, run, say)
    trained_on = dataset.fingerprint == run.card.data.get("fingerprint")
    if trained_on and run.card.data.get("held_out"):
        return run_split(dataset, run)[1], f"{dataset.name}, the images held out", False
    return dataset, dataset.name, trained_on


def summarize_bound(prior: Tensor, terms: Tensor, times: list[float]) -> dict[str, Any]:
    """Return the bound, its three parts and its curve over the levels from prior [n] and terms [n, levels]."""
    return {
        "bound": mean_of(prior + terms.sum(dim=1)),
        "terms": {
            "prior": mean_of(prior)["mean"],
            "steps": mean_of(terms[:, :-1].sum(dim=1))["mean"],
            "decoder": mean_of(terms[:, -1])["mean"],
        },
        "curve": {"time": times, "bits": terms.mean(dim=0).tolist()},
    }


def batches(
    run: Run, dataset: Dataset, chosen: np.ndarray, size: int, say: Say = mute
) -> Iterator[tuple[Images, Labels | None, list[int]]]:
    """Yield images, their labels if the run has the same classes, and one seed for each image."""
    labelled = bool(run.card.classes) and dataset.classes == run.card.classes
    for start in range(0, len(chosen), size):
        indices = chosen[start : start + size]
        images = dataset.read(indices)
        labels = dataset.labels(indices) if labelled else None
        yield (
            to_float(torch.from_numpy(images).to(run.model.device)),
            None if labels is None else torch.from_numpy(labels),
            indices.tolist(),
        )
    tell_news(dataset, say)


def mean_of(values: Tensor) -> dict[str, Any]:
    """Return the mean over the images, its standard error, and its interval of 95 %."""
    variance = values.double().var().item() / len(values) if len(values) > 1 else math.nan
    score = symmetric(values.double().mean().item(), variance, len(values))
    return {"mean": score.value, "standard_error": score.standard_error, "interval": list(score.interval)}


def format_bits(result: dict[str, Any]) -> list[str]:
    """Return the lines that `unnoise eval` prints."""
    how, data = result["settings"], result["data"]
    settings = f"variance {how['variance']}, {how['levels']} levels, {how['spacing']}"
    rows = {"bound": f"{format_mean(result['bound'])}  {settings}"}
    if others := [f"{name} {found['mean']:.4f}" for name, found in list(result["bounds"].items())[1:]]:
        rows["others"] = f"the bounds with other variances, which are higher: {', '.join(others)}"
    rows["terms"] = ", ".join(f"{name} {value:.4f}" for name, value in result["terms"].items())
    if "ode" in result:
        trace, probes = result["ode"]["error_of_the_trace"], result["ode"]["probes"]
        rows["ode"] = f"{format_mean(result['ode'])}  including {trace:.4f} by the {probes} probes of the trace"
    rows["data"] = f"{data['name']}: {result['n']} of {data['count']:,} images, sha256 {data['fingerprint'][:16]}"
    rows["data"] += ", training images, not held out" if result["trained_on_it"] else ", not trained on"
    return ["bits per dimension, mean and its 95 % interval", *(f"  {name:8}{value}" for name, value in rows.items())]


def format_mean(value: dict[str, Any]) -> str:
    """Return a mean and its interval as text."""
    low, high = value["interval"]
    return f"{value['mean']:.4f}, {low:.4f} to {high:.4f}"
