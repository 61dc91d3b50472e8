"""Is a change of the default good on all data? Trains each contender on five sets, and scores it by three judges.

    python -m benchmarks.quality.yardstick run DATA OUT CONTENDER... [--sets celeba ...] [--seeds 0] [--images 40000]
    python -m benchmarks.quality.yardstick table OUT [--base default]
    python -m benchmarks.quality.yardstick chart OUT CONTENDER... FILE.png

DATA is a folder with the sets of SETS; the default are those of MAIN. A contender is a name of CONTENDERS: settings of
`unnoise train`. 1,000 drawn images are compared with 2,000 held-out ones, or fewer where SETS says so.
`--budget 10m` trains by the clock in place of --images. The third judge, wavelets, was trained on nothing. A grid and
OUT/SET-CONTENDER-LENGTH-SEED.json are written after each training, and what is there is not made again. `table` divides
each KID by that of the base with the same set, seed and length. A change is accepted at 0.85 of the geometric mean with
no set above 1. At the end, it divides each KID by that of the same contender after its next shorter budget. `chart`
plots the KID of the first two judges against the budget.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from itertools import pairwise, product
from operator import itemgetter
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from benchmarks.lib.machine import machine
from benchmarks.quality.judges import JUDGES
from unnoise import evaluate, load, sample
from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset, split_held_out
from unnoise.evaluation.faults import FAULTS
from unnoise.files import write_json
from unnoise.images import grid, to_uint8
from unnoise.training.clock import SECONDS, parse_amount

# name -> path in DATA, settings of the data, drawn images, held-out images
SETS: dict[str, tuple[str, str, int, int]] = {
    "celeba": ("celeba/train.zip", "--size 32", 1000, 2000),
    "celeba-64": ("celeba/train.zip", "--size 64", 1000, 2000),
    "cifar10": ("cifar10/train-00000-of-00001.parquet", "", 1000, 2000),
    "fashion-mnist": ("fashion-mnist/train-images-idx3-ubyte.gz", "", 1000, 2000),
    "clothing": ("clothing/train-64px.zip", "--size 64", 400, 400),
    "tiny-imagenet": ("tinyimagenet20/train.zip", "--size 64", 1000, 2000),
    "faces": ("faces", "--size 32", 1000, 2000),  # unnoise draws them itself
    "blood": ("blood", "--size 32", 600, 600),  # tiles of 160x160 pixels of github.com/Shenggan/BCCD_Dataset
    "hands": ("hands", "--size 32", 600, 600),  # github.com/ardamavi/Sign-Language-Digits-Dataset, its folder Dataset
}
MAIN = "celeba", "cifar10", "fashion-mnist", "clothing", "tiny-imagenet"

UNET = "unet:widths={},layers={},patch=2,groups=8,head=32"
NETWORK = f"--backbone {UNET}"
PLAIN = "--objective capped_v:gamma=2.5,first=20"
CONTENDERS = {
    "default": "",
    # the default until its photographs were hazy: another network and objective, fewer and smaller steps
    "first": f"{NETWORK.format('32-64-128', 1)} {PLAIN} --references 0 --lr 1e-3 --batch 64",
    # the default without one of its parts
    "no-references": "--references 0",
    "no-perceptual": f"{PLAIN},white=0.15",
    "no-white": "--objective perceptual:white=0",
    "one-layer": NETWORK.format("64-64-96", 1),
    "narrow": NETWORK.format("32-64-128", 2),
    "batch-64": "--batch 64",
    "lr-1e-3": "--lr 1e-3",
    # the default with other settings
    "lr-1.5e-3": "--lr 1.5e-3",
    "lr-5e-3": "--lr 5e-3",
    "wide": NETWORK.format("96-96-144", 2),
    "width-64": NETWORK.format("64-64-96", 2),
    "direct": f"{NETWORK.format('64-64-96', 2)},direct=true",
}
MINUTES = 5, 10, 20, 60, 180  # of the chart
METRICS = "kid,fid,precision_recall"


def flags(name: str, contender: str) -> str:
    """Return the settings of a contender; at 64 px its network has one more scale, as the default's has."""
    given = CONTENDERS[contender]
    large = "64" in SETS[name][1] and contender != "first"
    return re.sub(r"(?<=widths=)\d+", lambda width: f"{int(width[0]) // 2}-{width[0]}", given) if large else given


def images_of(data: str, name: str) -> str:
    """Return the path of a set in the folder of all sets, or its name if unnoise draws it."""
    place = SETS[name][0]
    return str(path) if (path := Path(data) / place).exists() else place


def open_set(data: str, name: str) -> tuple[Dataset, Dataset]:
    """Return the images of a set that are trained on, and those that are held out."""
    _, settings, _, held = SETS[name]
    return split_held_out(open_data(images_of(data, name), size=settings.partition(" ")[2] or None), held)


def title(name: str, contender: str, seed: int, length: list[str]) -> str:
    """Return the name of the files of a training."""
    return f"{name}-{contender}-{length[-1]}-{seed}"


def train(name: str, contender: str, seed: int, length: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Train a contender on a set, and return what it took and what its images are worth."""
    _, settings, drawn, held = SETS[name]
    files = title(name, contender, seed, length)
    run = Path(given.out) / "runs" / files
    command = [
        images_of(given.data, name),
        *settings.split(),
        "--held-out",
        str(held),
        *flags(name, contender).split(),
    ]
    subprocess.run(
        [sys.executable, "-m", "unnoise", "train", *command, *length, "--seed", str(seed), "--out", str(run)],
        check=True,
    )
    opened, begun = load(run), time.monotonic()
    made = sample(opened, drawn)
    seconds = time.monotonic() - begun
    real = open_set(given.data, name)[1]
    grid(made[:64], opened.card.mode).save(Path(given.out) / f"{files}.png")
    training = opened.card.training
    return {
        "set": name,
        "contender": contender,
        "settings": flags(name, contender),
        "network": opened.card.backbone,
        "seed": seed,
        "length": " ".join(length),
        "images": training["images"],
        "images_per_second": training["images"] / training["seconds"],
        "drawing": drawn / seconds,
        "scores": by_all_judges(made, real),
        "faults": numbers(to_uint8(made), torch.from_numpy(real.read(np.arange(len(real))))),
        "machine": machine("unnoise"),
    }


def by_all_judges(made: torch.Tensor, real: Dataset, metrics: str = METRICS) -> dict[str, Any]:
    """Return the scores of drawn images, each with the ends of its interval, by each judge."""
    scores = dict[str, Any]()
    for judge in JUDGES:
        found = evaluate(made, real, metrics=metrics, features=JUDGES[judge], second="none").details["scores"]["values"]
        scores[judge] = {score: [value["value"], *value["interval"]] for score, value in found.items()}
    return scores


def numbers(drawn: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Return the grid number, the power at high frequencies, and the steps in flat parts, each over real images."""
    return {
        name: fault.number(*(fault.statistic(some).mean(dim=0) for some in (drawn, real)))
        for name, fault in ((name, FAULTS[name]) for name in ("grid", "haze", "grain"))
    }


def run(given: argparse.Namespace) -> None:
    """Train and score what is not there yet, a set after the other, so that contenders of a set share a sitting."""
    length = ["--budget", given.budget] if given.budget else ["--images", given.images]
    (Path(given.out) / "runs").mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        for seed in given.seeds:
            for contender in given.contenders:
                place = Path(given.out) / f"{title(name, contender, seed, length)}.json"
                if not place.exists():
                    write_json(place, train(name, contender, seed, length, given))
                print(row(json.loads(place.read_text("utf-8")), None), flush=True)


def table(given: argparse.Namespace) -> None:
    """Print a row for each training, and for each contender the geometric mean of its KIDs over those of the base."""
    rows = read_trainings(given.out)
    known = {(each["set"], each["seed"], each["length"]): each for each in rows if each["contender"] == given.base}
    print(HEAD)
    for each in rows:
        print(row(each, known.get((each["set"], each["seed"], each["length"]))))
    for contender in dict.fromkeys(each["contender"] for each in rows):
        mine = [each for each in rows if each["contender"] == contender]
        pairs = [(each, known[key]) for each in mine if (key := (each["set"], each["seed"], each["length"])) in known]
        if not pairs:
            continue
        means = {
            judge: geometric_mean([value(each, judge) / value(base, judge) for each, base in pairs]) for judge in JUDGES
        }
        print(f"{contender}: {in_words(means)}, over {len(pairs)} trainings")
    for shorter, longer in growth(rows):
        gain = {judge: value(longer, judge) / value(shorter, judge) for judge in JUDGES}
        told = f"{longer['set']} {longer['contender']} {longer['seed']}: {longer['length']} over {shorter['length']}"
        print(f"{told}: {in_words(gain)}")


def growth(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the pairs of trainings that differ in their budget alone, each with the next shorter one."""
    kind = itemgetter("set", "contender", "seed")
    timed = sorted(by_time(rows), key=kind)
    return [(before, after) for before, after in pairwise(timed) if kind(before) == kind(after)]


def read_trainings(out: str) -> list[dict[str, Any]]:
    """Return what each training of a folder took and what its images are worth."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(Path(out).glob("*.json"))]


def by_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the trainings that went by the clock, the shortest budget first."""
    timed = [each for each in rows if each["length"].startswith("--budget")]
    return sorted(timed, key=lambda each: seconds_of(each["length"]))


def chart(given: argparse.Namespace) -> None:
    """Plot KID against the budget, a panel for each set: by lite0 as a line, by lite2 as a dashed line."""
    timed = by_time(read_trainings(given.out))
    names = [name for name in SETS if any(each["set"] == name for each in timed)]
    figure = Figure(figsize=(3.2 * len(names), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for number, contender in enumerate(given.contenders):
            named = [each for each in timed if (each["set"], each["contender"]) == (name, contender)]
            seeds = sorted({each["seed"] for each in named})
            for seed, (judge, style) in product(seeds, (("lite0", "o-"), ("lite2", "s--"))):
                found = [each for each in named if each["seed"] == seed]
                minutes = [seconds_of(each["length"]) / 60 for each in found]
                kid, low, high = ([1000 * each["scores"][judge]["kid"][i] for each in found] for i in range(3))
                spread = [
                    [a - b for a, b in zip(kid, low, strict=True)],
                    [b - a for a, b in zip(kid, high, strict=True)],
                ]
                label = f"{contender}, {judge}" if seed == seeds[0] else None
                axes.errorbar(minutes, kid, spread, fmt=style, color=f"C{number}", label=label, capsize=2)
        axes.set(xscale="log", yscale="log", xlabel="minutes of training", title=name)
        axes.set_xticks(MINUTES, map(str, MINUTES))
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        all_minutes = [*MINUTES, *(seconds_of(each["length"]) / 60 for each in timed)]
        axes.set_xlim(min(all_minutes), max(all_minutes))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(ScalarFormatter())
        axes.grid(visible=True, which="both", alpha=0.25)
    figure.axes[0].set_ylabel("KID x 1000 (smaller is better)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(given.file, dpi=110)


def seconds_of(length: str) -> float:
    """Return the seconds of a length such as "--budget 10m"."""
    return parse_amount(length.split()[1], SECONDS, "--budget", "10m")


def in_words(ratios: dict[str, float]) -> str:
    """Return the ratio of each judge in words."""
    return ", ".join(f"{ratio:.2f} by {judge}" for judge, ratio in ratios.items())


HEAD = (
    "| set | contender | seed | length | images/s | KID x 1000, over the base: lite0 | lite2 | wavelets | FID | recall "
    "| grid | detail | steps in flat parts |\n|---|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def value(each: dict[str, Any], judge: str) -> float:
    """Return the KID of a row by a judge, times 1000."""
    return max(1000 * float(each["scores"][judge]["kid"][0]), 0.1)


def row(each: dict[str, Any], base: dict[str, Any] | None) -> str:
    """Return a row of the table."""
    told = [
        f"{value(each, judge):.0f}" + (f", {value(each, judge) / value(base, judge):.2f}" if base else "")
        for judge in JUDGES
    ]
    first, faults = each["scores"]["lite0"], each["faults"]
    cells = [
        each["set"],
        each["contender"],
        f"{each['seed']}",
        each["length"],
        f"{each['images_per_second']:.0f}",
        *told,
    ]
    cells += [f"{first['fid'][0]:.1f}", f"{first['recall'][0]:.3f}", *(f"{faults[name]:.2f}" for name in faults)]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    training = parts.add_parser("run")
    for argument in ("data", "out"):
        training.add_argument(argument)
    training.add_argument("contenders", nargs="+", choices=CONTENDERS)
    training.add_argument("--sets", nargs="+", default=MAIN, choices=SETS)
    training.add_argument("--seeds", nargs="+", type=int, default=[0])
    training.add_argument("--images", default="40000")
    training.add_argument("--budget", help="by the clock, in place of --images")
    shown = parts.add_parser("table")
    shown.add_argument("out")
    shown.add_argument("--base", default="default")
    plotted = parts.add_parser("chart")
    plotted.add_argument("out")
    plotted.add_argument("contenders", nargs="+")
    plotted.add_argument("file")
    arguments = parser.parse_args()
    {"run": run, "table": table, "chart": chart}[arguments.part](arguments)
