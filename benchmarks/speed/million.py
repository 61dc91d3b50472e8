"""Can unnoise train on data that fits neither memory nor, decoded, most disks? Streams a million images.

    python -m benchmarks.speed.million make OUT [--count 1000000]
    python -m benchmarks.speed.million train OUT/shards OUT [--budget 10m]
    python -m benchmarks.speed.million train OUT/parquet OUT [--budget 10m]

`make` writes the same images as tar shards and as parquet: blurred colours, with the number of the image in its corner,
as black and white squares that survive JPEG. `train` stops the training by SIGTERM half way and gives the same command
again. It prints memory, throughput and the share of the time that was spent waiting for data. It also reads the numbers
of the images back from their pixels, and checks that they are those that an uninterrupted training sees, in its order.
"""

import argparse
import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from benchmarks.lib.machine import machine
from unnoise.data import open_data
from unnoise.data.dataset import split_held_out
from unnoise.files import read_json_lines, write_json
from unnoise.training.batches import order
from unnoise.training.clock import SECONDS, parse_amount

SHARD, ROWS = 10_000, 1_000  # images in a file and in a row group
SIZE, SQUARE = 128, 8  # pixels of an image, and of a square
PLACES = [(8 * (bit // 10), 8 * (bit % 10)) for bit in range(20)]  # (y, x) of each bit of a number, in two rows
CODE = f"""
import json, sys
import numpy as np
from unnoise import cli
from unnoise.training import loop

given = loop.prepare

def noted(batch, *rest):
    scale, pixels = batch.pixels.shape[-1] / {SIZE}, batch.pixels
    bits = [pixels[:, :, int(scale * (y + 2)) : int(scale * (y + 6)), int(scale * (x + 2)) : int(scale * (x + 6))]
            .mean((1, 2, 3)) > 127 for y, x in {PLACES}]
    with open(sys.argv[1], "a") as file:
        file.write(json.dumps((np.stack(bits, 1) @ (1 << np.arange(20))).tolist()) + "\\n")
    return given(batch, *rest)

loop.prepare = noted
sys.exit(cli.main(sys.argv[2:]))
"""


def make_image(number: int) -> bytes:
    """Return a JPEG image that shows its number."""
    coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BILINEAR)).copy()
    for bit, (y, x) in enumerate(PLACES):
        pixels[y : y + SQUARE, x : x + SQUARE] = 255 * (number >> bit & 1)
    Image.fromarray(pixels).save(out := io.BytesIO(), "JPEG", quality=85)
    return out.getvalue()


def make(arguments: argparse.Namespace) -> None:
    """Write the images as shards and as parquet."""
    out = Path(arguments.out)
    for name in ("shards", "parquet"):
        (out / name).mkdir(parents=True)
    for shard, first in enumerate(range(0, arguments.count, SHARD)):
        numbers = range(first, min(first + SHARD, arguments.count))
        images = [*map(make_image, numbers)]
        with tarfile.open(out / "shards" / f"train-{shard:05d}.tar", "w") as archive:
            for number, content in zip(numbers, images, strict=True):
                for name, data in (("jpg", content), ("cls", str(number % 10).encode())):
                    info = tarfile.TarInfo(f"{number:07d}.{name}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        table = pa.table({"image": images, "label": [number % 10 for number in numbers]})
        parquet.write_table(table, out / "parquet" / f"train-{shard:05d}.parquet", row_group_size=ROWS)
        print(f"{numbers.stop:,} images", flush=True)


def watch(line: list[str], seconds: float | None) -> tuple[float, list[int]]:
    """Run a training; return the seconds until its first step, and its memory second by second.

    Args:
        line: the command.
        seconds: stop it by SIGTERM after this time of training; None lets it end by itself.
    """
    process, begun, started, memory = subprocess.Popen(line), time.monotonic(), 0.0, list[int]()
    rows = Path(line[line.index("--out") + 1]) / "metrics.jsonl"
    before = rows.stat().st_size if rows.exists() else 0
    while process.poll() is None:
        if not started and rows.exists() and rows.stat().st_size != before:
            started = time.monotonic()
        if seconds and started and time.monotonic() - started > seconds:
            process.send_signal(signal.SIGTERM)
            seconds = None
        memory.append(psutil.Process(process.pid).memory_info().rss)
        time.sleep(1)
    return started - begun, memory


def noted_images(notes: Path) -> list[int]:
    """Return the numbers of the images that were learned from, in order."""
    return [number for row in notes.read_text().splitlines() for number in json.loads(row)]


def right_images(data: str, seen: list[int]) -> bool:
    """Return True if an uninterrupted training sees these images, in this order."""
    dataset, _ = split_held_out(open_data(data, stream=True, size=str(SIZE)))
    wanted = order(dataset, 64, 0)
    expected = np.concatenate([next(wanted) for _ in range(len(seen) // 64 + 1)])[: len(seen)]
    return np.array_equal(dataset.numbers(expected), seen)


def train(arguments: argparse.Namespace) -> None:
    """Train, stop half way, resume, and write what was measured."""
    out, kind = Path(arguments.out), Path(arguments.data).name
    run, notes = out / f"run-{kind}", out / f"seen-{kind}.jsonl"
    line = [sys.executable, "-c", CODE, str(notes), "train", arguments.data, "--stream", "--out", str(run)]
    line += ["--size", str(SIZE), "--backbone", arguments.backbone, "--budget", arguments.budget]
    start, memory = watch(line, parse_amount(arguments.budget, SECONDS, "--budget", "10m") / 2)
    stopped = len(noted_images(notes))
    again, more = watch(line, None)
    seen = noted_images(notes)
    right = right_images(arguments.data, seen)
    rows = [row for row in read_json_lines(run / "metrics.jsonl") if "data_wait" in row]
    result = {
        "data": kind,
        "images": len(seen),
        "stopped_after": stopped,
        "the_right_images_in_the_right_order": right,
        "different_images": len(set(seen)),
        "seconds_to_start": [start, again],
        "resident_mb": [max(memory) / 2**20, max(more) / 2**20],
        "resident_mb_by_tenths": [memory[i * len(memory) // 10] // 2**20 for i in range(1, 10)],
        "images_per_second": rows[-1]["images"] / rows[-1]["seconds"],
        "data_wait": sum(row["data_wait"] for row in rows) / len(rows),
        "gigabytes": sum(path.stat().st_size for path in Path(arguments.data).iterdir()) / 1e9,
        "machine": machine(),
    }
    write_json(out / f"{kind}.json", result)
    print(json.dumps(result, indent=1))
    if not right:
        raise SystemExit(1)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of both commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("make", help="write the images: 14 GB")
    first.add_argument("out")
    first.add_argument("--count", type=int, default=1_000_000)
    first.set_defaults(work=make)
    second = commands.add_parser("train", help="train on them, stop half way, resume")
    second.add_argument("data")
    second.add_argument("out")
    second.add_argument("--budget", default="10m")
    second.add_argument("--backbone", default="unet:widths=32-64,layers=1,patch=8,groups=8,head=32")
    second.set_defaults(work=train)
    return parser


if __name__ == "__main__":
    given = make_parser().parse_args()
    given.work(given)
