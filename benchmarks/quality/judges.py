"""Which second feature extractor? Each one must see images get worse, cheaply, and by other means than the first one.

    python -m benchmarks.quality.judges DATA OUT [--features efficientnet efficientnet:model=lite2 ...] [-n 1000]

DATA has classes. 5,000 of its images are the reference, and N others are made worse as in `degradations`, and by
exchanged colours. The table shows by how many spreads of equal sets each KID lies above 0. `wavelets` is a judge that
was trained on nothing. The script writes OUT/judges.json and .md.
"""

import argparse
import json
import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.lib.machine import machine
from benchmarks.quality.degradations import Pixels, Worse, collect, extract, variants
from unnoise.data.cache import open_data
from unnoise.evaluation import metrics
from unnoise.evaluation.features import Extracted, Extractor, open_extractor, resized
from unnoise.images import Uint8Images

REFERENCE = 5_000
DEFAULT = ["efficientnet", "efficientnet:model=lite2", "efficientnet:model=lite2,size=96", "wavelets"]
SIDE, ORIENTATIONS, SCALES, CELLS = 32, 4, 3, 4  # of the wavelets; cells along each side over which they are averaged
OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))  # brightness, red - green, yellow - blue


def gabor_filters() -> Tensor:
    """Return the real and then the imaginary parts of Morlet wavelets, one for each orientation: [2 o, 1, 7, 7]."""
    y, x = torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij")
    envelope, made = torch.exp(-(x**2 + y**2) / (2 * 1.6**2)), list[Tensor]()
    for turn in range(ORIENTATIONS):
        angle = math.pi * turn / ORIENTATIONS
        phase = 0.6 * math.pi * (x * math.cos(angle) + y * math.sin(angle))
        wave = torch.polar(envelope, phase)
        wave -= envelope * (wave.sum() / envelope.sum())  # it sums to zero
        made.append(wave / wave.abs().sum())
    stack = torch.stack(made)
    return torch.cat([stack.real, stack.imag])[:, None]


def moduli(x: Tensor, filters: Tensor) -> Tensor:
    """Return the modulus of each wavelet of each channel: [b, c, h, w] to [b, c o, h, w]."""
    b, c, h, w = x.shape
    padded = F.pad(x.reshape(b * c, 1, h, w), (3, 3, 3, 3), "replicate")
    real, imaginary = F.conv2d(padded, filters).chunk(2, dim=1)
    return (real**2 + imaginary**2).add(1e-8).sqrt().reshape(b, c * ORIENTATIONS, h, w)


def wavelets() -> Extractor:
    """Return an extractor that was trained on nothing: scattering of two orders, Bruna & Mallat 2013 (arXiv:1203.1513).

    The first order is kept in cells of the image, the second order is averaged over the whole image.
    """
    filters, opponent = gabor_filters(), torch.tensor(OPPONENT)

    def extract(pixels: Uint8Images) -> Extracted:
        x = torch.einsum("oc,bchw->bohw", opponent, resized(pixels, SIDE).contiguous())
        parts = [2 * F.adaptive_avg_pool2d(x, CELLS).flatten(1)]
        for scale in range(SCALES):
            first = moduli(x, filters)
            bright = F.adaptive_avg_pool2d(first[:, :ORIENTATIONS], CELLS).flatten(1)
            parts += [bright, F.adaptive_avg_pool2d(first[:, ORIENTATIONS:], 2).flatten(1)]
            if scale < SCALES - 1:
                second = moduli(F.avg_pool2d(first[:, :ORIENTATIONS], 2), filters)
                parts.append(second.mean((2, 3)))
            x = F.avg_pool2d(x, 2)
        wide = torch.cat([parts[0], 0.5 * (torch.cat(parts[1:], 1) + 0.003).log() + 2], 1)
        return 3 * wide, wide.new_zeros(len(wide), 0)

    about = {"network": "wavelets", "weights": "none", "resize": f"bilinear to {SIDE}"}
    count = extract(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8))[0].shape[1]
    return Extractor(extract, count, 0, about, cacheable=False)


JUDGES: dict[str, Any] = {"lite0": "efficientnet", "lite2": "efficientnet:model=lite2,size=96", "wavelets": wavelets}


def open_judge(name: str) -> Extractor:
    """Return the extractor of a judge of the trainings, or the one that a spec names."""
    features = JUDGES.get(name, name)
    return open_extractor(features) if isinstance(features, str) else features()


def worse_sets(data: Pixels, labels: np.ndarray, n: int) -> dict[tuple[str, str], Worse]:
    """Return the damaged sets of `degradations`, with one order of the classes, and exchanged colours."""
    found = variants(data, labels, n)
    made = {key: (lambda make=make: make()[:1]) for key, make in found.items()}
    if data.shape[1] == 3:
        x = data[:n]
        for share in (0.1, 0.25, 0.5, 1.0):
            few = round(share * n)
            made["colours exchanged", f"{share:.0%}"] = lambda few=few: [torch.cat([x[:few, [2, 0, 1]], x[few:]])]
    return made


def measure(extractor: Extractor, reference: Pixels, worse: dict[tuple[str, str], Worse]) -> list[dict]:
    """Return a row for each kind and strength: by how many spreads of equal sets the KID lies above 0."""
    real, rows, name = collect(extract(extractor, reference), reference), list[dict](), extractor.about["network"]
    for (kind, strength), make in worse.items():
        (pixels,) = make()
        begun = time.process_time()
        seen = extract(extractor, pixels)
        seconds = (time.process_time() - begun) / len(pixels)
        s = collect(seen, pixels)
        score, floor = metrics.kid(s.kept, real.kept), metrics.kid_floor(s, real)
        row = {"features": name, "kind": kind, "strength": strength, "kid": score.value, "interval": score.interval}
        rows.append({**row, "spreads": score.value / floor.standard_error, "ms": 1000 * seconds})
        print(name, kind, strength, f"{rows[-1]['spreads']:.1f}", flush=True)
    return rows


def format_table(rows: list[dict]) -> str:
    """Return a Markdown table: a row for each extractor and kind, and the milliseconds an image takes."""
    lines = ["| features | ms | made worse by | real | 1 | 2 | 3 | 4 | rises |"]
    lines.append("|---|---:|---|---:|---:|---:|---:|---:|---|")
    for name, kind in dict.fromkeys((r["features"], r["kind"]) for r in rows if r["kind"] != "real"):
        mine = [r for r in rows if r["features"] == name and r["kind"] in ("real", kind)]
        values = [r["spreads"] for r in mine]
        cost = median(r["ms"] for r in rows if r["features"] == name)
        rises = "yes" if values == sorted(values) else "no"
        lines.append(f"| {name} | {cost:.1f} | {kind} | {' | '.join(f'{v:.1f}' for v in values)} | {rises} |")
    return "\n".join([*lines, ""])


def main(arguments: argparse.Namespace) -> None:
    """Damage, score, and write the results."""
    folder, dataset = Path(arguments.out), open_data(arguments.data)
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(dataset))[: REFERENCE + 10 * arguments.n]
    everything, labels = torch.from_numpy(dataset.read(order)), dataset.labels(order)
    worse = worse_sets(everything[REFERENCE:], labels[REFERENCE:], arguments.n)
    rows = []
    for spec in arguments.features:
        extractor = open_judge(spec)
        rows += measure(extractor, everything[:REFERENCE], worse)
        found = {"machine": machine(), "data": dataset.fingerprint, "n": arguments.n, "rows": rows}
        (folder / "judges.json").write_text(json.dumps(found, indent=1))
        (folder / "judges.md").write_text(format_table(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--features", nargs="+", default=DEFAULT)
    parser.add_argument("-n", type=int, default=1000, help="images of each kind and strength")
    main(parser.parse_args())
