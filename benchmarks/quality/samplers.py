"""Quality against the number of network evaluations, for every sampler: one run, one judge, the same seeds.

    python benchmarks/samplers.py RUN TRAIN.npz HELD-OUT.npz OUT [-n 1000] [--spacings karras] [--samplers ddim unipc]

writes OUT/samplers.json, OUT/samplers.md and OUT/samplers.png. Started again, it goes on with the cells that are not in
OUT/samplers.json yet. KID x 1000 against the held-out pictures, in the features of a classifier trained here on
TRAIN.npz; smaller is better.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from judge import accuracy, features, kept, kid, pictures
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

import unnoise
from unnoise import registry

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
TOLERANCES = (0.3, 0.1, 0.05, 0.02, 0.003)  # of adaptive: its evaluations are what they take


def draw(run: unnoise.Run, n: int, **how: object) -> tuple[torch.Tensor, float]:
    """Pictures, and the evaluations each took."""
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


def cells(samplers: list[str], spacings: list[str]) -> Iterator[dict[str, Any]]:
    """What is measured, the cheap first: each sampler with each spacing, and adaptive by its tolerance."""
    for budget, tolerance in zip(BUDGETS, TOLERANCES, strict=True):
        for spacing, spec in product(spacings, samplers):
            each = registry.sampler.declared(spec)["evaluations"]
            yield {"sampler": spec, "spacing": spacing, "steps": -(-budget // each), "budget": budget}
        yield {"sampler": f"adaptive:tolerance={tolerance}", "spacing": "trailing", "steps": 1, "budget": budget}


def main(arguments: argparse.Namespace) -> None:
    run, folder, n = unnoise.load(arguments.run), Path(arguments.out), arguments.n
    folder.mkdir(parents=True, exist_ok=True)
    device, names = str(run.model.device), list(run.card.classes)
    images, labels = pictures(Path(arguments.train), names)
    real, real_labels = pictures(Path(arguments.held_out), names)
    judge = kept(folder / "judge.safetensors", images, labels, device)
    known = features(judge, real)
    torch.manual_seed(0)
    about = {
        "run": dict(run.card.data),
        "trained": run.card.training["images"],
        "backbone": run.card.backbone,
        "n": n,
        "device": device,
        "judge": accuracy(judge, real, real_labels),
        "floor": kid(features(judge, images[torch.randperm(len(images))[:n]]), known),
    }
    results = folder / "samplers.json"
    before = json.loads(results.read_text()) if results.exists() else {**about, "rows": []}
    if before["run"] != about["run"] or before["n"] != n or before["trained"] != about["trained"]:
        raise SystemExit(f"{results} is of another run or number of pictures: choose another OUT")
    print(f"judge: {about['judge']:.1%} of the held-out pictures; KID of {n} real ones {about['floor']}")
    rows = before["rows"]
    for cell in cells(arguments.samplers, arguments.spacings):
        if any(cell.items() <= row.items() for row in rows):
            continue
        begun = time.monotonic()
        try:
            drawn, evaluations = draw(run, n, **{key: value for key, value in cell.items() if key != "budget"})
        except unnoise.InputError as error:  # such as a first level that still holds much of the image
            print(f"{cell}: {error}")
            continue
        seconds = time.monotonic() - begun
        value, error = kid(features(judge, drawn), known)
        correct = accuracy(judge, drawn, torch.arange(n) % len(names))
        found = {"evaluations": evaluations, "kid": value, "error": error, "accuracy": correct}
        rows.append(cell | found | {"finite": bool(drawn.isfinite().all()), "seconds": seconds})
        print(f"{cell['sampler']:24} {cell['spacing']:9} {evaluations:6.1f}  {shown(rows[-1])}", flush=True)
        results.write_text(json.dumps({**about, "rows": rows}, indent=1))
        (folder / "samplers.md").write_text(table(rows, about["floor"]))
        plot(rows, folder / "samplers.png")


def shown(row: dict[str, Any]) -> str:
    return f"{1000 * row['kid']:.0f} ± {1000 * row['error']:.0f}"


def table(rows: list[dict[str, Any]], floor: tuple[float, float]) -> str:
    """Markdown: a row for each sampler and spacing, a column for each budget; adaptive with its own evaluations."""
    fixed = [row for row in rows if not row["sampler"].startswith("adaptive")]
    lines = ["| sampler | spacing | " + " | ".join(map(str, BUDGETS)) + " |", "|---|---|" + "---:|" * len(BUDGETS)]
    for kind in dict.fromkeys((row["sampler"], row["spacing"]) for row in fixed):
        found = {row["budget"]: row for row in fixed if (row["sampler"], row["spacing"]) == kind}
        each = [shown(found[budget]) if budget in found else "" for budget in BUDGETS]
        lines.append(f"| {kind[0]} | {kind[1]} | " + " | ".join(each) + " |")
    own = [f"{row['sampler']} takes {row['evaluations']:.0f}: {shown(row)}" for row in rows if row not in fixed]
    return "\n".join([*lines, "", *own, f"Real pictures: {1000 * floor[0]:.0f} ± {1000 * floor[1]:.0f}.", ""])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each of the spacings; adaptive, which makes its own levels, in each."""
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
    parser.add_argument("-n", type=int, default=2000, help="pictures a cell")
    parser.add_argument("--spacings", nargs="+", default=["trailing", "karras"])
    parser.add_argument("--samplers", nargs="+", default=[*SAMPLERS])
    main(parser.parse_args())
