"""Find the levels where a run loses quality: real images are noised to some levels, and the run draws from there."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise import registry
from unnoise.card import Run
from unnoise.config import Sampling
from unnoise.diffusion.process import q_sample
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.kid_change import Features
from unnoise.evaluation.ladder import damage_kid
from unnoise.evaluation.scores import plain_score
from unnoise.images import Uint8Images, to_uint8
from unnoise.progress import Report
from unnoise.samplers.draw import initial_noise, make_denoiser, without_grad
from unnoise.samplers.precision import Precision, with_precision

STARTS = 6  # levels to start from, evenly over the levels that the sampler visits
IMAGES = 200  # real images that are noised
COARSE, FINE = 2.0, 0.3  # noise-to-signal ratios: above, a level decides shapes; below, only details


def start_places(steps: int) -> list[int]:
    """Return the places, among the levels that a sampler visits, to start from: the last one is near the clean end."""
    return sorted({min(round(i * steps / STARTS), steps - 1) for i in range(STARTS)})


def redraw(  # everything that an image depends on
    run: Run,
    how: Sampling,
    images: Uint8Images,
    labels: Tensor | None,
    place: int,
    *,
    precision: Precision,
    seed: int = 0,
    batch: int = 64,
) -> Iterator[Uint8Images]:
    """Yield batches of images that are noised to the level at a place and drawn from there, each by its own seed."""
    model, levels = run.model, run.model.schedule.grid(how.steps, how.spacing)
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        which = labels[start : start + batch] if labels is not None else None
        randn_like, eps = initial_noise(model, range(seed + start, seed + start + len(some)))
        noisy = q_sample((some / 127.5 - 1).to(eps), eps, levels[place]) if place else eps
        denoise = with_precision(precision, make_denoiser(model, how, which, None))
        for step in without_grad(
            registry.sampler.get(how.sampler)(denoise, noisy, levels[place:], randn_like=randn_like)
        ):
            last = step.x
        yield to_uint8(last).cpu()


def climb(  # the run, how it draws, and the images
    run: Run,
    how: Sampling,
    images: Uint8Images,
    known: Features,
    labels: Tensor | None,
    extractor: Extractor,
    precision: Precision,
    report: Report,
) -> list[dict[str, Any]]:
    """Return for each level the KID of real images that were noised to it and drawn again, as plain values.

    No image is compared with its own original, so the value has no bias.

    Args:
        run, how, precision: The run, its sampling settings and its precision.
        images, known, labels: Real images, their features, and their labels if the run has classes.
        extractor, report: The feature extractor; called with (task, images done, images in total).
    """
    rows, places = [], start_places(how.steps)
    levels = run.model.schedule.grid(how.steps, how.spacing)
    for done, place in enumerate(places):
        found = []
        with torch.inference_mode():
            for made in redraw(run, how, images, labels, place, precision=precision):
                found.append(extractor(made)[0].cpu().double())
                report("drawing from levels", done * len(images) + 64 * len(found), len(places) * len(images))
        ratio = float(levels[place].ratio) if place else math.inf
        kid = plain_score(damage_kid(torch.cat(found).clone(), known))
        rows.append({"noise": ratio if math.isfinite(ratio) else None, "place": place, "kid": kid})
    return rows


def parts(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the shares of KID that arise at coarse, middle and fine levels; they add up to 1.

    KID of images that were drawn from a level arises at that level and all cleaner ones. So the difference between
    two levels arises between them. KID is linear between two levels in the logarithm of the noise.
    """
    noise = [row["noise"] or 1e4 for row in rows][::-1]
    kid = np.maximum.accumulate([max(row["kid"]["value"], 0.0) for row in rows][::-1])
    if not kid[-1] > 0:
        return {}
    fine, coarse = (float(np.interp(math.log(at), np.log([1e-3, *noise]), [0.0, *kid])) for at in (FINE, COARSE))
    whole = float(kid[-1])
    return {"coarse": (whole - coarse) / whole, "middle": (coarse - fine) / whole, "fine": fine / whole}


def more_steps(how: Sampling, most: int, times: int) -> Sampling:
    """Return sampling settings with more steps, at most as many as the schedule has levels."""
    return replace(how, steps=min(most, times * how.steps))
