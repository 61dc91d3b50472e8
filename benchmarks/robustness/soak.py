"""Does a training of hours keep its memory, open files and throughput? Watches one by tenths of its time.

    python -m benchmarks.robustness.soak [--budget 2h] OUT [DATA AND OPTIONS OF `unnoise train`]

Throughput is in images per second of processor time, which other programs on the machine do not change.
"""

import argparse
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.lib.machine import machine
from unnoise.files import read_json_lines, write_json

EVERY = 10.0  # seconds between two looks


class Sample(NamedTuple):
    """One look at the process from outside."""

    seconds: float
    processor: float  # seconds
    resident: int  # bytes
    files: int  # open
    threads: int
    images: int


def images_logged(run: Path) -> int:
    """Return the images of the last row of the log."""
    try:
        return max((row["images"] for row in read_json_lines(run / "metrics.jsonl") if "images" in row), default=0)
    except FileNotFoundError:
        return 0


def watch(process: subprocess.Popen, run: Path) -> list[Sample]:
    """Look at a process until it ends."""
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
                        images_logged(run),
                    )
                )
        except psutil.NoSuchProcess:
            break
        time.sleep(EVERY)
    return found


def format_samples(samples: list[Sample]) -> list[str]:
    """Return a Markdown table with a row for each tenth of the time."""
    lines = [
        "| minutes | resident MB | open files | threads | images per second of processor time |",
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
    parser.add_argument("out", help="a new folder")
    parser.add_argument("--budget", default="2h")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="data and options of `unnoise train` (default: faces)"
    )
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
    print("\n".join(format_samples(found)))
    sys.exit(training.returncode)
