"""How good is each sampler with a number of network evaluations? One run, one judge, the same seeds.

    python -m benchmarks.quality.samplers RUN TRAIN.npz HELD-OUT.npz OUT
                                          [-n 1000] [--spacings karras] [--samplers ddim unipc]

The script writes OUT/samplers.json, OUT/samplers.md and OUT/samplers.png. If you start it again, it measures only what
is not in OUT/samplers.json yet. KID x 1000 is against the held-out images, in the features of a classifier that the
script trains on TRAIN.npz; smaller is better.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

import unnoise
from benchmarks.lib.judge import Judge, accuracy, judge_features, open_judge, read_images
from benchmarks.quality.quality_per_minute import format_thousandfold
from unnoise import registry
from unnoise.evaluation.metrics import kid
from unnoise.evaluation.scores import Score

BUDGETS = (5, 10, 20, 50, 250)
SAMPLERS = (
    "ddpm",
    "ddpm:variance=large",
    "ddim",
    "dpmpp_2m",
    "dpmpp_3m",
    "unipc",
    "heun",
    "heun:churn=10",
    "dpmpp_2m_sde",
    "euler_maruyama",
    "predictor_corrector",
)
TOLERANCES = (0.3, 0.1, 0.05, 0.02, 0.003)  # of the sampler adaptive, which chooses its evaluations itself


def draw(run: unnoise.Run, n: int, **how: object) -> tuple[torch.Tensor, float]:
    """Draw n images; return them and the network evaluations for each."""
    calls, network = 0, run.model.backbone

    def count(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal calls
        calls += len(inputs[0])

    with_count = network.register_forward_pre_hook(count)
    try:
        images = unnoise.sample(run, n, batch=250, **how).cpu()
    finally:
        with_count.remove()
    return images, calls / n


def settings_to_measure(samplers: list[str], spacings: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what is measured, the cheap first: each sampler with each spacing, and adaptive by its tolerance."""
    for budget, tolerance in zip(BUDGETS, TOLERANCES, strict=True):
        for spacing, spec in product(spacings, samplers):
            each = registry.sampler.declared(spec)["evaluations"]
            yield {"sampler": spec, "spacing": spacing, "steps": -(-budget // each), "budget": budget}
        yield {"sampler": f"adaptive:tolerance={tolerance}", "spacing": "trailing", "steps": 1, "budget": budget}


def main(arguments: argparse.Namespace) -> None:
    """Measure what is not measured yet; write after each setting."""
    run, folder = unnoise.load(arguments.run), Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    names = list(run.card.classes)
    train, held_out = (read_images(Path(path), names) for path in (arguments.train, arguments.held_out))
    judge = open_judge(folder / "judge.safetensors", *train, str(run.model.device))
    known = judge_features(judge, held_out[0])
    about = describe(run, judge, arguments.n, held_out)
    about["floor"] = floor_of(judge, train[0], known, arguments.n)
    results = folder / "samplers.json"
    before = json.loads(results.read_text()) if results.exists() else {**about, "rows": []}
    if any(before[name] != about[name] for name in ("run", "n", "trained")):
        raise SystemExit(f"{results} is of another run or number of images: choose another OUT")
    print(f"judge: {about['judge']:.1%} of the held-out images; KID of {arguments.n} real ones {about['floor']}")
    rows = before["rows"]
    for settings in settings_to_measure(arguments.samplers, arguments.spacings):
        if any(settings.items() <= row.items() for row in rows):
            continue
        try:
            rows.append(settings | measure(run, judge, known, arguments.n, settings))
        except unnoise.InputError as error:  # such as a first level that still holds much of the image
            print(f"{settings}: {error}")
            continue
        evaluations = rows[-1]["evaluations"]
        told = f"{settings['sampler']:24} {settings['spacing']:9} {evaluations:6.1f}  {format_kid(rows[-1])}"
        print(told, flush=True)
        results.write_text(json.dumps({**about, "rows": rows}, indent=1))
        (folder / "samplers.md").write_text(format_table(rows, about["floor"]))
        plot(rows, folder / "samplers.png")


def describe(run: unnoise.Run, judge: Judge, n: int, held_out: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
    """Return what the results depend on."""
    return {
        "run": dict(run.card.data),
        "trained": run.card.training["images"],
        "backbone": run.card.backbone,
        "n": n,
        "device": str(run.model.device),
        "judge": accuracy(judge, *held_out),
    }


def floor_of(judge: Judge, images: torch.Tensor, known: torch.Tensor, n: int) -> Score:
    """Return the KID of n real images."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n]
    return kid(judge_features(judge, images[chosen]), known)


def measure(run: unnoise.Run, judge: Judge, known: torch.Tensor, n: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Draw n images, every class in turn, and return their scores."""
    begun = time.monotonic()
    drawn, evaluations = draw(run, n, **{key: value for key, value in settings.items() if key != "budget"})
    seconds = time.monotonic() - begun
    score = kid(judge_features(judge, drawn), known)
    correct = accuracy(judge, drawn, torch.arange(n) % len(run.card.classes))
    found = {"evaluations": evaluations, "kid": score.value, "interval": score.interval, "accuracy": correct}
    return found | {"finite": bool(drawn.isfinite().all()), "seconds": seconds}


def format_kid(row: dict[str, Any]) -> str:
    """Return KID x 1000 and its 95 % interval."""
    return format_thousandfold(row["kid"], *row["interval"])


def format_table(rows: list[dict[str, Any]], floor: Score) -> str:
    """Return a Markdown table: a row for each sampler and spacing, a column for each number of evaluations."""
    fixed = [row for row in rows if not row["sampler"].startswith("adaptive")]
    lines = ["| sampler | spacing | " + " | ".join(map(str, BUDGETS)) + " |", "|---|---|" + "---:|" * len(BUDGETS)]
    for kind in dict.fromkeys((row["sampler"], row["spacing"]) for row in fixed):
        found = {row["budget"]: row for row in fixed if (row["sampler"], row["spacing"]) == kind}
        each = [format_kid(found[budget]) if budget in found else "" for budget in BUDGETS]
        lines.append(f"| {kind[0]} | {kind[1]} | " + " | ".join(each) + " |")
    own = [f"{row['sampler']} takes {row['evaluations']:.0f}: {format_kid(row)}" for row in rows if row not in fixed]
    return "\n".join([*lines, "", *own, f"Real images: {format_thousandfold(floor.value, *floor.interval)}.", ""])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot a panel for each spacing; adaptive, which makes its own levels, is in each."""
    spacings = list(dict.fromkeys(row["spacing"] for row in rows if not row["sampler"].startswith("adaptive")))
    figure = Figure(figsize=(6 * len(spacings) + 2, 5), layout="constrained")
    panels = figure.subplots(1, len(spacings), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(row["sampler"].partition(":tolerance")[0] for row in rows))
    for axes, spacing in zip(panels, spacings, strict=True):
        for name, colour in zip(names, colormaps["tab20"].colors, strict=False):
            found = [
                row
                for row in rows
                if row["sampler"].partition(":tolerance")[0] == name
                and (row["spacing"] == spacing or name == "adaptive")
            ]
            across, up = [row["evaluations"] for row in found], [1000 * row["kid"] for row in found]
            axes.plot(across, up, marker="o", label=name, color=colour)
        axes.set(xscale="log", yscale="log", xlabel="network evaluations", title=f"spacing {spacing}")
        axes.set_xticks(BUDGETS, map(str, BUDGETS))
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.yaxis.set_minor_formatter(ScalarFormatter())
        axes.grid(visible=True, alpha=0.25)
    panels[0].set_ylabel("KID x 1000 (smaller is better)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "train", "held_out", "out"):
        parser.add_argument(name)
    parser.add_argument("-n", type=int, default=2000, help="images for each setting")
    parser.add_argument("--spacings", nargs="+", default=["trailing", "karras"])
    parser.add_argument("--samplers", nargs="+", default=[*SAMPLERS])
    main(parser.parse_args())
