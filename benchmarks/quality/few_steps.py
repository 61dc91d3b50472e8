"""What are images worth that are drawn in few calls of the network? Scores runs, and students of theirs.

    python -m benchmarks.quality.few_steps run DATA SET OUT RUN... [--how dpmpp_2m/10/log_snr ...] [-n 1000]
    python -m benchmarks.quality.few_steps table OUT

DATA and SET are those of yardstick.py. Each RUN draws N images by each sampler/steps/spacing of --how, or as its own
settings say. They are compared with the held-out images of the set. A grid and OUT/RUN-HOW.json are written, and what
is there is not drawn again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.lib.machine import machine
from benchmarks.quality.yardstick import SETS, by_all_judges, open_set
from unnoise import load, sample
from unnoise.files import write_json
from unnoise.images import grid
from unnoise.sampling import network_calls

OWN = "own"
HEAD = "| run | sampler, steps, spacing | calls | seconds for 1,000 | KID x 1000, three judges | recall | precision |"


def measure(folder: str, how: str, given: argparse.Namespace) -> dict[str, Any]:
    """Draw and score the images of a run by some sampling settings."""
    run, asked = load(folder), dict[str, Any]()
    if how != OWN:
        sampler, steps, spacing = how.split("/")
        asked = {"sampler": sampler, "steps": int(steps), "spacing": spacing}
    sample(run, 16, **asked)  # the first calls are slower
    begun = time.monotonic()
    made = sample(run, given.n, **asked)
    seconds = time.monotonic() - begun
    grid(made[:64], run.card.mode).save(place(folder, how, given.out).with_suffix(".png"))
    drawn, config = run.card.sampling, run.card.training["config"]
    settings = {name: asked.get(name, getattr(drawn, name)) for name in ("sampler", "steps", "spacing")}
    return {
        "run": Path(folder).name,
        "set": given.set,
        "how": settings,
        "calls": network_calls(type(drawn)(**settings)),
        "distilled": {name: config.get(name) for name in ("distill", "lr", "steps", "budget", "images", "seed")}
        if run.card.taught
        else None,
        "images": run.card.training["images"],
        "seconds": run.card.training["seconds"],
        "seconds_for_1000": 1000 * seconds / given.n,
        "scores": by_all_judges(made, open_set(given.data, given.set)[1]),
        "machine": machine("unnoise"),
    }


def place(folder: str, how: str, out: str) -> Path:
    """Return the file of a result."""
    return Path(out) / f"{Path(folder).name}-{how.replace('/', '-').replace(':', '-')}.json"


def run(given: argparse.Namespace) -> None:
    """Measure what is not there yet."""
    Path(given.out).mkdir(parents=True, exist_ok=True)
    print(HEAD)
    for folder in given.runs:
        for how in given.how:
            if not (path := place(folder, how, given.out)).exists():
                write_json(path, measure(folder, how, given))
            print(row(json.loads(path.read_text("utf-8"))), flush=True)


def row(found: dict[str, Any]) -> str:
    """Return a row of the Markdown table."""
    kids = [[round(1000 * number) for number in scores["kid"]] for scores in found["scores"].values()]
    told = " / ".join(f"{kid} ({low} to {high})" for kid, low, high in kids)
    shares = (f"{found['scores']['lite0'][name][0]:.2f}" for name in ("recall", "precision"))
    how = ", ".join(map(str, found["how"].values()))
    cells = (found["run"], how, str(found["calls"]), f"{found['seconds_for_1000']:.1f}", told, *shares)
    return "| " + " | ".join(cells) + " |"


def table(given: argparse.Namespace) -> None:
    """Print all results."""
    print(HEAD, "|---|---|---:|---:|---|---:|---:|", sep="\n")
    for path in sorted(Path(given.out).glob("*.json")):
        print(row(json.loads(path.read_text("utf-8"))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    drawing = parts.add_parser("run")
    drawing.add_argument("data")
    drawing.add_argument("set", choices=SETS)
    drawing.add_argument("out")
    drawing.add_argument("runs", nargs="+", metavar="RUN")
    drawing.add_argument("--how", nargs="+", default=[OWN])
    drawing.add_argument("-n", type=int, default=1000)
    parts.add_parser("table").add_argument("out")
    arguments = parser.parse_args()
    {"run": run, "table": table}[arguments.part](arguments)
