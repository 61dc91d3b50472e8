"""How good will a training be? Fits the law that `unnoise train` prints, and checks it on other sets.

    python -m benchmarks.quality.expected RESULTS... [--chart FILE.png]

RESULTS are folders of the yardstick. The law is KID = limit * (side / 32)^power * (1 + half / images), by the first
judge. `half` has the least squared errors of log KID within the sets of FITTED, each of which has a limit of its own.
The limits give the law of the side, and the range that holds for four of five new sets, by Student's t.
"""

import argparse
import math
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from scipy import stats

from benchmarks.quality.yardstick import SETS, read_trainings, value
from unnoise.training.expected import LAW, SEEN, SEEN_LARGE, Law, was_measured

FITTED = "celeba", "celeba-64", "cifar10", "fashion-mnist", "clothing", "faces"
NATIVE = {"cifar10": 32, "fashion-mnist": 28}  # pixels of the sets that are taken at their own size
CONTENDERS = "default", "width-64"  # networks that the plan chooses on some machine
OTHER = ("celeba-64", "--budget 10m")  # a narrower network than the plan of today chooses
SHARE = 0.8  # of new sets in the range


def main(folders: list[str], file: str | None) -> None:
    """Print the law, and whether each training is in its range, those of other sets last; plot them."""
    trainings = [each for folder in folders for each in read(Path(folder))]
    print(f"fitted    {fit(trainings)}")
    print(f"today's   {LAW}")
    for each in sorted(trainings, key=lambda each: (each["set"] not in FITTED, each["set"], each["images"])):
        expected = LAW.at(side(each["set"]), each["images"])
        kind = "fitted" if each["set"] in FITTED else "not fitted"
        print(f"{each['set']:14} {kind:10} {expected.compared(distance(each))} ({1000 * distance(each):.0f})")
    if file:
        chart(trainings).savefig(file, dpi=110)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the trainings of a folder that were made by the default, of a length that the law is printed for."""
    found = [each for each in read_trainings(str(folder)) if each["contender"] in CONTENDERS]
    long = [each for each in found if was_measured(side(each["set"]), each["images"])]
    return [each for each in long if (each["set"], each["length"]) != OTHER]


def side(name: str) -> int:
    """Return the shorter side of the images of a set, in pixels."""
    return int(SETS[name][1].partition(" ")[2] or NATIVE[name])


def distance(training: dict[str, Any]) -> float:
    """Return the KID of a training by the first judge."""
    return value(training, "lite0") / 1000


def fit(trainings: list[dict[str, Any]]) -> Law:
    """Return the law of the trainings of FITTED."""
    rows = [each for each in trainings if each["set"] in FITTED]
    half = min(np.geomspace(1_000, 200_000, 2_000), key=lambda half: within(rows, half))
    limits = {name: mean(log_limits(rows, name, half)) for name in {each["set"] for each in rows}}
    sides = [math.log(side(name) / 32) for name in limits]
    line = stats.linregress(sides, list(limits.values()))
    errors = np.array(list(limits.values())) - line.intercept - line.slope * np.array(sides)
    free = len(limits) - 2
    deviation = math.sqrt(float((errors**2).sum()) / free * (1 + 2 / len(limits)))  # of a new set, at a usual side
    spread = math.exp(stats.t.ppf((1 + SHARE) / 2, free) * deviation)
    return Law(math.exp(line.intercept), float(line.slope), float(half), spread)


def chart(trainings: list[dict[str, Any]]) -> Figure:
    """Return a plot of KID against the images seen: the range of the law, and the trainings."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, pixels, ends in zip(
        figure.subplots(1, 2, sharex=True, sharey=True), (32, 64), (SEEN, SEEN_LARGE), strict=True
    ):
        seen = np.geomspace(*ends, 100)
        law = np.array([[1000 * number for number in LAW.at(pixels, n)[:3]] for n in seen])
        axes.plot(seen, law[:, 0], color="0.5", label="the middle of the law")
        axes.fill_between(seen, law[:, 1], law[:, 2], color="0.9", label="four of five sets")
        here = [each for each in trainings if (side(each["set"]) > 32) == (pixels > 32)]
        for name in dict.fromkeys(each["set"] for each in here):
            mine = sorted((each["images"], 1000 * distance(each)) for each in here if each["set"] == name)
            axes.plot(*zip(*mine, strict=True), "o-" if name in FITTED else "s:", label=name)
        axes.set(xscale="log", yscale="log", xlabel="images seen", title=f"{pixels} px")
        for axis, ticks in (
            (axes.xaxis, (20_000, 50_000, 100_000, 200_000, 400_000)),
            (axes.yaxis, (50, 100, 200, 400)),
        ):
            axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
            axis.set_minor_formatter(NullFormatter())
        axes.legend(fontsize=8)
    figure.axes[0].set_ylabel("KID x 1000 by the first judge")
    return figure


def log_limits(rows: list[dict[str, Any]], name: str, half: float) -> list[float]:
    """Return the logarithm of the limit that each training of a set says."""
    return [math.log(distance(each) / (1 + half / each["images"])) for each in rows if each["set"] == name]


def within(rows: list[dict[str, Any]], half: float) -> float:
    """Return the sum of the squared deviations of the limits from their mean in each set."""
    limits = [log_limits(rows, name, half) for name in FITTED]
    return sum((one - mean(some)) ** 2 for some in limits if some for one in some)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+")
    parser.add_argument("--chart")
    given = parser.parse_args()
    main(given.results, given.chart)
