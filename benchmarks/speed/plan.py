"""Does a training take what its plan says? By picture size and budget, on the built-in faces.

    python benchmarks/plan.py OUT [--minutes 5 20 60] [--sizes 32 64 128]

Each training is `unnoise train faces --size S --budget M`, whose plan is made in a few seconds before it starts. Pace
and memory are from its metrics; the finish is the clock's, from the plan's line to the end of the command, so that
previews, measuring and the last grid count. Each result is a file in OUT, with the machine, and is not measured again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import machine

from unnoise.files import read_json_lines, write_json


def trained(run: Path, size: int, minutes: float) -> dict[str, Any]:
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


def table(folder: Path) -> str:
    rows = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    rows.sort(key=lambda row: (row["size"], row["minutes"]))
    lines = ["| size | minutes | images/s planned | came | MB planned | came | done after |", "|---:|" + "---:|" * 6]
    for row in rows:
        pace, memory, planned = row["mean_images_per_second"], row["peak_bytes"], row["planned_peak_bytes"]
        cells = (f"{row['size']}", f"{row['minutes']:g}", f"{row['planned_images_per_second']:.1f}")
        cells += (f"{pace:.1f} ({pace / row['planned_images_per_second'] - 1:+.0%})",)
        cells += (f"{planned / 2**20:,.0f}" if planned else "not told",)
        cells += (f"{memory / 2**20:,.0f}" + (f" ({memory / planned - 1:+.0%})" if planned else ""),)
        lines.append("| " + " | ".join((*cells, f"{row['minutes_taken']:.1f}")) + " |")
    return "\n".join([*lines, ""])


def main(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    for minutes in sorted(arguments.minutes):
        for size in arguments.sizes:
            place = folder / f"{size}px-{minutes:g}m.json"
            if not place.exists():
                write_json(place, trained(place.with_suffix(""), size, minutes) | {"machine": machine("unnoise")})
    (folder / "plan.md").write_text(text := table(folder))
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--minutes", nargs="+", type=float, default=[5, 20, 60])
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 128])
    main(parser.parse_args())
