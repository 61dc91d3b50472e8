"""How fast does unnoise decode, and has a change made it slower?

    python -m benchmarks.speed.decoding OUT CIFAR.parquet [--against SRC] [--images 5000] [--repetitions 25]

Two sets are decoded into an empty cache: images of a parquet file, such as CIFAR-10's, and 200 JPEG of 640x480 that
the script makes from a seeded generator. A process decodes a set again and again, after one pass that does not count.
CPU seconds count. With --against, the folder `src` of another checkout takes turns with this one, and the ratio of the
medians is printed: above 1, this checkout is slower. Writes OUT/decoding.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

import unnoise
from benchmarks.lib.machine import machine
from unnoise.files import write_json

OWN_SRC = Path(unnoise.__file__).resolve().parents[1]
JPEG_SIZE, JPEG_COUNT = (640, 480), 200
DECODE = """
import os, pathlib, sys, tempfile, time
import unnoise
assert unnoise.__file__.startswith(os.environ["PYTHONPATH"]), unnoise.__file__
for line in sys.stdin:
    with tempfile.TemporaryDirectory() as cache:
        begun = time.process_time()
        images = len(unnoise.open_data(sys.argv[1], cache=pathlib.Path(cache), limit=int(sys.argv[2])))
        print(images, time.process_time() - begun, flush=True)
"""


def main() -> None:
    """Decode both sets in turn, print a table, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--against", type=Path, metavar="SRC")
    parser.add_argument("--images", type=int, default=5_000, metavar="N", help="of the parquet file")
    parser.add_argument("--repetitions", type=int, default=25)
    given = parser.parse_args()
    sources = {"this": OWN_SRC} | ({"other": given.against.resolve()} if given.against else {})
    found: dict[str, Any] = {"machine": machine("pillow", "numpy", "pyarrow"), "sets": {}}
    with TemporaryDirectory() as folder:
        sets = {given.parquet.name: given.parquet.resolve(), "JPEG 640x480": make_jpegs(Path(folder))}
        for name, data in sets.items():
            passes = take_turns(data, sources, given.images, given.repetitions)
            found["sets"][name] = summary = summarize(passes)
            print(f"{name:32}" + ", ".join(f"{key} {value:.4g}" for key, value in summary.items() if key != "seconds"))
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "decoding.json", found)


def make_jpegs(folder: Path) -> Path:
    """Write smooth random pictures with some noise, whose JPEG files are as large as those of photos."""
    rng, (width, height) = np.random.default_rng(0), JPEG_SIZE
    for i in range(JPEG_COUNT):
        coarse = rng.integers(0, 256, (height // 32, width // 32, 3), np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize(JPEG_SIZE, Image.Resampling.BICUBIC), np.float32)
        noisy = (picture + rng.normal(0, 8, picture.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i:03}.jpg", quality=90)
    return folder


def take_turns(
    data: Path, sources: dict[str, Path], limit: int, repetitions: int
) -> dict[str, list[tuple[int, float]]]:
    """Return images and CPU seconds of the passes of each checkout; they take turns, since machines are noisy."""
    with ExitStack() as stack:
        workers = {side: stack.enter_context(start(data, source, limit)) for side, source in sources.items()}
        for worker in workers.values():
            one_pass(worker)
        passes: dict[str, list[tuple[int, float]]] = {side: [] for side in sources}
        for i in range(repetitions):
            for side in [*sources] if i % 2 else [*sources][::-1]:
                passes[side].append(one_pass(workers[side]))
    return passes


def start(data: Path, source: Path, limit: int) -> subprocess.Popen[str]:
    """Start a process that decodes a set with the unnoise of a checkout, once for each line that it gets."""
    line = [sys.executable, "-W", "ignore", "-c", DECODE, str(data), str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    return subprocess.Popen(line, env=environment, **pipes)


def one_pass(worker: subprocess.Popen[str]) -> tuple[int, float]:
    """Let a process decode its set; return the number of images and the CPU seconds."""
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write("\n")
    images, seconds = worker.stdout.readline().split()
    return int(images), float(seconds)


def summarize(passes: dict[str, list[tuple[int, float]]]) -> dict[str, Any]:
    """Return images a second of CPU time for each checkout, all CPU seconds, and the ratio of their medians."""
    seconds = {side: [round(spent, 4) for _, spent in rows] for side, rows in passes.items()}
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    images = passes["this"][0][0]
    summary: dict[str, Any] = {"images": images, "seconds": seconds}
    summary |= {f"images/s, {side}": images / median for side, median in medians.items()}
    return summary | ({"ratio": medians["this"] / medians["other"]} if "other" in medians else {})


if __name__ == "__main__":
    main()
