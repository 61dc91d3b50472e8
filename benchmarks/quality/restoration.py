"""How near do edits come to the truth? Restores images that were not trained on, and compares with baselines.

    python -m benchmarks.quality.restoration RUN DATA OUT --skip 20000 [-n 256] [--steps 20] [--seed 0]

The script takes N images of DATA after the first `skip`, which were not trained on. It hides, shrinks, blurs or grays
them, and restores each one once by every posterior sampler. It writes OUT/restoration.md and .json, and a grid for each
task: what is known, the truth, then a row for each method. PSNR is over all pixels of all images. KID is against the N
images after these, since a restoration depends on its original; for the originals it is 0 on average. The baselines are
smooth filling in (harmonic), bicubic, the pseudo-inverse, and gray.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

import unnoise
from benchmarks.lib.machine import machine
from benchmarks.quality.quality_per_minute import format_thousandfold
from unnoise import registry
from unnoise.editing.inputs import with_clipping
from unnoise.editing.measurements import Blurred, Gray, Measurement, Pixels, Shrunk
from unnoise.editing.posterior import Known
from unnoise.evaluation import metrics
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.measure import measure_pixels
from unnoise.evaluation.statistics import Statistics
from unnoise.files import write_json
from unnoise.images import grid, to_float, to_uint8
from unnoise.samplers.draw import initial_noise, without_grad
from unnoise.types import Images

METHODS = ("replace", "repaint", "pigdm")
BATCH, SHOWN = 64, 8


class Task(NamedTuple):
    """A measurement, and the baseline that restores images without a model."""

    measure: Measurement
    plain: Callable[[Images], Images]
    named: str


def make_tasks(shape: tuple[int, int, int]) -> dict[str, Task]:
    """Return the tasks for images of this shape (c, h, w)."""
    channels, height, width = shape
    known = torch.ones(1, 1, height, width, dtype=torch.bool)
    known[..., height // 4 : -height // 4, width // 4 : -width // 4] = False
    half = torch.ones_like(known)
    half[..., width // 2 :] = False
    found = {
        "a quarter filled in": Task(Pixels(known), lambda y: harmonic(y, known), "harmonic"),
        "half filled in": Task(Pixels(half), lambda y: harmonic(y, half), "harmonic"),
        "enlarged by 2": Task(Shrunk(2), lambda y: bicubic(y, 2), "bicubic"),
        "enlarged by 4": Task(Shrunk(4), lambda y: bicubic(y, 4), "bicubic"),
        "sharpened, sigma 1.5": Task(Blurred(1.5), Blurred(1.5).inverse, "pseudo-inverse"),
    }
    if channels == 3:
        found["coloured"] = Task(Gray(), lambda y: y.expand(-1, 3, -1, -1), "gray")
    return found


def harmonic(y: Images, known: torch.Tensor) -> Images:
    """Fill in as smoothly as possible: every unknown pixel becomes the mean of its neighbours."""
    x = torch.where(known, y, 0)
    for _ in range(2000):
        edge = F.pad(x, (1, 1, 1, 1), mode="replicate")
        mean = (edge[..., :-2, 1:-1] + edge[..., 2:, 1:-1] + edge[..., 1:-1, :-2] + edge[..., 1:-1, 2:]) / 4
        x = torch.where(known, y, mean)
    return x


def bicubic(y: Images, factor: int) -> Images:
    """Upscale by bicubic interpolation."""
    return F.interpolate(y, scale_factor=factor, mode="bicubic")


def score(  # a row of the table
    task: str, method: str, made: Images, truth: Images, real: Statistics, extractor: Extractor, seconds: float
) -> dict[str, Any]:
    """Return the scores of restored images, and print them."""
    error = ((to_uint8(made).float() - to_uint8(truth).float()) / 255).square().mean()
    kid = metrics.kid(measure_pixels(to_uint8(made), extractor).kept, real.kept)
    scores = {"psnr": -10 * math.log10(max(float(error), 1e-10)), "kid": kid.value, "interval": kid.interval}
    result = {"task": task, "by": method, **scores, "seconds_per_picture": seconds / len(truth)}
    print(format_row(result), flush=True)
    return result


def restore(run: unnoise.Run, task: Task, y: Images, method: str, how: argparse.Namespace) -> Images:
    """Return one restored image for each y."""
    parts = []
    sampling = run.card.sampling
    for begin in range(0, len(y), BATCH):
        part = y[begin : begin + BATCH]
        sampler = registry.sampler.get(sampling.sampler)
        restoring = registry.posterior.get(method)(
            with_clipping(sampler) if sampling.clip else sampler, Known(task.measure, part)
        )
        randn_like, start = initial_noise(run.model, range(how.seed + begin, how.seed + begin + len(part)))
        levels = run.model.schedule.grid(how.steps, sampling.spacing)
        *_, last = without_grad(restoring(run.model, start, levels, randn_like=randn_like))
        parts.append(last.x)
    return torch.cat(parts)


def main(how: argparse.Namespace) -> None:
    """Restore, score, and write the results."""
    run, folder, rows = unnoise.load(how.run, "cpu"), Path(how.out), []
    folder.mkdir(parents=True, exist_ok=True)
    _, height, width = run.card.shape
    data = unnoise.open_data(how.data, size=f"{width}x{height}", channels=run.card.shape[0])
    truth, others = to_float(torch.from_numpy(data.read(np.arange(how.skip, how.skip + 2 * how.n)))).split(how.n)
    extractor = registry.features.get("efficientnet")()
    real = measure_pixels(to_uint8(others), extractor)
    rows.append(score("nothing done", "original", truth, truth, real, extractor, 0.0))
    for name, task in make_tasks(run.card.shape).items():
        y = task.measure(truth)
        visible = task.plain(y) if isinstance(task.measure, Gray) else y if y.shape == truth.shape else None
        shown = [task.measure.inverse(y) if visible is None else visible, truth]
        for method in (task.named, *METHODS):
            begun = time.monotonic()
            made = restore(run, task, y, method, how) if method in METHODS else task.plain(y)
            seconds, shown = time.monotonic() - begun, [*shown, made]
            rows.append(score(name, method, made, truth, real, extractor, seconds))
        sheet = torch.cat([images[:SHOWN] for images in shown])
        grid(sheet, run.card.mode, columns=SHOWN).save(folder / f"{name.replace(' ', '-').replace(',', '')}.png")
    about = {"steps": how.steps, "n": how.n, "sampling": vars(run.card.sampling), "machine": machine("unnoise")}
    write_json(folder / "restoration.json", {**about, "rows": rows})
    head = "| task | by | PSNR, dB | KID x 1000 | ms per image |\n|---|---|---:|---:|---:|\n"
    (folder / "restoration.md").write_text(head + "\n".join(map(format_row, rows)) + "\n")


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the Markdown table."""
    kid = format_thousandfold(row["kid"], *row["interval"])
    return f"| {row['task']} | {row['by']} | {row['psnr']:.1f} | {kid} | {1000 * row['seconds_per_picture']:.0f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "data", "out"):
        parser.add_argument(name)
    parser.add_argument("--skip", type=int, required=True, help="images of DATA that were trained on")
    parser.add_argument("-n", type=int, default=256, help="number of images")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
