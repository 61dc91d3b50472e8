"""What a training costs on paper, how far that is from what is measured, and what it comes to on many GPUs.

    python benchmarks/cost.py measure OUT [--processes 1 2]
    python benchmarks/cost.py project

`measure` trains networks of three widths at three sizes with each number of processes, on pictures made up for it, and
sets the model's numbers beside the measured ones. Three constants are fitted, each on the middle row alone: the
floating-point operations a second that the machine reaches, the memory of the program itself, and the bytes a second
that two processes exchange.
`project` prints docs/concepts/scaling.md's tables from the same functions.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import machine
from torch.utils.flop_counter import FlopCounterMode

from unnoise import registry
from unnoise.files import read_json_lines, write_json
from unnoise.training.muon import grouped

# the model


@dataclass(frozen=True)
class Cost:
    """Of one network at one size, for one image where nothing else is said."""

    parameters: int
    forward: float  # floating-point operations; the backward pass takes twice as many
    orthogonal: float  # of Muon's step, whatever the batch
    kept: float  # bytes for the backward pass
    pixels: int  # bytes of the decoded image

    def step(self, batch: int) -> float:
        """Operations of all processes."""
        return 3 * self.forward * batch + self.orthogonal

    def memory(self, batch: int) -> float:
        """Bytes of weights, gradients, their average and Muon's momentum, in fp32, and of what is kept."""
        return 16 * self.parameters + self.kept * batch

    @property
    def state(self) -> float:
        """Bytes of a state: weights, average, momentum; there are two, and a model file of 4 bytes a weight."""
        return 12 * self.parameters

    def traffic(self, processes: int) -> float:
        """Bytes that each sends in a step: a ring's two passes for the gradients, two for Muon's steps."""
        return 2 * 2 * (processes - 1) / processes * 4 * self.parameters

    def sampling(self, steps: int) -> float:
        """Operations for a picture."""
        return steps * self.forward


def cost_of(backbone: str, shape: tuple[int, int, int]) -> Cost:
    """Counted on one image, by PyTorch's own counter; of a network that is never filled with numbers."""
    with torch.device("meta"):
        network = registry.backbone.get(backbone)(shape[0])
        x, t = torch.zeros(1, *shape), torch.zeros(1)
        own, kept = {p.untyped_storage()._cdata for p in network.parameters()}, dict[int, torch.Tensor]()

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if (storage := tensor.untyped_storage()._cdata) not in own:
                kept[storage] = tensor
            return tensor

        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda y: y):
            network(x, t)
    matrices = [(p, p) for p in network.parameters() if p.ndim >= 2]
    muon = sum(orthogonal(*shape) * len(same) for shape, same in grouped(matrices))
    size = sum(p.numel() for p in network.parameters())
    bytes_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return Cost(size, float(counter.get_total_flops()), muon, float(bytes_kept), math.prod(shape))


def orthogonal(rows: int, columns: int) -> float:
    """Of one matrix: its Gram matrix and the product with it, and 17 products of the size of the Gram matrix."""
    small, large = sorted((rows, columns))
    return 2 * 2 * small**2 * large + 2 * small**3 * (1 + 4 * 4)


# what is measured

SIZES, WIDTHS, BATCH = (16, 32, 64), (32, 48, 64), 64
MIDDLE = (32, 48)
SECONDS, GUESS = 10.0, 6e10  # of a training, at so many operations a second


def unet(width: int) -> str:
    return f"unet:widths={width}-{2 * width}-{4 * width},layers=1,patch=2,groups=8,head=32"


def trained(out: Path, size: int, width: int, processes: int) -> dict[str, Any]:
    """Images per second, peak memory and the size of the files, of a short training."""
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


def measure(arguments: argparse.Namespace) -> None:
    """One thread for each process, so that processes do not share processors."""
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    found = [
        trained(out, size, width, processes) for processes in arguments.processes for size in SIZES for width in WIDTHS
    ]
    costs = {(size, width): cost_of(unet(width), (3, size, size)) for size in SIZES for width in WIDTHS}
    by = {(row["size"], row["width"], row["processes"]): row for row in found}
    middle, first = costs[MIDDLE], by[(*MIDDLE, 1)]
    rate = middle.step(BATCH) / (BATCH / first["images_per_second"])
    base = first["peak"] - middle.memory(BATCH)
    bandwidth = math.inf
    if 2 in arguments.processes:
        alone = middle.step(BATCH) / 2 / rate
        bandwidth = middle.traffic(2) / max(BATCH / by[(*MIDDLE, 2)]["images_per_second"] - alone, 1e-9)
    heads = ("px", "width", "M parameters", "processes", "images/s told", "measured")
    heads += ("memory told, MB", "measured", "state told, MB", "measured")
    lines = [f"| {' | '.join(heads)} |"]
    lines += ["|---:|" + "---:|" * 9]
    for row in found:
        cost, processes = costs[row["size"], row["width"]], row["processes"]
        seconds = cost.step(BATCH) / processes / rate + cost.traffic(processes) / bandwidth
        told = {
            "images_per_second": BATCH / seconds,
            "peak": base + cost.memory(BATCH // processes),
            "state": cost.state,
        }
        row["told"] = told
        cells = [f"{told['images_per_second']:.0f}", f"{row['images_per_second']:.0f}"]
        cells += [
            f"{value / 2**20:,.1f}" if name == "state" else f"{value / 2**20:,.0f}"
            for name in ("peak", "state")
            for value in (told[name], row[name])
        ]
        lines.append(
            f"| {row['size']} | {row['width']} | {cost.parameters / 1e6:.1f} | {processes} | {' | '.join(cells)} |"
        )
    result = {
        "rows": found,
        "operations_per_second": rate,
        "base_bytes": base,
        "bandwidth": bandwidth,
        "machine": machine(),
    }
    write_json(out / "cost.json", result)
    off = {
        name: [abs(row["told"][name] / row[name] - 1) for row in found]
        for name in ("images_per_second", "peak", "state")
    }
    lines += [
        f"{name}: off by {statistics.mean(values):.0%} on average, {max(values):.0%} at most"
        for name, values in off.items()
    ]
    lines += [
        (
            f"fitted: {rate / 1e9:.0f} GFLOP/s, {base / 2**20:.0f} MB of the program itself, "
            f"{bandwidth / 1e9:.2f} GB/s between processes"
        )
    ]
    print("\n".join(lines))


# what it comes to


class Machine(NamedTuple):
    """A GPU as its maker tells it, and what is taken for granted of it."""

    name: str = "H100 SXM"
    operations: float = 989e12  # bf16, dense: NVIDIA's data sheet
    reached: float = 0.35  # share that a well-fed U-Net or DiT of this size reaches: a guess
    memory: float = 80e9  # bytes
    inside: float = 450e9  # bytes per second, each way, in a node of 8: NVLink 4
    outside: float = 50e9  # likewise between nodes: one 400 Gb/s link for a GPU
    disk: float = 2e9  # bytes of images per second that a node of 8 reads
    decode: float = 12_000  # JPEG images of 128 px that its processors decode in a second


NETWORKS = {
    "unet, 32 px": (unet(128), 32, 512, 3e3),
    "unet, 64 px": (unet(256), 64, 1024, 8e3),
    "dit_xl, 64 px": ("dit_xl", 64, 1024, 8e3),
    "dit_xl:patch=4, 256 px": ("dit_xl:patch=4", 256, 1024, 60e3),
}


def project(_: argparse.Namespace) -> None:
    gpu = Machine()
    print(f"{gpu}\n")
    heads = ("network", "M parameters", "GFLOP an image", "batch", "GPUs", "images/s")
    heads += ("seconds of a step: network, Muon, messages, data", "a billion images", "first bottleneck")
    print(f"| {' | '.join(heads)} |")
    print("|---|" + "---:|" * 7 + "---|")
    for name, (backbone, size, usual, encoded) in NETWORKS.items():
        cost = cost_of(backbone, (3, size, size))
        for count in (1, 8, 64, 1024):
            speed, batch = gpu.operations * gpu.reached, max(usual, count)
            parts = {
                "network": 3 * cost.forward * batch / count / speed,
                "Muon": cost.orthogonal / count / (speed / 2),
                "messages": cost.traffic(count) / (gpu.inside if count <= 8 else gpu.outside),
                "data": max(batch * encoded / gpu.disk, batch / gpu.decode * (size / 128) ** 2) / max(1, count / 8),
            }
            seconds = max(parts["data"], parts["network"] + parts["Muon"] + parts["messages"])
            worst = "data" if seconds == parts["data"] else max(("network", "Muon", "messages"), key=parts.__getitem__)
            cells = [
                f"{cost.parameters / 1e6:.0f}",
                f"{3 * cost.forward / 1e9:.0f}",
                f"{batch:,}",
                f"{count:,}",
                f"{batch / seconds:,.0f}",
            ]
            cells += [
                ", ".join(f"{part:.3g}" for part in parts.values()),
                f"{1e9 / (batch / seconds) / 3600:,.1f} h",
                worst,
            ]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure")
    one.add_argument("out")
    one.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    one.set_defaults(work=measure)
    commands.add_parser("project").set_defaults(work=project)
    given = parser.parse_args()
    given.work(given)
