"""Bits per dimension of images under a run: by the variational bound, and by the probability-flow ODE."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise.card import Run
from unnoise.config import EvalConfig
from unnoise.data.dataset import Dataset
from unnoise.diffusion.likelihood import bound, ode_bits_per_dim
from unnoise.diffusion.model import clip_x0
from unnoise.errors import InputError
from unnoise.evaluation.image_sets import run_data, run_split
from unnoise.images import to_float
from unnoise.progress import Report, silent
from unnoise.samplers.draw import seeded_noise
from unnoise.types import Images, Labels

PROBES = 2  # of the trace, for each image
N = 256  # images, if nothing else is asked for


def bits_per_dim(config: EvalConfig, run: Run, report: Report = silent) -> dict[str, Any]:
    """Both estimates over the same images, each with its standard error over the images, as plain values."""
    dataset = run_data(config, run)
    name, trained_on = dataset.name, dataset.fingerprint == run.card.data.get("fingerprint")
    if trained_on and run.card.data.get("held_out"):
        dataset, name, trained_on = run_split(dataset, run)[1], f"{name}, the images held out", False
    levels = run.model.schedule.grid(config.levels)
    variance = config.variance or ("learned" if run.card.learned_variance else "small")
    if variance == "learned" and not run.card.learned_variance:
        raise InputError("--variance learned: this run learned none; choose small or large")
    chosen = np.sort(
        np.random.default_rng(config.seed).permutation(len(dataset))[: N if config.n is None else config.n]
    )
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
        report("measuring", sum(map(len, prior)), len(chosen))
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
        "data": {"name": name, "count": len(dataset), "fingerprint": dataset.fingerprint},
        "trained_on_it": trained_on,
        "settings": {"levels": config.levels, "spacing": "trailing", "variance": variance, "seed": config.seed},
    }


def batches(
    run: Run, dataset: Dataset, chosen: np.ndarray, size: int
) -> Iterator[tuple[Images, Labels | None, list[int]]]:
    """Images, their labels where the run knows them, and one seed each."""
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


def mean_of(values: Tensor) -> dict[str, float]:
    """Mean over the images and its standard error."""
    spread = values.double().std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": values.double().mean().item(), "standard_error": spread}


def table(found: dict[str, Any]) -> list[str]:
    """What is printed of it."""
    how, data = found["settings"], found["data"]
    rows = {"bound": f"{shown(found['bound'])}  variance {how['variance']}, {how['levels']} levels, {how['spacing']}"}
    rows["terms"] = ", ".join(f"{name} {value:.4f}" for name, value in found["terms"].items())
    if "ode" in found:
        trace = found["ode"]["error_of_the_trace"]
        rows["ode"] = f"{shown(found['ode'])}  of it {trace:.4f} by the trace's {found['ode']['probes']} probes"
    rows["data"] = f"{data['name']}: {found['n']} of {data['count']:,} images, sha256 {data['fingerprint'][:16]}"
    rows["data"] += ", those of the training: not held out" if found["trained_on_it"] else ", not trained on"
    return ["bits per dimension, mean +- standard error", *(f"  {name:8}{value}" for name, value in rows.items())]


def shown(value: dict[str, float]) -> str:
    return f"{value['mean']:.4f} +- {value['standard_error']:.4f}"
