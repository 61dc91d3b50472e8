"""Does a training take the time and the memory that its plan says? Trains on faces by image size and budget.

    python -m benchmarks.speed.plan OUT [--minutes 5 20 60] [--sizes 32 64 128]

Each training is `unnoise train faces --size S --budget M`, whose plan is made in a few seconds before it starts. Pace
and memory are from its metrics. The time is measured from the line of the plan to the end of the command, so that
previews, measurements and the last grid count. Each result is a file in OUT, with the machine; it is not measured
again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.lib.machine import machine
from unnoise.files import read_json_lines, write_json


def train_once(run: Path, size: int, minutes: float) -> dict[str, Any]:
    """Train, and return the plan, the last row of the log and the minutes that were taken."""
    line = ["train", "faces", "--size", str(size), "--budget", f"{minutes}m", "--out", str(run), "--fresh"]
    command = [sys.executable, "-u", "-m", "unnoise", *line]
    begun, told = time.monotonic(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout or ():
            print(text, end="", flush=True)
            told += [text] if text.startswith(("network", "plan")) else []
            begun = time.monotonic() if text.startswith("plan") else begun
    if process.returncode:
        raise SystemExit(process.returncode)
    *_, summary = read_json_lines(run / "metrics.jsonl")
    return {
        "size": size,
        "minutes": minutes,
        "told": told,
        "minutes_taken": (time.monotonic() - begun) / 60,
    } | summary


def format_plans(folder: Path) -> str:
    """Return the results in a folder as a Markdown table."""
    rows = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    rows.sort(key=lambda row: (row["size"], row["minutes"]))
    lines = [
        "| size | minutes | images/s planned | images/s measured | MB planned | MB measured | minutes taken |",
        "|---:|" + "---:|" * 6,
    ]
    for row in rows:
        pace, memory, planned = row["mean_images_per_second"], row["peak_bytes"], row["planned_peak_bytes"]
        cells = (f"{row['size']}", f"{row['minutes']:g}", f"{row['planned_images_per_second']:.1f}")
        cells += (f"{pace:.1f} ({pace / row['planned_images_per_second'] - 1:+.0%})",)
        cells += (f"{planned / 2**20:,.0f}" if planned else "unknown",)
        cells += (f"{memory / 2**20:,.0f}" + (f" ({memory / planned - 1:+.0%})" if planned else ""),)
        lines.append("| " + " | ".join((*cells, f"{row['minutes_taken']:.1f}")) + " |")
    return "\n".join([*lines, ""])


def main(arguments: argparse.Namespace) -> None:
    """Run the trainings that are not in the folder yet, and write the table."""
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    for minutes in sorted(arguments.minutes):
        for size in arguments.sizes:
            place = folder / f"{size}px-{minutes:g}m.json"
            if not place.exists():
                write_json(place, train_once(place.with_suffix(""), size, minutes) | {"machine": machine("unnoise")})
    (folder / "plan.md").write_text(text := format_plans(folder))
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder for runs and results")
    parser.add_argument("--minutes", nargs="+", type=float, default=[5, 20, 60])
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 128])
    main(parser.parse_args())
