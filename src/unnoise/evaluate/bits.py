"""Bits per dimension of images under a run: by the variational bound, and by the probability-flow ODE."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise.checkpoint import Run
from unnoise.config import EvalConfig
from unnoise.data.cache import Dataset, open_data
from unnoise.data.transforms import to_float
from unnoise.diffusion.likelihood import bound, ode_bits_per_dim
from unnoise.diffusion.model import clip_x0
from unnoise.errors import InputError
from unnoise.samplers.run import seeded_noise
from unnoise.types import Images, Labels

PROBES = 2  # of the trace, for each image

Report = Callable[[int, int], object]  # called with the images just done, and how many there are in all


def bits_per_dim(config: EvalConfig, run: Run, report: Report = lambda *_: None) -> dict[str, Any]:
    """Both estimates over the same images, each with its standard error over the images, as plain values."""
    dataset = data_of(config, run)
    levels = run.model.schedule.grid(config.steps)
    variance = config.variance or ("learned" if run.card.learned_variance else "small")
    if variance == "learned" and not run.card.learned_variance:
        raise InputError("--variance learned: this run learned none; choose small or large")
    chosen = np.sort(np.random.default_rng(config.seed).permutation(len(dataset))[: config.n])
    prior, terms, exact, probing = [], [], [], []
    for images, labels, seeds in batches(run, dataset, chosen, config.batch):
        known = run.model.given(labels)
        seen = clip_x0(known) if run.card.sampling.clip else known
        found = bound(seen, images, levels, variance=variance, randn_like=seeded_noise(seeds))
        prior.append(found.prior)
        terms.append(found.terms)
        if config.ode:
            value, error = ode_bits_per_dim(known, images, levels, probes=PROBES, randn_like=seeded_noise(seeds))
            exact.append(value)
            probing.append(error)
        report(len(images), len(chosen))
    curve = torch.cat(terms)
    result = {
        "bound": mean_of(torch.cat(prior) + curve.sum(dim=1)),
        "terms": {
            "prior": mean_of(torch.cat(prior))["mean"],
            "steps": mean_of(curve[:, :-1].sum(dim=1))["mean"],
            "decoder": mean_of(curve[:, -1])["mean"],
        },
        "curve": {"time": [float(level.time) for level in levels[:-1]], "bits": curve.mean(dim=0).tolist()},
    }
    if config.ode:
        trace = torch.cat(probing).square().sum().sqrt().item() / len(chosen)
        result["ode"] = mean_of(torch.cat(exact)) | {"error_of_the_trace": trace, "probes": PROBES}
    return result | {
        "n": len(chosen),
        "data": {"name": dataset.name, "count": len(dataset), "fingerprint": dataset.fingerprint},
        "trained_on_it": dataset.fingerprint == run.card.data.get("fingerprint"),
        "settings": {"steps": config.steps, "spacing": "trailing", "variance": variance, "seed": config.seed},
    }


def data_of(config: EvalConfig, run: Run) -> Dataset:
    """The images asked for, or those of the training, fitted to the run's size and channels."""
    trained = run.card.training.get("config", {})
    source = config.data or trained.get("data")
    if source is None:
        raise InputError("this model does not say what it was trained on; name images with --data")
    if config.n < 1 or config.batch < 1:
        raise InputError(f"-n and --batch take 1 or more images, got {config.n} and {config.batch}")
    c, h, w = run.card.shape
    limit = None if config.data else trained.get("limit")
    return open_data(source, size=f"{w}x{h}", channels=c, fit=trained.get("fit", "crop"), limit=limit)


def batches(
    run: Run, dataset: Dataset, chosen: np.ndarray, size: int
) -> Iterator[tuple[Images, Labels | None, list[int]]]:
    """Images, their labels where the run knows them, and one seed each."""
    labelled = bool(run.card.classes) and dataset.classes == run.card.classes
    for start in range(0, len(chosen), size):
        indices = chosen[start : start + size]
        labels = dataset.labels(indices) if labelled else None
        yield (
            to_float(torch.from_numpy(dataset.read(indices)).to(run.model.device)),
            None if labels is None else torch.from_numpy(labels),
            indices.tolist(),
        )


def mean_of(values: Tensor) -> dict[str, float]:
    """Mean over the images and its standard error."""
    spread = values.double().std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": values.double().mean().item(), "standard_error": spread}
