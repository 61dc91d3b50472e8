"""At which noise levels does a run go wrong? Adds noise to held-out images, denoises them, and scores them.

    python -m benchmarks.quality.levels RUN HELD-OUT.npz OUT.json [-n 500] [--from 19 16 12 8 0]

The levels are those that the run's own sampler visits: from 0, which is pure noise, to the last one, which is nearly
clean. A perfect network gets the score of real images from every level. If the score is worse from one level than from
the next, the network goes wrong between them, unless the later levels smooth it away. The first N images get noise, and
the rest are the reference; all are padded to 32 px as in quality_per_minute.py. The run was trained without classes.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

import unnoise
from benchmarks.lib.machine import machine
from benchmarks.quality.quality_per_minute import channels_first, format_kid, read_padded
from unnoise import registry
from unnoise.diffusion.model import clip_x0
from unnoise.diffusion.process import q_sample
from unnoise.diffusion.schedule import Levels
from unnoise.evaluation import metrics
from unnoise.evaluation.measure import measure_pixels
from unnoise.evaluation.statistics import Statistics
from unnoise.files import write_json
from unnoise.images import to_float, to_uint8
from unnoise.samplers.draw import seeded_noise
from unnoise.types import Images

BATCH = 64


@torch.no_grad()
def noise_and_denoise(run: unnoise.Run, given: Images, levels: Levels, seed: int) -> Images:
    """Add noise up to the first of the levels, and denoise by the run's own sampler."""
    randn_like = seeded_noise(range(seed, seed + len(given)))
    denoise = clip_x0(run.model) if run.card.sampling.clip else run.model
    x_t = q_sample(given, randn_like(given), levels[0])
    *_, last = registry.sampler.get(run.card.sampling.sampler)(denoise, x_t, levels, randn_like=randn_like)
    return last.x


def main(arguments: argparse.Namespace) -> None:
    """Score from each level, and write the result."""
    run, n = unnoise.load(arguments.run, "cpu"), arguments.n
    pixels, how = channels_first(read_padded(arguments.held_out)), run.card.sampling
    if run.card.classes or run.card.shape != pixels.shape[1:]:
        raise SystemExit(f"give a run without classes whose images have the shape {tuple(pixels.shape[1:])}")
    extractor, given = registry.features.get("efficientnet")(), to_float(pixels[:n])
    real, levels = measure_pixels(pixels[n:], extractor), run.model.schedule.grid(how.steps, how.spacing)

    def scores(seen: Statistics) -> dict[str, Any]:
        return {"kid": metrics.kid(seen.kept, real.kept)._asdict(), "fid": metrics.fid(seen, real)._asdict()}

    def line(row: dict[str, Any], what: str) -> str:
        return f"| {what} | {format_kid(row)} | {row['fid']['value']:.1f} |"

    result: dict[str, Any] = {"real": scores(measure_pixels(pixels[:n], extractor)), "rows": []}
    print("| from level | noise / signal | error | KID x 1000 | FID |\n|---:|---:|---:|---:|---:|")
    print(line(result["real"], "| | real images"), flush=True)
    for first in arguments.first or range(how.steps - 1, -1, -1):
        path = levels[first:]
        back = torch.cat([noise_and_denoise(run, given[i : i + BATCH], path, i) for i in range(0, n, BATCH)])
        row = {"from": first, "ratio": float(path[0].ratio), "lost": float((back - given).square().mean().sqrt())}
        result["rows"].append(row | scores(measure_pixels(to_uint8(back), extractor)))
        print(line(result["rows"][-1], f"{first} | {row['ratio']:.3f} | {row['lost']:.3f}"), flush=True)
    how_trained = {name: value for name, value in run.card.training["config"].items() if name not in ("data", "out")}
    about = {"n": n, "trained": how_trained | {"images": run.card.training["images"]}, "machine": machine("unnoise")}
    write_json(Path(arguments.out), about | result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "held_out", "out"):
        parser.add_argument(name)
    parser.add_argument("-n", type=int, default=500, help="number of images that get noise")
    parser.add_argument("--from", dest="first", nargs="+", type=int, help="numbers of levels (default: all)")
    main(parser.parse_args())
