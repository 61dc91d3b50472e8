"""What does the user see when a training goes wrong, and what survives? Causes 31 faults on purpose.

    python -m benchmarks.robustness.faults OUT [--only PART OF A NAME]

Each fault happens in a small training in a process of its own. Then it is repaired if possible, and the same command is
given again. The script checks the message, the exit status, the state, the model, and that the end is bit by bit that
of a run without fault. It writes OUT/faults.md; a fault that is in OUT already is not caused again. The faults of the
disk need a small tmpfs, which only root can mount.
"""

import argparse
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.robustness.fault_list import FAULTS, Fault
from benchmarks.robustness.trainings import (
    IMAGES,
    RUN,
    images_seen,
    read_weights,
    start_training,
    wait_for_images,
    what_survives,
    write_data,
)
from unnoise.files import write_json

Weights = dict[str, torch.Tensor]
WHOLE = (("data.npy", ()), ("images", ("--stream",)))  # data and options of the runs without fault
HEADS = ["fault", "message", "exit status", "what survives", "result of the same command, given again"]


class Seen(NamedTuple):
    """What is left when the training with the fault has ended."""

    status: int
    out: str
    images: int  # of the last whole state
    model: bool  # True if there is a model file whose weights are finite

    def message(self, fault: Fault) -> str:
        """Return the line with the words of the fault, or the last line."""
        lines = [line for line in self.out.splitlines() if line.strip()]
        found = next((line for line in lines if fault.words and fault.words in line), lines[-1] if lines else "")
        return found.strip().removeprefix("unnoise: ")

    def wrong(self, fault: Fault) -> list[str]:
        """Return what is not as expected."""
        return [
            *([f"status {self.status}, not {fault.status}"] if self.status != fault.status else []),
            *([f"the message {fault.words!r} is missing"] if fault.words not in self.out else []),
            *(["a traceback"] if "Traceback" in self.out else []),
        ]


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs for the run if a size is given."""
    if size:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place / "run")], check=True)
    try:
        yield
    finally:
        if size:
            subprocess.run(["umount", str(place / "run")], check=True)


def cause(place: Path, fault: Fault) -> Seen:
    """Train with the fault."""
    if fault.before:
        stopped = start_training(place, fault.data)
        wait_for_images(stopped, place)
        stopped.send_signal(signal.SIGTERM)
        stopped.communicate()
        fault.before(place)
    process = start_training(place, fault.data, fault.options, fault.fault)
    if fault.during:
        wait_for_images(process, place)
        fault.during(process, place)
    out, _ = process.communicate(timeout=900)
    return Seen(process.returncode, out, *what_survives(place))


def resume_wrongs(place: Path, fault: Fault, wanted: Weights) -> list[str]:
    """Give the same command again; return what is not as expected."""
    out, _ = (again := start_training(place, fault.data, fault.options)).communicate(timeout=900)
    if again.returncode and "this run is over" not in out:
        return [f"it does not resume: {out}"]
    if images_seen(place / RUN) != IMAGES:
        return ["it does not come to its end"]
    if fault.exact and not same_weights(place, wanted):
        return ["it ends otherwise than a run without fault"]
    return []


def same_weights(place: Path, wanted: Weights) -> bool:
    """Return True if the weights of the run are these, bit by bit."""
    return all(torch.equal(wanted[name], weight) for name, weight in read_weights(place).items())


def try_fault(place: Path, fault: Fault, wanted: Weights) -> list[str]:
    """Return a row of the table; what is not as expected stands in its last column."""
    (place / "run").mkdir(parents=True)
    write_data(place)
    with small_disk(place, fault.disk):
        seen = cause(place, fault)
        wrong = seen.wrong(fault)
        fault.mend(place)
        if fault.resumes and not wrong:
            wrong = resume_wrongs(place, fault, wanted)
        same = fault.resumes and not wrong and same_weights(place, wanted)
    if wrong:
        print(f"{fault.name}: {'; '.join(wrong)}\n{seen.out}", flush=True)
    survived = f"state of {seen.images:,} images" if seen.images else "nothing was there yet"
    end = "exact" if same else "another, as it must be" if fault.resumes else "refused until the user decides"
    first_line = "; ".join(wrong).partition("\n")[0]
    return [
        fault.name,
        seen.message(fault),
        str(seen.status),
        survived + (", model" if seen.model else ""),
        first_line or end,
    ]


def whole_runs(out: Path) -> dict[str, Weights]:
    """Return the weights of the runs without fault, by their data; train them if they are not in `out`."""
    weights = dict[str, Weights]()
    for data, options in WHOLE:
        place = out / f"whole-{data}"
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            write_data(place)
            text, _ = (process := start_training(place, data, options)).communicate()
            if process.returncode:
                raise SystemExit(f"a run without fault failed: {text}")
            (place / "done").touch()
        weights[data] = read_weights(place)
    return weights


def main(arguments: argparse.Namespace) -> None:
    """Cause the faults and write the table."""
    out = Path(arguments.out).absolute()
    wanted, rows = whole_runs(out), [HEADS, ["---", "---", "---:", "---", "---"]]
    for i, fault in enumerate(FAULTS):
        if arguments.only in fault.name:
            if not (known := out / f"{i:02d}.json").exists():
                shutil.rmtree(out / f"{i:02d}", ignore_errors=True)
                write_json(known, try_fault(out / f"{i:02d}", fault, wanted[fault.data]))
            rows.append(json.loads(known.read_text()))
            print(" | ".join(rows[-1]), flush=True)
    (out / "faults.md").write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder for the runs and the table")
    parser.add_argument("--only", default="", help="only the faults whose name contains this text")
    main(parser.parse_args())
