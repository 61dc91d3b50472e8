"""How good are the pictures after the minutes one has? Every contender, same machine, same data, same budget.

    python benchmarks/quality_per_minute.py run TRAIN.npz HELD-OUT.npz OUT CONTENDER [--minutes 5 10 20 60] [--seed 0]
    python benchmarks/quality_per_minute.py run TRAIN.npz HELD-OUT.npz OUT unnoise --name flip --options=--flip
    python benchmarks/quality_per_minute.py table OUT

`run` trains one contender of peers.py and draws at each of the minutes; each result is a file in OUT, with the machine
it was measured on, and what is there already is not measured again. So the table can be filled over several sittings,
one run at a time. KID and FID are against the held-out pictures, by the network and sizes `unnoise eval` uses; slow
samplers draw fewer pictures, and have wider intervals. Pictures are padded to 32 px with black. Needs
`pip install -e ".[diffusers]" denoising-diffusion-pytorch smalldiffusion torch-ema`.
"""

import unnoise  # noqa: F401  # isort: skip  # before torch: how long threads spin is the same for all

import argparse
import hashlib
import json
import resource
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from matplotlib.figure import Figure
from peers import CONTENDERS, Draw, Pictures, to_float

from unnoise import registry
from unnoise.evaluation import metrics
from unnoise.evaluation.measure import measure_pixels
from unnoise.files import write_json
from unnoise.images import grid

SIZE = 32
FEWEST, MOST, BATCH = 25, 1_000, 25  # pictures that are scored, and drawn at a time
MANY = 500  # of which FID says something
SHARE = 0.25  # of the time of training, for drawing them, unless there are fewer than FEWEST
PACKAGES = ("unnoise", "diffusers", "denoising-diffusion-pytorch", "smalldiffusion")


def pictures(path: str) -> Pictures:
    images = np.load(path)["images"]
    images = images.reshape(*images.shape[:3], -1)
    more = [(-(-(SIZE - side) // 2), (SIZE - side) // 2) for side in images.shape[1:3]]
    return np.pad(images, [(0, 0), *more, (0, 0)])


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def to_pixels(images: Pictures) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def drawn(draw: Draw, seconds: float, batch: int = BATCH) -> tuple[Pictures, float]:
    """As many as there is time for, and the seconds of one; the training's random stream goes on where it was."""
    parts, spent, stream = list[Pictures](), 0.0, torch.get_rng_state()
    while (n := batch * len(parts)) < FEWEST or (n < MOST and spent + spent / len(parts) < seconds):
        begun = time.monotonic()
        parts.append(draw(batch, len(parts)))
        spent += time.monotonic() - begun
    torch.set_rng_state(stream)
    return np.concatenate(parts), spent / n


def run(arguments: argparse.Namespace) -> None:
    folder, name, seed = Path(arguments.out), arguments.name or arguments.contender, arguments.seed
    contender = CONTENDERS[arguments.contender]
    if arguments.options:
        contender = partial(contender, options=tuple(arguments.options.split()))
    folder.mkdir(parents=True, exist_ok=True)

    def place(minutes: float, i: int) -> Path:
        return folder / f"{name}-{minutes:g}m-seed{seed}-{i}.json"

    minutes = [mark for mark in sorted(arguments.minutes) if not place(mark, 0).exists()]
    if not minutes:
        return
    (own := folder / name).mkdir(exist_ok=True)
    images, held_out = pictures(arguments.train), pictures(arguments.held_out)
    data = hashlib.sha256(images.tobytes() + held_out.tobytes()).hexdigest()[:16]
    if any(json.loads(path.read_text())["data"] != data for path in folder.glob("*.json")):
        raise SystemExit(f"{folder} holds results on other data; name another OUT")
    extractor, real = registry.features.get("efficientnet")(), None
    for trained in contender(images, minutes, seed, own):
        peak = trained.summary["peak_bytes"] if trained.summary else peak_bytes()
        real = real or measure_pixels(to_pixels(held_out), extractor)
        for i, (sampler, draw) in reversed(list(enumerate(trained.draws.items()))):  # the first is written last
            made, each = drawn(draw, 60 * SHARE * trained.minutes)
            s, n = measure_pixels(to_pixels(made), extractor), len(made)
            scores = {"kid": metrics.kid(s.kept, real.kept), "fid": metrics.fid(s, real)}
            floors = {"kid": metrics.kid_floor(real, n), "fid": metrics.fid_floor(real, n)}
            result = {"data": data, "contender": name, "seed": seed, "sampler": sampler, "minutes": trained.minutes}
            result |= {"images": trained.images, "images_per_second": trained.images / (60 * trained.minutes)}
            result |= {"parameters": trained.parameters, "drawn": n, "seconds_per_picture": each, "peak_bytes": peak}
            result |= {"summary": trained.summary} if trained.summary else {}
            result |= {key: score._asdict() | {"floor": floors[key]._asdict()} for key, score in scores.items()}
            write_json(place(trained.minutes, i), result | {"machine": machine(*PACKAGES)})
            grid(to_float(made[:64])).save(place(trained.minutes, i).with_suffix(".png"))
            print(f"{name}, {sampler}, {trained.minutes:g} min: KID x 1000 {told(result)}, {n} pictures", flush=True)


def told(row: dict[str, Any]) -> str:
    return f"{1000 * row['kid']['value']:.0f} ± {1960 * row['kid']['standard_error']:.0f}"


def table(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.out)
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows.sort(key=lambda row: (row["minutes"], -row["kid"]["value"]))
    head = ("minutes", "contender", "sampler", "seed", "KID x 1000", "FID", "of", "floor of FID")
    head += ("images/s", "M parameters", "s / 1,000 pictures", "peak MB so far")
    lines = ["| " + " | ".join(head) + " |", "|---:|---|---|" + "---:|" * (len(head) - 3)]
    for row in rows:
        cells = (f"{row['minutes']:g}", row["contender"], row["sampler"], str(row["seed"]), told(row))
        known = row["drawn"] >= MANY
        fid = (f"{row['fid']['value']:.0f}", f"{row['fid']['floor']['value']:.0f}") if known else ("-", "-")
        cells += (fid[0], f"{row['drawn']:,}", fid[1])
        cells += (f"{row['images_per_second']:.0f}", f"{row['parameters'] / 1e6:.1f}")
        cells += (f"{1000 * row['seconds_per_picture']:,.0f}", f"{row['peak_bytes'] / 2**20:,.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "quality_per_minute.md").write_text("\n".join([*lines, ""]))
    print("\n".join(lines))
    plot(rows, folder / "quality_per_minute.png")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for key in dict.fromkeys((row["contender"], row["sampler"]) for row in rows):
        found = [row for row in rows if (row["contender"], row["sampler"]) == key]
        at, value = [row["minutes"] for row in found], [1000 * row["kid"]["value"] for row in found]
        error = [1960 * row["kid"]["standard_error"] for row in found]
        axes.errorbar(at, value, yerr=error, marker="o", label=", ".join(key), linewidth=2 if "unnoise" in key else 1)
    axes.set(xscale="log", yscale="log", xlabel="minutes of training", ylabel="KID x 1000 (smaller is better)")
    marks = sorted({row["minutes"] for row in rows})
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.25)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    for name in ("train", "held_out", "out"):
        one.add_argument(name)
    one.add_argument("contender", choices=CONTENDERS)
    one.add_argument("--minutes", nargs="+", type=float, default=[5, 10, 20, 60])
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--options", default="", help="of unnoise train, to see what an ingredient is worth")
    one.add_argument("--name", help="of the row, where there are options")
    one.set_defaults(work=run)
    all_ = commands.add_parser("table")
    all_.add_argument("out")
    all_.set_defaults(work=table)
    given = parser.parse_args()
    given.work(given)
