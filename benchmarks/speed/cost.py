"""What does a training cost on paper, how far is that from the measured cost, and what does it cost on many GPUs?

    python -m benchmarks.speed.cost measure OUT [--processes 1 2]
    python -m benchmarks.speed.cost project

`measure` trains networks of three widths at three sizes with each number of processes, on random images, and sets the
calculated numbers beside the measured ones. Three constants are fitted, each on the middle row alone: operations per
second that the machine reaches, the memory of the program itself, and the bytes per second that two processes exchange.
`project` prints the tables of docs/concepts/scaling.md from the same functions.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.lib.machine import machine
from benchmarks.speed.cost_model import Cost, cost_of
from unnoise.files import read_json_lines, write_json

SIZES, WIDTHS, BATCH = (16, 32, 64), (32, 48, 64), 64
MIDDLE = (32, 48)
SECONDS, GUESS = 10.0, 6e10  # length of a training, if the machine does this many operations per second


def unet(width: int) -> str:
    """Return the spec of a U-Net."""
    return f"unet:widths={width}-{2 * width}-{4 * width},layers=1,patch=2,groups=8,head=32"


def train_once(out: Path, size: int, width: int, processes: int) -> dict[str, Any]:
    """Train for a short time; return images per second, peak memory and the size of the state."""
    run, cost = out / f"{size}-{width}-{processes}", cost_of(unet(width), (3, size, size))
    images = max(12, round(SECONDS * GUESS / cost.step(BATCH))) * BATCH
    if not run.exists():
        data = out / f"{size}.npy"
        np.save(data, np.random.default_rng(0).integers(0, 256, (1024, size, size, 3), dtype=np.uint8))
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        line = ["-m", "unnoise", "train", str(data), "--backbone", unet(width), "--images", str(images)]
        line += ["--held-out", "0", "--precision", "fp32", "--batch", str(BATCH), "--steps", "2", "--out", str(run)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        log = (out / f"{size}-{width}-{processes}.log").open("w")
        subprocess.run(
            [sys.executable, *(launch if processes > 1 else []), *line],
            env=environment,
            stdout=log,
            stderr=log,
            check=True,
        )
    rows = [*read_json_lines(run / "metrics.jsonl")]
    pace = statistics.median(row["images_per_second"] for row in rows[1:] if "images_per_second" in row)
    disk = (run / "state.safetensors").stat().st_size
    return {"size": size, "width": width, "processes": processes, "images_per_second": pace, "state": disk} | {
        "peak": max(row.get("peak_bytes", 0) for row in rows)
    }


class Fit(NamedTuple):
    """The three constants of a machine."""

    rate: float  # operations per second
    base: float  # bytes of the program itself
    bandwidth: float  # bytes per second between processes

    def expected(self, cost: Cost, processes: int) -> dict[str, float]:
        """Return the calculated numbers of a training."""
        seconds = cost.step(BATCH) / processes / self.rate + cost.traffic(processes) / self.bandwidth
        memory = self.base + cost.memory(BATCH // processes)
        return {"images_per_second": BATCH / seconds, "peak": memory, "state": cost.state}


def fit(middle: Cost, rows: list[dict[str, Any]]) -> Fit:
    """Fit the constants on the rows of the middle network."""
    by = {row["processes"]: row for row in rows if (row["size"], row["width"]) == MIDDLE}
    rate = middle.step(BATCH) / (BATCH / by[1]["images_per_second"])
    bandwidth = math.inf
    if 2 in by:
        alone = middle.step(BATCH) / 2 / rate
        bandwidth = middle.traffic(2) / max(BATCH / by[2]["images_per_second"] - alone, 1e-9)
    return Fit(rate, by[1]["peak"] - middle.memory(BATCH), bandwidth)


def measure(arguments: argparse.Namespace) -> None:
    """Train, fit and compare; each process has one thread, so that processes do not share processors."""
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        train_once(out, size, width, processes)
        for processes in arguments.processes
        for size in SIZES
        for width in WIDTHS
    ]
    costs = {(size, width): cost_of(unet(width), (3, size, size)) for size in SIZES for width in WIDTHS}
    found = fit(costs[MIDDLE], rows)
    for row in rows:
        row["told"] = found.expected(costs[row["size"], row["width"]], row["processes"])
    constants = {"operations_per_second": found.rate, "base_bytes": found.base, "bandwidth": found.bandwidth}
    write_json(out / "cost.json", {"rows": rows, **constants, "machine": machine()})
    print("\n".join([*format_rows(rows, costs), *format_errors(rows)]))
    print(
        f"fitted: {found.rate / 1e9:.0f} GFLOP/s, {found.base / 2**20:.0f} MB of the program itself, "
        f"{found.bandwidth / 1e9:.2f} GB/s between processes"
    )


def format_rows(rows: list[dict[str, Any]], costs: dict[tuple[int, int], Cost]) -> list[str]:
    """Return a Markdown table of calculated and measured numbers."""
    heads = ("px", "width", "M parameters", "processes", "images/s calculated", "measured")
    heads += ("memory calculated, MB", "measured", "state calculated, MB", "measured")
    lines = [f"| {' | '.join(heads)} |", "|---:|" + "---:|" * 9]
    for row in rows:
        told, size = row["told"], costs[row["size"], row["width"]].parameters / 1e6
        cells = [f"{told['images_per_second']:.0f}", f"{row['images_per_second']:.0f}"]
        cells += [f"{value / 2**20:,.0f}" for value in (told["peak"], row["peak"])]
        cells += [f"{value / 2**20:,.1f}" for value in (told["state"], row["state"])]
        lines.append(f"| {row['size']} | {row['width']} | {size:.1f} | {row['processes']} | {' | '.join(cells)} |")
    return lines


def format_errors(rows: list[dict[str, Any]]) -> list[str]:
    """Return how far the calculated numbers are from the measured ones."""
    names = ("images_per_second", "peak", "state")
    errors = {name: [abs(row["told"][name] / row[name] - 1) for row in rows] for name in names}
    return [
        f"{name}: wrong by {statistics.mean(values):.0%} on average, by {max(values):.0%} at most"
        for name, values in errors.items()
    ]


class Machine(NamedTuple):
    """A GPU by the data sheet of its maker, and what is assumed."""

    name: str = "H100 SXM"
    operations: float = 989e12  # bf16, dense: NVIDIA's data sheet
    reached: float = 0.35  # share of it that a U-Net or DiT of this size reaches: an assumption
    memory: float = 80e9  # bytes
    inside: float = 450e9  # bytes per second, each way, in a node of 8: NVLink 4
    outside: float = 50e9  # the same between nodes: one 400 Gb/s link for a GPU
    disk: float = 2e9  # bytes of images per second that a node of 8 reads
    decode: float = 12_000  # JPEG images of 128 px that its processors decode in a second


NETWORKS = {
    "unet, 32 px": (unet(128), 32, 512, 3e3),
    "unet, 64 px": (unet(256), 64, 1024, 8e3),
    "dit_xl, 64 px": ("dit_xl", 64, 1024, 8e3),
    "dit_xl:patch=4, 256 px": ("dit_xl:patch=4", 256, 1024, 60e3),
}


def project(_: argparse.Namespace) -> None:
    """Print the table of costs on GPUs."""
    print(f"{(gpu := Machine())}\n")
    heads = ("network", "M parameters", "GFLOP per image", "batch", "GPUs", "images/s")
    heads += ("seconds of a step: network, Muon, messages, data", "a billion images", "first bottleneck")
    print(f"| {' | '.join(heads)} |")
    print("|---|" + "---:|" * 7 + "---|")
    for name, (backbone, size, usual, encoded) in NETWORKS.items():
        cost = cost_of(backbone, (3, size, size))
        for count in (1, 8, 64, 1024):
            batch = max(usual, count)
            reading = max(batch * encoded / gpu.disk, batch / gpu.decode * (size / 128) ** 2) / max(1, count / 8)
            print(f"| {name} | {' | '.join(projected_cells(cost, gpu, batch, count, reading))} |")


def projected_cells(cost: Cost, gpu: Machine, batch: int, count: int, reading: float) -> list[str]:
    """Return the cells of a row: `count` GPUs learn from a batch, whose data takes `reading` seconds."""
    speed = gpu.operations * gpu.reached
    parts = {
        "network": 3 * cost.forward * batch / count / speed,
        "Muon": cost.orthogonal / count / (speed / 2),
        "messages": cost.traffic(count) / (gpu.inside if count <= 8 else gpu.outside),
        "data": reading,
    }
    seconds = max(reading, parts["network"] + parts["Muon"] + parts["messages"])
    worst = "data" if seconds == reading else max(("network", "Muon", "messages"), key=parts.__getitem__)
    return [
        f"{cost.parameters / 1e6:.0f}",
        f"{3 * cost.forward / 1e9:.0f}",
        f"{batch:,}",
        f"{count:,}",
        f"{batch / seconds:,.0f}",
        ", ".join(f"{part:.3g}" for part in parts.values()),
        f"{1e9 / (batch / seconds) / 3600:,.1f} h",
        worst,
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure", help="train, fit and compare: about 10 minutes")
    one.add_argument("out")
    one.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    one.set_defaults(work=measure)
    commands.add_parser("project", help="print the tables of the documentation").set_defaults(work=project)
    given = parser.parse_args()
    given.work(given)
