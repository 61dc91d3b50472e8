"""Does `unnoise doctor` name the right fault? Faults are planted into real images, in two strengths each.

    python -m benchmarks.quality.doctor planted NAME DATA OUT [--size 32] [-n 1000] [--real 2000]
    python -m benchmarks.quality.doctor table OUT

N images of DATA get a fault and are compared with other images of DATA. Three sets stay as they are: nothing may be
found in them. A fault is named right if it is the first finding, or, if it is one that KID does not rise from, if it is
among the findings. `planted` writes OUT/NAME.json, and `table` prints all files there as a table, with the trainings
of `benchmarks.quality.doctor_trainings`.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unnoise.data.cache import open_data
from unnoise.evaluation.colours import stretch_colours
from unnoise.evaluation.damage import blur, jpeg, noise
from unnoise.evaluation.diagnosis import diagnose, features, open_sets
from unnoise.evaluation.features import fitting, open_extractor
from unnoise.evaluation.modes import cluster, nearest
from unnoise.evaluation.spectrum import make_blocks, to_pixels
from unnoise.progress import silent

Pixels = torch.Tensor  # uint8 [n, c, h, w]
Plant = Callable[[Pixels], Pixels]
POOL = 4_000  # images that copies are made of, at most
CLEAN = 3  # sets that stay as they are


def stretch(x: Pixels, factor: float) -> Pixels:
    """Return images whose values are `factor` times as far from gray."""
    return to_pixels(128 + factor * (x.double() - 128))


def shift(x: Pixels, channel: slice, steps: float) -> Pixels:
    """Return images with channels that are brighter by a number of steps."""
    y = x.double()
    y[:, channel] += steps
    return to_pixels(y)


def checkerboard(x: Pixels, steps: float) -> Pixels:
    """Return images with a checkerboard of single pixels on them."""
    down, right = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None]
    return to_pixels(x + steps * (1 - 2 * ((down + right) % 2)))


def blocks(x: Pixels, period: int, share: float) -> Pixels:
    """Return images that are moved towards the means of blocks."""
    return make_blocks(x, period, (period - 1, period - 1), share)


def through(x: Pixels, parts: float) -> Pixels:
    """Return images that were shrunk to a part of their size, and enlarged again."""
    side = [max(1, round(length / parts)) for length in x.shape[-2:]]
    small = torch.nn.functional.interpolate(x.double(), side, mode="bilinear", antialias=True)
    return to_pixels(torch.nn.functional.interpolate(small, x.shape[-2:], mode="bicubic"))


def motion(x: Pixels, length: int) -> Pixels:
    """Return images that moved to the right while they were taken."""
    wide = torch.nn.functional.pad(x.double(), (length - 1, 0, 0, 0), mode="replicate")
    return to_pixels(wide.unfold(-1, length, 1).mean(dim=-1))


def soft_grain(x: Pixels, steps: float) -> Pixels:
    """Return images with noise whose grains are about two pixels wide."""
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    grains = torch.nn.functional.avg_pool2d(normal, 2, stride=1, padding=1)[..., : x.shape[-2], : x.shape[-1]]
    return to_pixels(x + 2 * steps * grains)


def gains(x: Pixels, red: float, blue: float) -> Pixels:
    """Return images whose red and blue are multiplied, as by a wrong white balance."""
    return to_pixels(x * torch.tensor([red, 1.0, blue], dtype=torch.float64)[:, None, None])


# name -> (finding that is right, mild, strong)
OF_PIXELS: dict[str, tuple[str, Plant, Plant]] = {
    "grid of 2 px, 3 / 12 steps": ("grid", lambda x: checkerboard(x, 3), lambda x: checkerboard(x, 12)),
    "blocks of 4 px, half / whole": ("blocks 4", lambda x: blocks(x, 4, 0.5), lambda x: blocks(x, 4, 1)),
    "blocks of 8 px, a quarter / half": ("blocks 8", lambda x: blocks(x, 8, 0.25), lambda x: blocks(x, 8, 0.5)),
    "JPEG 30 / 10": ("jpeg", lambda x: jpeg(x, 30), lambda x: jpeg(x, 10)),
    "blur of 0.5 / 1 px": ("haze", lambda x: blur(x, 0.5), lambda x: blur(x, 1.0)),
    "noise of 2 / 8 %": ("grain", lambda x: noise(x, 0.02), lambda x: noise(x, 0.08)),
    "too bright by 24 / 48 steps": (
        "brightness",
        lambda x: shift(x, slice(None), 24),
        lambda x: shift(x, slice(None), 48),
    ),
    "contrast of 70 / 50 %": ("contrast", lambda x: stretch(x, 0.7), lambda x: stretch(x, 0.5)),
    "contrast of 140 / 200 %, clipped": ("contrast", lambda x: stretch(x, 1.4), lambda x: stretch(x, 2)),
    "upside down / a quarter turn": ("orientation", lambda x: x.flip(-2), lambda x: x.rot90(1, (-2, -1))),
    "negative": ("channels", lambda x: 255 - x, lambda x: 255 - x),
    "to 2 / 3 or half of the size and back": ("haze", lambda x: through(x, 1.5), lambda x: through(x, 2)),
    "motion of 2 / 4 px": ("haze", lambda x: motion(x, 2), lambda x: motion(x, 4)),
    "grain of 2 px, 8 / 20 steps": ("grain", lambda x: soft_grain(x, 8), lambda x: soft_grain(x, 20)),
}
OF_COLOURS: dict[str, tuple[str, Plant, Plant]] = {
    "red by 12 / 40 steps": ("tint", lambda x: shift(x, slice(0, 1), 12), lambda x: shift(x, slice(0, 1), 40)),
    "colours of 60 / 20 %": ("colourfulness", lambda x: stretch_colours(x, 0.6), lambda x: stretch_colours(x, 0.2)),
    "white balance, 10 / 30 %": ("tint", lambda x: gains(x, 1.1, 0.9), lambda x: gains(x, 1.3, 0.7)),
    "channels exchanged, BGR / GRB": ("channels", lambda x: x.flip(1), lambda x: x[:, [1, 0, 2]]),
}


class Data:
    """Images of a dataset: those that get faults, those that they are compared with, and more to copy."""

    def __init__(self, path: str, size: str | None, n: int, real: int) -> None:
        dataset = open_data(path, size=size)
        rows = np.random.default_rng(0).permutation(len(dataset))[: (CLEAN + 1) * n + real + POOL]
        self.pixels, labels = torch.from_numpy(dataset.read(rows)), dataset.labels(rows) if dataset.classes else None
        self.labels, self.classes = None if labels is None else torch.as_tensor(labels), dataset.classes
        self.n, self.place = n, len(rows) - real
        self.groups = self.labels
        if self.labels is None:  # groups by the features of another network, which the doctor does not know
            other = features(self.pixels, open_extractor(fitting("efficientnet:model=lite2", min(dataset.shape[1:]))))
            self.groups = nearest(other, cluster(other, 8))

    def clean(self, which: int) -> Pixels:
        """Return a set of images that stay as they are."""
        return self.pixels[which * self.n : (which + 1) * self.n]

    def of_sets(self) -> dict[str, tuple[str, Pixels, Pixels]]:
        """Return faults of the set as a whole, planted: name -> (finding that is right, mild, strong)."""
        end, n = (CLEAN + 1) * self.n, self.n
        free, groups = self.pixels[:end], self.groups[:end]
        common = torch.bincount(groups).argsort(descending=True)
        one, two = int(common[0]), common[: len(common) // 2]
        copied = self.pixels[end : end + n]
        doubled = torch.cat([free[groups == one][: n // 3], free[groups != one]])[:n]
        moved = torch.nn.functional.pad(copied.float(), (1, 0, 1, 0), mode="replicate")[..., :-1, :-1].byte()
        few = self.clean(0)[: max(20, n // 10)]
        return {
            "a group missing / half of them": (
                "modes",
                free[groups != one][:n],
                free[~torch.isin(groups, two)][:n],
            ),
            "a group in a third / half of the images": (
                "modes",
                doubled,
                torch.cat([free[groups == one][: n // 2], free[groups != one]])[:n],
            ),
            "a tenth repeated / 20 images": (
                "repeats",
                torch.cat([self.clean(0)[: n - len(few)], few]),
                self.clean(0)[:20].repeat(n // 20 + 1, 1, 1, 1)[:n],
            ),
            "copies moved by 1 px, a third / all": (
                "copies",
                torch.cat([self.clean(0)[: n - n // 3], moved[: n // 3]]),
                moved,
            ),
        }


def planted(name: str, data: Data, out: Path) -> None:
    """Plant every fault and write what the doctor finds; rows that are there already are not made again."""
    extractor = open_extractor(fitting("efficientnet", min(data.pixels.shape[-2:])))
    real, pool = data.pixels[data.place :], data.pixels[(CLEAN + 1) * data.n :]
    labels = None if data.labels is None else data.labels[data.place :]
    own = torch.arange(len(pool) - len(real), len(pool))
    cases: dict[str, tuple[str, Pixels]] = {f"clean {i}": ("", data.clean(i)) for i in range(CLEAN)}
    pixel_faults = {**OF_PIXELS, **(OF_COLOURS if data.pixels.shape[1] == 3 else {})}
    for fault, (right, mild, strong) in pixel_faults.items():
        cases[f"{fault}, mild"] = right, mild(data.clean(0))
        cases[f"{fault}, strong"] = right, strong(data.clean(0))
    for fault, (right, *both) in data.of_sets().items():
        for strength, images in zip(("mild", "strong"), both, strict=True):
            cases[f"{fault}, {strength}"] = right, images
    path = out / f"{name}.json"
    rows: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for case, (right, images) in cases.items():
        if case in rows:
            continue
        start = time.monotonic()
        sets = open_sets(images, real, extractor, labels, data.classes, pool, own)
        found = diagnose(sets, silent)
        rows[case] = {"right": right, **plain_row(found), "seconds": time.monotonic() - start}
        text = "; ".join(f"{cost or 0:.1f} {words}" for _, words, cost in rows[case]["findings"][:4])
        print(f"{name:9}{case:48}{verdict(rows[case]):8}{rows[case]['kid']:8.1f}  {text}", flush=True)
        path.write_text(json.dumps(rows, indent=1), "utf-8")


def plain_row(found: dict[str, Any]) -> dict[str, Any]:
    """Return what the doctor finds: KID and the rest, times 1000, and the findings with their costs."""
    return {
        "n": found["n"],
        "kid": 1000 * found["kid"]["value"],
        "rest": 1000 * found["rest"]["value"],
        "findings": [
            [each["fault"], each["name"], None if each["cost"] is None else 1000 * each["cost"]["value"]]
            for each in found["findings"]
        ],
    }


def verdict(row: dict[str, Any]) -> str:
    """Return whether the right fault was named: right, listed (not the first), other, nothing or clean.

    Of a run, the rest of KID is a finding too, "training". It may stand before a fault that was right.
    """
    names = [finding[0] for finding in row["findings"]]
    if row["right"] != "training":
        names = [name for name in names if name != "training"]
    if not row["right"]:
        return "clean" if not names else "false"
    if row["right"] in names[:1] or (row["right"] == "copies" and row["right"] in names):
        return "right"
    return "listed" if row["right"] in names else "other" if names else "nothing"


def table(out: Path) -> str:
    """Return two tables: the verdict on each fault and data, mild and strong, and the first finding of each row."""
    files = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*.json"))}
    cases = dict.fromkeys(
        case.removesuffix(", mild").removesuffix(", strong") for rows in files.values() for case in rows
    )
    lines = ["| fault | " + " | ".join(files) + " |", "|---|" + "---|" * len(files)]
    for case in cases:
        cells = []
        for rows in files.values():
            found = [verdict(rows[name]) for name in (case, f"{case}, mild", f"{case}, strong") if name in rows]
            cells.append(", ".join(found if len({*found}) > 1 else found[:1]))
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    lines += ["", "| data | fault | KID x 1000 | verdict | first finding, its cost |", "|---|---|---:|---|---|"]
    counts: dict[str, int] = {}
    for name, rows in files.items():
        for case, row in rows.items():
            said = verdict(row)
            counts[said] = counts.get(said, 0) + 1
            first = row["findings"][0] if row["findings"] else ["", "nothing", None]
            cost = "" if first[2] is None else f", {first[2]:.1f}"
            lines.append(f"| {name} | {case} | {row['kid']:.1f} | {said} | {first[1]}{cost} |")
    return "\n".join([*lines, "", ", ".join(f"{name}: {count}" for name, count in counts.items())]) + "\n"


def main() -> None:
    """Run a part of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("planted")
    for argument in ("name", "data"):
        one.add_argument(argument)
    one.add_argument("out", type=Path)
    one.add_argument("--size")
    one.add_argument("-n", type=int, default=1000)
    one.add_argument("--real", type=int, default=2000)
    parts.add_parser("table").add_argument("out", type=Path)
    given = parser.parse_args()
    if given.part == "table":
        print(table(given.out))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    planted(given.name, Data(given.data, given.size, given.n, given.real), given.out)


if __name__ == "__main__":
    main()
