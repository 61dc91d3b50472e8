"""Where does a run go wrong? Held-out pictures, noised to each level and denoised again, against the others.

    python benchmarks/levels.py RUN HELD-OUT.npz OUT.json [-n 500] [--from 19 16 12 8 0]

The levels are those the run's own sampler visits: from 0, pure noise, to the last, which is nearly clean. A perfect
network gets the score of real pictures from all of them. What a level adds to the one after it goes wrong between
the two, unless the levels after it smooth it away; from the last on it is what the network loses of a picture that is
as good as given. The first N pictures are noised, the rest are what they are compared with; all are padded to 32 px as
in quality_per_minute.py.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from machine import machine
from quality_per_minute import pictures, to_pixels, told

import unnoise
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
def there_and_back(run: unnoise.Run, given: Images, levels: Levels, seed: int) -> Images:
    randn_like = seeded_noise(range(seed, seed + len(given)))
    denoise = clip_x0(run.model) if run.card.sampling.clip else run.model
    x_t = q_sample(given, randn_like(given), levels[0])
    *_, last = registry.sampler.get(run.card.sampling.sampler)(denoise, x_t, levels, randn_like=randn_like)
    return last.x


def main(arguments: argparse.Namespace) -> None:
    run, n = unnoise.load(arguments.run, "cpu"), arguments.n
    pixels, how = to_pixels(pictures(arguments.held_out)), run.card.sampling
    if run.card.classes or run.card.shape != pixels.shape[1:]:
        raise SystemExit(f"a run without classes, of pictures of shape {tuple(pixels.shape[1:])}, is wanted")
    extractor, given = registry.features.get("efficientnet")(), to_float(pixels[:n])
    real, levels = measure_pixels(pixels[n:], extractor), run.model.schedule.grid(how.steps, how.spacing)

    def scored(seen: Statistics) -> dict[str, Any]:
        return {"kid": metrics.kid(seen.kept, real.kept)._asdict(), "fid": metrics.fid(seen, real)._asdict()}

    def line(row: dict[str, Any], what: str) -> str:
        return f"| {what} | {told(row)} | {row['fid']['value']:.1f} |"

    result: dict[str, Any] = {"real": scored(measure_pixels(pixels[:n], extractor)), "rows": []}
    print("| from level | noise-to-signal | lost | KID x 1000 | FID |\n|---:|---:|---:|---:|---:|")
    print(line(result["real"], "| | real pictures"), flush=True)
    for first in arguments.first or range(how.steps - 1, -1, -1):
        way = levels[first:]
        back = torch.cat([there_and_back(run, given[i : i + BATCH], way, i) for i in range(0, n, BATCH)])
        row = {"from": first, "ratio": float(way[0].ratio), "lost": float((back - given).square().mean().sqrt())}
        result["rows"].append(row | scored(measure_pixels(to_uint8(back), extractor)))
        print(line(result["rows"][-1], f"{first} | {row['ratio']:.3f} | {row['lost']:.3f}"), flush=True)
    how_trained = {name: value for name, value in run.card.training["config"].items() if name not in ("data", "out")}
    about = {"n": n, "trained": how_trained | {"images": run.card.training["images"]}, "machine": machine("unnoise")}
    write_json(Path(arguments.out), about | result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "held_out", "out"):
        parser.add_argument(name)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--from", dest="first", nargs="+", type=int, help="levels by number (default: each)")
    main(parser.parse_args())
