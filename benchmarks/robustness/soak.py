"""Watch a training for hours: memory, open files and throughput by tenths of the time.

    python benchmarks/soak.py [--budget 2h] OUT [DATA AND OPTIONS OF `unnoise train`]

Throughput is in images per second of the processor's time, which other programs on the machine do not change.
"""

import argparse
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil
from machine import machine

from unnoise.files import read_json_lines, write_json

EVERY = 10.0  # seconds


class Sample(NamedTuple):
    """What is seen of the process from outside."""

    seconds: float
    processor: float  # seconds
    resident: int  # bytes
    files: int  # open
    threads: int
    images: int


def seen(run: Path) -> int:
    try:
        return max((row["images"] for row in read_json_lines(run / "metrics.jsonl") if "images" in row), default=0)
    except FileNotFoundError:
        return 0


def watch(process: subprocess.Popen, run: Path) -> list[Sample]:
    found, begun, watched = list[Sample](), time.monotonic(), psutil.Process(process.pid)
    while process.poll() is None:
        try:
            with watched.oneshot():
                spent, memory = watched.cpu_times(), watched.memory_info().rss
                found.append(
                    Sample(
                        time.monotonic() - begun,
                        spent.user + spent.system,
                        memory,
                        watched.num_fds(),
                        watched.num_threads(),
                        seen(run),
                    )
                )
        except psutil.NoSuchProcess:
            break
        time.sleep(EVERY)
    return found


def table(samples: list[Sample]) -> list[str]:
    lines = [
        "| minutes | resident MB | open files | threads | images per processor second |",
        "|---:|---:|---:|---:|---:|",
    ]
    marks = [samples[round(i * (len(samples) - 1) / 10)] for i in range(11)]
    for before, now in pairwise(marks):
        rate = (now.images - before.images) / max(now.processor - before.processor, 1e-9)
        lines.append(
            f"| {before.seconds / 60:.0f} to {now.seconds / 60:.0f} | {now.resident / 2**20:,.0f} | {now.files} "
            f"| {now.threads} | {rate:.0f} |"
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--budget", default="2h")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    folder = Path(arguments.out)
    folder.mkdir(parents=True)
    line = ["train", *(arguments.options or ["faces"]), "--budget", arguments.budget, "--out", str(folder / "run")]
    with (folder / "log").open("w") as log:
        training = subprocess.Popen([sys.executable, "-m", "unnoise", *line], stdout=log, stderr=log)
        found = watch(training, folder / "run")
    write_json(
        folder / "soak.json",
        {"line": line, "status": training.returncode, "samples": [s._asdict() for s in found], "machine": machine()},
    )
    print("\n".join(table(found)))
    sys.exit(training.returncode)
