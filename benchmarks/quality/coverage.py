"""Does an interval of 95 % hold the truth in 95 % of draws? Scores sets that are drawn from one large set of features.

    python -m benchmarks.quality.coverage DATA OUT [--sizes 100 500 2000] [--ratios 1 5] [--repeats 500]
    python -m benchmarks.quality.coverage DATA OUT --scores fid --sizes 1000 2000 --repeats 200

DATA are images, as `unnoise eval` takes them, of which all features are extracted once. In each repetition, n of them
and n times the ratio of others are drawn. "equal" leaves both sets as they are, and "shifted" and "far" change the
features of one of them. An interval must hold the mean of all repetitions (for KID of equal sets: 0), and the interval
of equal sets must hold the score itself. The intervals of FID begin at three images for each feature. A share of 500
repetitions has a standard error of 0.01. OUT/coverage.json is written after each row.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.lib.machine import machine
from unnoise.evaluation.coverage import repeat, summarize
from unnoise.evaluation.features import open_extractor
from unnoise.evaluation.image_sets import dataset_images, every_batch, open_images
from unnoise.files import write_json

CHANGES: dict[str, Callable[..., Tensor]] = {  # of features [n, d] by a fixed direction [d]
    "equal": lambda x, direction: x,  # noqa: ARG005  # the others need it
    "shifted": lambda x, direction: 1.05 * x + 0.05 * direction,
    "far": lambda x, direction: 1.3 * x + 0.2 * direction,
}


def extract(data: str, folder: Path) -> Tensor:
    """Return the features of all images [n, d]; they are kept in the folder."""
    kept = folder / "features.npy"
    if not kept.exists():
        extractor, dataset = open_extractor("efficientnet"), open_images(data)
        with torch.inference_mode():
            parts = [extractor(pixels)[0] for pixels in dataset_images(dataset, None, 0, 256).stream(every_batch)]
        np.save(kept, torch.cat(parts).numpy())
    return torch.from_numpy(np.load(kept))


def main(arguments: argparse.Namespace) -> None:
    """Simulate each case that is not in the result yet, and print a row of the table for each score."""
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    features, place = extract(arguments.data, folder), folder / "coverage.json"
    direction = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(1))
    rows = json.loads(place.read_text())["rows"] if place.exists() else []
    print("| score | images | reference | sets | mean | interval holds it | that of equal sets holds the score |")
    print("|---|---:|---:|---|---:|---:|---:|")
    for n, ratio, change in product(arguments.sizes, arguments.ratios, CHANGES):
        case = {"n": n, "reference": round(n * ratio), "sets": change, "repeats": arguments.repeats}
        names = [name for name in arguments.scores if case | {"of": name} not in [row["case"] for row in rows]]
        if n + case["reference"] <= len(features):
            for name in names:
                moved = partial(CHANGES[change], direction=direction)
                draws = [*repeat(features, n, case["reference"], moved, [name], arguments.repeats)]
                rows += [row | {"case": case | {"of": name}} for row in summarize(draws, equal=change == "equal")]
            write_json(place, {"images": len(features), "rows": rows, "machine": machine("unnoise")})
        for row in rows:
            if {key: value for key, value in row["case"].items() if key != "of"} == case:
                print(format_row(row), flush=True)


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the Markdown table."""
    case, known = row["case"], [f"{row[name]:.3f}" if name in row else "" for name in ("holds", "equal_holds")]
    cells = (row["score"], f"{case['n']:,}", f"{case['reference']:,}", case["sets"], f"{row['mean']:.4g}", *known)
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument in ("data", "out"):
        parser.add_argument(argument)
    parser.add_argument("--scores", nargs="+", default=["kid", "neighbours"], help="of kid, neighbours and fid")
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 500, 2000], help="images that are scored")
    parser.add_argument("--ratios", nargs="+", type=float, default=[1, 5], help="reference images for each of them")
    parser.add_argument("--repeats", type=int, default=500)
    main(parser.parse_args())
