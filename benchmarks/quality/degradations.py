"""Do the scores mean something? They must rise if images get worse, and stay at the floor for real images.

    python -m benchmarks.quality.degradations DATA OUT [--features efficientnet:size=64 ...] [-n 2000] [--splits 30]

DATA has classes. 10,000 of its images are the reference. N others are blurred, noised, compressed, reduced to fewer
classes, or replaced by copies of a few, at four strengths each. It matters which classes are removed: the score is the
mean over several orders. Reference and others are drawn anew SPLITS times, to see how often real images score within
the interval of the floor. The script writes OUT/degradations.json, .md and .png.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from unnoise import registry
from unnoise.data.cache import open_data
from unnoise.evaluation import metrics
from unnoise.evaluation.damage import blur, jpeg, noise
from unnoise.evaluation.features import Extracted, Extractor
from unnoise.evaluation.scores import Score
from unnoise.evaluation.statistics import Statistics
from unnoise.images import grid

Pixels = torch.Tensor  # uint8 [n, c, h, w]
REFERENCE = 10_000
ORDERS = 4  # orders in which classes are removed
Worse = Callable[[], list[Pixels]]  # sets whose scores are averaged


def variants(data: Pixels, labels: np.ndarray, n: int) -> dict[tuple[str, str], Worse]:
    """Return functions that make sets of n degraded images, by (kind, strength); the first set is unchanged."""
    x = data[:n]
    orders = [np.random.default_rng(i).permutation(int(labels.max()) + 1) for i in range(ORDERS)]
    made: dict[tuple[str, str], Worse] = {("real", "0"): lambda: [x]}
    for radius in (0.4, 0.6, 0.8, 1.2):
        made["blur", f"{radius} px"] = lambda radius=radius: [blur(x, radius)]
    for std in (0.02, 0.04, 0.08, 0.16):
        made["noise", f"{std}"] = lambda std=std: [noise(x, std)]
    for quality in (90, 70, 50, 20):
        made["JPEG", f"quality {quality}"] = lambda quality=quality: [jpeg(x, quality)]
    for gone in (1, 3, 5, 8):
        made["classes removed", f"{gone} of 10"] = lambda gone=gone: [
            data[np.isin(labels, order[gone:])][:n] for order in orders
        ]
    for few in (4, 16, 64, 256):
        made["copies", f"{few} of each"] = lambda few=few: [x[: -(-n // few)].repeat(few, 1, 1, 1)[:n]]
    return made


def collect(seen: Extracted, pixels: Pixels) -> Statistics:
    """Return the statistics of images whose features are known."""
    features, probabilities = seen
    s = Statistics.empty(features.shape[1], probabilities.shape[1], pixels.shape[1])
    s.add(features, probabilities, pixels)
    return s


def extract(extractor: Extractor, pixels: Pixels) -> Extracted:
    """Return the features and class probabilities of images."""
    with torch.inference_mode():
        features, probabilities = zip(*(extractor(part) for part in pixels.split(100)), strict=True)
    return torch.cat(features), torch.cat(probabilities)


def measure(extractor: Extractor, reference: Pixels, worse: dict[tuple[str, str], Worse], n: int) -> list[dict]:
    """Return a row for each kind, strength and score."""
    spec, rows = extractor.about["network"], []
    real = collect(extract(extractor, reference), reference)
    floors = dict[str, Score]()
    for (kind, strength), make in worse.items():
        sets = [collect(extract(extractor, pixels), pixels) for pixels in make()]
        assert all(s.n == n for s in sets), "too few images"
        if kind == "real":  # the first one
            floors = {"kid": metrics.kid_floor(sets[0], real), "fid": metrics.fid_floor(sets[0], real)}
        scores = {"kid": [metrics.kid(s.kept, real.kept) for s in sets], "fid": [metrics.fid(s, real) for s in sets]}
        for name, found in scores.items():
            floor, value = floors[name], sum(score.value for score in found) / len(found)
            rows.append({"features": spec, "kind": kind, "strength": strength, "score": name, "value": value})
            error = math.hypot(*(score.standard_error for score in found)) / len(found)
            rows[-1] |= {"error": error, "each": [score.value for score in found]}
            rows[-1] |= {"floor": floor.value, "spread": floor.standard_error}
        print(spec, kind, strength, *(f"{row['score']} {row['value']:.4g}" for row in rows[-2:]), flush=True)
    return rows


def calibration(extractor: Extractor, pixels: Pixels, n: int, splits: int) -> dict[str, Any]:
    """Return by how many spreads n real images lie above the floor of others, for each split."""
    features, probabilities = extract(extractor, pixels)
    above: dict[str, list[float]] = {"kid": [], "fid": []}
    for split in range(splits):
        order = torch.from_numpy(np.random.default_rng(split).permutation(len(pixels)))
        real, s = (
            collect((features[rows], probabilities[rows]), pixels[rows])
            for rows in (order[:REFERENCE], order[REFERENCE : REFERENCE + n])
        )
        for name, score, floor in (
            ("kid", metrics.kid(s.kept, real.kept), metrics.kid_floor(s, real)),
            ("fid", metrics.fid(s, real), metrics.fid_floor(s, real)),
        ):
            above[name].append((score.value - floor.value) / floor.standard_error)
        print("split", split, *(f"{name} {values[-1]:.2f}" for name, values in above.items()), flush=True)
    return {"features": extractor.about["network"], "above": above}


def format_calibrations(calibrations: list[dict[str, Any]]) -> str:
    """Return in words how often real images lay within the interval of the floor."""
    lines = []
    for found in calibrations:
        for name, values in found["above"].items():
            x = np.array(values)
            lines.append(
                f"{found['features']}, {name} of real images, {len(x)} splits: {x.mean():.2f} spreads above the "
                f"floor on average, standard deviation {x.std(ddof=1):.2f}; {(abs(x) < 1.96).sum()} within 1.96"
            )
    return "\n".join([*lines, ""])


def format_table(rows: list[dict]) -> str:
    """Return a Markdown table: by how many spreads each strength lies above the floor."""
    lines = ["| features | score | kind | real | 1 | 2 | 3 | 4 | rises |", "|---|---|---|---:|---:|---:|---:|---:|---|"]
    for spec, score, kind in dict.fromkeys((r["features"], r["score"], r["kind"]) for r in rows if r["kind"] != "real"):
        kinds = [r for r in rows if (r["features"], r["score"]) == (spec, score) and r["kind"] in ("real", kind)]
        values = [r["value"] for r in kinds]
        rises = "yes" if values == sorted(values) else "no"
        cells = " | ".join(f"{(r['value'] - r['floor']) / r['spread']:.1f}" for r in kinds)
        lines.append(f"| {spec} | {score} | {kind} | {cells} | {rises} |")
    return "\n".join([*lines, ""])


def plot(rows: list[dict], path: Path) -> None:
    """Plot both scores against the strength, for each feature extractor."""
    specs = list(dict.fromkeys(r["features"] for r in rows))
    figure = Figure(figsize=(11, 3.4 * len(specs)), layout="constrained")
    for axes, (spec, score) in zip(
        figure.subplots(len(specs), 2).flat, [(s, k) for s in specs for k in ("kid", "fid")], strict=True
    ):
        mine = [r for r in rows if (r["features"], r["score"]) == (spec, score)]
        for kind in dict.fromkeys(r["kind"] for r in mine if r["kind"] != "real"):
            found = [r for r in mine if r["kind"] in ("real", kind)]
            axes.errorbar(
                range(5), [r["value"] for r in found], yerr=[1.96 * r["error"] for r in found], marker="o", label=kind
            )
        floor, spread = mine[0]["floor"], mine[0]["spread"]
        axes.axhspan(floor - 1.96 * spread, floor + 1.96 * spread, color="#999999", alpha=0.3, label="real images")
        axes.set(title=f"{score}, {spec}", xlabel="strength")
        axes.set_xticks(range(5), ["real", 1, 2, 3, 4])
        linear = max(floor + 2 * spread, 1e-6)
        axes.set_yscale("symlog", linthresh=linear)
        axes.set_ylim(bottom=-1.2 * linear)
        axes.set_yticks([0, *(10.0**k for k in range(math.ceil(math.log10(linear)), 4) if 10**k < axes.get_ylim()[1])])
        axes.grid(visible=True, alpha=0.25)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=110)


def main(arguments: argparse.Namespace) -> None:
    """Degrade, score, and write the results."""
    folder, n = Path(arguments.out), arguments.n
    folder.mkdir(parents=True, exist_ok=True)
    dataset = open_data(arguments.data)
    order = np.random.default_rng(0).permutation(len(dataset))
    everything, labels = torch.from_numpy(dataset.read(order)), dataset.labels(order)
    worse = variants(everything[REFERENCE:], labels[REFERENCE:], n)
    rows, calibrations = [], []
    for spec in arguments.features:
        extractor = registry.features.get(spec)()
        rows += measure(extractor, everything[:REFERENCE], worse, n)
        if arguments.splits:
            calibrations.append(calibration(extractor, everything, n, arguments.splits))
    found = {"data": dataset.fingerprint, "n": n, "rows": rows, "calibrations": calibrations}
    (folder / "degradations.json").write_text(json.dumps(found, indent=1))
    (folder / "degradations.md").write_text(format_table(rows) + "\n" + format_calibrations(calibrations))
    plot(rows, folder / "degradations.png")
    shown = torch.cat([make()[0][:8] for make in worse.values()])
    grid(shown / 127.5 - 1, dataset.mode, columns=8).save(folder / "degraded.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--features", nargs="+", default=["efficientnet"])
    parser.add_argument("-n", type=int, default=2000, help="images of each kind and strength")
    parser.add_argument("--splits", type=int, default=30)
    main(parser.parse_args())
