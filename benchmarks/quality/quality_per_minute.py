"""How good are the images after a number of minutes? Every contender on the same machine, data and budget.

    python -m benchmarks.quality.quality_per_minute run TRAIN.npz HELD-OUT.npz OUT CONTENDER
                                                    [--minutes 5 10 20 60] [--seed 0]
    python -m benchmarks.quality.quality_per_minute run TRAIN.npz HELD-OUT.npz OUT unnoise --name flip --options=--flip
    python -m benchmarks.quality.quality_per_minute table OUT

`run` trains one contender of benchmarks/lib/peers.py and draws at each of the minutes. Each result is a file in OUT,
with the machine; it is not measured again, so the table can be filled in several sessions, one run at a time. KID and
FID are against the held-out images, by the network and sizes that `unnoise eval` uses. The other judges of judges.py
give a KID each. Slow samplers draw fewer images, and have wider intervals. Images are padded to 32 px with black. The
other contenders need
`pip install -e ".[diffusers]" denoising-diffusion-pytorch smalldiffusion torch-ema`.
"""

import unnoise.cli  # noqa: F401  # isort: skip  # before torch: it sets how long threads spin, for all contenders

import argparse
import hashlib
import json
import resource
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.lib.contender import Draw, Pixels, Trained, clock, to_float
from benchmarks.lib.machine import machine
from benchmarks.lib.peers import CONTENDERS
from benchmarks.quality.judges import JUDGES, open_judge
from unnoise.evaluation import metrics
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.measure import measure_pixels
from unnoise.evaluation.statistics import Statistics
from unnoise.files import write_json
from unnoise.images import grid

SIZE = 32
MIN_DRAWN, MAX_DRAWN, BATCH = 25, 1_000, 25  # images that are scored, and drawn at a time
ENOUGH_FOR_FID = 500  # images
DRAWING_SHARE = 0.25  # time for drawing, as a share of the training; MIN_DRAWN images are drawn in any case
PACKAGES = ("unnoise", "diffusers", "denoising-diffusion-pytorch", "smalldiffusion")


def read_padded(path: str) -> Pixels:
    """Return the images of an npz file, padded to 32 px with black."""
    images = np.load(path)["images"]
    images = images.reshape(*images.shape[:3], -1)
    more = [(-(-(SIZE - side) // 2), (SIZE - side) // 2) for side in images.shape[1:3]]
    return np.pad(images, [(0, 0), *more, (0, 0)])


def peak_bytes() -> int:
    """Return the largest memory that this process had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def channels_first(images: Pixels) -> torch.Tensor:
    """Return uint8 images [n, h, w, c] as a tensor [n, c, h, w]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def draw_for(draw: Draw, seconds: float, batch: int = BATCH) -> tuple[Pixels, float]:
    """Draw as many images as the time allows; return them and the seconds for one; keep PyTorch's random stream."""
    parts, spent, stream = list[Pixels](), 0.0, torch.get_rng_state()
    while (n := batch * len(parts)) < MIN_DRAWN or (n < MAX_DRAWN and spent + spent / len(parts) < seconds):
        begun = clock()
        parts.append(draw(batch, len(parts)))
        spent += clock() - begun
    torch.set_rng_state(stream)
    return np.concatenate(parts), spent / n


def run(arguments: argparse.Namespace) -> None:
    """Train a contender; draw and score at each of the minutes that have no result yet."""
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
    images, held_out = read_padded(arguments.train), read_padded(arguments.held_out)
    data = hashlib.sha256(images.tobytes() + held_out.tobytes()).hexdigest()[:16]
    if any(json.loads(path.read_text())["data"] != data for path in folder.glob("*.json")):
        raise SystemExit(f"{folder} holds results on other data; name another OUT")
    judges, real = {judge: open_judge(judge) for judge in JUDGES}, dict[str, Statistics]()
    for trained in contender(images, minutes, seed, own):
        peak = trained.summary["peak_bytes"] if trained.summary else peak_bytes()
        real = real or {judge: measure_pixels(channels_first(held_out), judges[judge]) for judge in judges}
        about = {"data": data, "contender": name, "seed": seed}
        for i, (sampler, draw) in reversed(list(enumerate(trained.draws.items()))):  # the first is written last
            made, each = draw_for(draw, 60 * DRAWING_SHARE * trained.minutes)
            result = about | {"sampler": sampler} | describe(trained) | {"drawn": len(made)}
            result |= {"seconds_per_picture": each, "peak_bytes": peak} | score(made, real, judges)
            result |= {"summary": trained.summary} if trained.summary else {}
            write_json(place(trained.minutes, i), result | {"machine": machine(*PACKAGES)})
            grid(to_float(made[:64])).save(place(trained.minutes, i).with_suffix(".png"))
            told = f"KID x 1000 {format_kid(result)}, {len(made)} images"
            print(f"{name}, {sampler}, {trained.minutes:g} min: {told}", flush=True)


def describe(trained: Trained) -> dict[str, Any]:
    """Return the length, pace and size of a training."""
    pace = trained.images / (60 * trained.minutes)
    about = {"minutes": trained.minutes, "images": trained.images, "images_per_second": pace}
    return about | {"parameters": trained.parameters}


def score(images: Pixels, real: dict[str, Statistics], judges: dict[str, Extractor]) -> dict[str, Any]:
    """Return KID and FID of images against real ones by the first judge, each with its floor, and KID by the others."""
    first, *others = judges
    s = {judge: measure_pixels(channels_first(images), extractor) for judge, extractor in judges.items()}
    scores = {"kid": metrics.kid(s[first].kept, real[first].kept), "fid": metrics.fid(s[first], real[first])}
    floors = {"kid": metrics.kid_floor(s[first], real[first]), "fid": metrics.fid_floor(s[first], real[first])}
    told: dict[str, Any] = {key: value._asdict() | {"floor": floors[key]._asdict()} for key, value in scores.items()}
    return told | {"judges": {judge: metrics.kid(s[judge].kept, real[judge].kept)._asdict() for judge in others}}


def format_kid(row: dict[str, Any], judge: str | None = None) -> str:
    """Return KID x 1000 and its 95 % interval by the first judge, or by another one; "-" if that one was not asked."""
    kid = row["kid"] if judge is None else row.get("judges", {}).get(judge)
    return format_thousandfold(kid["value"], *kid["interval"]) if kid else "-"


def format_thousandfold(value: float, low: float, high: float) -> str:
    """Return a KID x 1000 with its interval."""
    return f"{1000 * value:.0f} ({1000 * low:.0f} to {1000 * high:.0f})"


def tabulate(arguments: argparse.Namespace) -> None:
    """Write and print the table of all results, and plot them."""
    folder = Path(arguments.out)
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows.sort(key=lambda row: (row["minutes"], -row["kid"]["value"]))
    others = [judge for judge in list(JUDGES)[1:] if any(judge in row.get("judges", {}) for row in rows)]
    head = ("minutes", "contender", "sampler", "seed", "KID x 1000", *(f"by {judge}" for judge in others))
    head += ("FID", "images scored", "floor of FID", "images/s", "M parameters", "s / 1,000 images")
    lines = ["| " + " | ".join(head) + " |", "|---:|---|---|" + "---:|" * (len(head) - 3)]
    for row in rows:
        cells = (f"{row['minutes']:g}", row["contender"], row["sampler"], str(row["seed"]), format_kid(row))
        cells += tuple(format_kid(row, judge) for judge in others)
        enough = row["drawn"] >= ENOUGH_FOR_FID
        fid = (f"{row['fid']['value']:.0f}", f"{row['fid']['floor']['value']:.0f}") if enough else ("-", "-")
        cells += (fid[0], f"{row['drawn']:,}", fid[1])
        cells += (f"{row['images_per_second']:.0f}", f"{row['parameters'] / 1e6:.1f}")
        cells += (f"{1000 * row['seconds_per_picture']:,.0f}",)
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "quality_per_minute.md").write_text("\n".join([*lines, ""]))
    print("\n".join(lines))
    plot(rows, folder / "quality_per_minute.png")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot KID against the minutes of training."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for key in dict.fromkeys((row["contender"], row["sampler"]) for row in rows):
        found = [row for row in rows if (row["contender"], row["sampler"]) == key]
        at, value = [row["minutes"] for row in found], [1000 * row["kid"]["value"] for row in found]
        low, high = zip(*(row["kid"]["interval"] for row in found), strict=True)
        axes.vlines(at, [1000 * end for end in low], [1000 * end for end in high], color="gray")
        axes.plot(at, value, marker="o", label=", ".join(key), linewidth=2 if "unnoise" in key else 1)
    axes.set(xscale="log", yscale="log", xlabel="minutes of training", ylabel="KID x 1000 (smaller is better)")
    marks = sorted({row["minutes"] for row in rows})
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.25)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of both commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run", help="train one contender, draw and score")
    for name in ("train", "held_out", "out"):
        one.add_argument(name)
    one.add_argument("contender", choices=CONTENDERS)
    one.add_argument("--minutes", nargs="+", type=float, default=[5, 10, 20, 60])
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--options", default="", help="options of `unnoise train`, to see what they are worth")
    one.add_argument("--name", help="name of the row, if there are options")
    one.set_defaults(work=run)
    all_ = commands.add_parser("table", help="write the table and the plot of all results in a folder")
    all_.add_argument("out")
    all_.set_defaults(work=tabulate)
    return parser


if __name__ == "__main__":
    given = make_parser().parse_args()
    given.work(given)
