"""Quality against the number of network evaluations, for every sampler: one run, one judge, the same seeds.

    python benchmarks/samplers.py RUN TRAIN.npz HELD-OUT.npz OUT [N]

draws N pictures (2000) a cell, and writes OUT/samplers.json, OUT/samplers.md and OUT/samplers.png. KID x 1000 against
the held-out pictures, in the features of a classifier trained here on TRAIN.npz; smaller is better.
"""

import json
import sys
import time
from pathlib import Path

import torch
from judge import accuracy, features, kid, pictures, train
from matplotlib import colormaps
from matplotlib.figure import Figure

import unnoise
from unnoise import registry

BUDGETS = (5, 10, 20, 50, 250)
SAMPLERS = (
    "ddpm",
    "ddpm:variance=large",
    "ddim",
    "dpmpp_2m",
    "dpmpp_3m",
    "heun",
    "heun:churn=10",
    "dpmpp_2m_sde",
    "euler_maruyama",
    "predictor_corrector",
)
WITH_KARRAS = ("ddpm", "ddim", "dpmpp_3m", "heun", "heun:churn=10", "dpmpp_2m_sde")
SPACINGS = ("leading", "linspace", "quadratic", "log_snr", "karras")


def draw(run: unnoise.Run, n: int, **how: object) -> tuple[torch.Tensor, float]:
    """Pictures, and the evaluations each took."""
    calls, network = 0, run.model.backbone

    def count(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal calls
        calls += len(inputs[0])

    with_count = network.register_forward_pre_hook(count)
    try:
        images = unnoise.sample(run, n, batch=1000, **how).cpu()
    finally:
        with_count.remove()
    return images, calls / n


def main(path: str, train_file: str, held_out: str, out: str, n: int = 2000) -> None:
    run, folder = unnoise.load(path), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    device, names = str(run.model.device), list(run.card.classes)
    images, labels = pictures(Path(train_file), names)
    real, real_labels = pictures(Path(held_out), names)
    judge = train(images, labels, device)
    known = features(judge, real)
    floor = kid(features(judge, images[torch.randperm(len(images))[:n]]), known)
    print(f"judge: {accuracy(judge, real, real_labels):.1%} of the held-out pictures; KID of {n} real ones {floor}")
    rows = []
    for spec, spacing, budget in (
        [(s, "trailing", b) for s in SAMPLERS for b in BUDGETS]
        + [("dpmpp_2m", spacing, budget) for spacing in SPACINGS for budget in BUDGETS[:4]]
        + [(spec, "karras", budget) for spec in WITH_KARRAS for budget in BUDGETS]
    ):
        each = registry.sampler.declared(spec)["evaluations"]
        steps, begun = -(-budget // each), time.monotonic()
        try:
            drawn, evaluations = draw(run, n, sampler=spec, spacing=spacing, steps=steps)
        except unnoise.InputError as error:  # such as a first level that still holds much of the image
            print(f"{spec} {spacing} {budget}: {error}")
            continue
        seconds, finite = time.monotonic() - begun, bool(drawn.isfinite().all())
        value, error = kid(features(judge, drawn), known)
        row = {"sampler": spec, "spacing": spacing, "budget": budget, "steps": steps, "evaluations": evaluations}
        rows.append(row | {"kid": value, "error": error, "finite": finite, "seconds": seconds})
        print(
            f"{spec:24} {spacing:9} {evaluations:6.1f}  KID x 1000 {1000 * value:7.2f} +- {1000 * error:.2f}",
            flush=True,
        )
    about = {"run": dict(run.card.data), "backbone": run.card.backbone, "n": n, "floor": floor, "device": device}
    (folder / "samplers.json").write_text(json.dumps({**about, "rows": rows}, indent=1))
    (folder / "samplers.md").write_text(table(rows, floor))
    plot(rows, folder / "samplers.png")


def table(rows: list[dict], floor: tuple[float, float]) -> str:
    """Markdown: a row for each sampler (and spacing), a column for each budget."""
    kinds = list(dict.fromkeys((row["sampler"], row["spacing"]) for row in rows))
    lines = ["| sampler | spacing | " + " | ".join(map(str, BUDGETS)) + " |", "|---|---|" + "---:|" * len(BUDGETS)]
    for kind in kinds:
        found = {row["budget"]: row for row in rows if (row["sampler"], row["spacing"]) == kind}
        cells = [
            f"{1000 * found[b]['kid']:.2f} ± {1000 * found[b]['error']:.2f}" if b in found else "" for b in BUDGETS
        ]
        lines.append(f"| {kind[0]} | {kind[1]} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Real pictures: {1000 * floor[0]:.2f} ± {1000 * floor[1]:.2f}.", ""])


def plot(rows: list[dict], path: Path) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for spec, colour in zip(SAMPLERS, colormaps["tab20"].colors, strict=False):
        found = [row for row in rows if row["sampler"] == spec and row["spacing"] == "trailing"]
        if not found:
            continue
        axes.plot(
            [row["evaluations"] for row in found],
            [1000 * row["kid"] for row in found],
            marker="o",
            label=spec,
            color=colour,
        )
    axes.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel="KID x 1000 (smaller is better)")
    axes.set_xticks(BUDGETS, map(str, BUDGETS))
    axes.legend(ncols=2)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:5], *map(int, sys.argv[5:6]))
