"""Everything that goes wrong with a training, on purpose: what the user sees, and what survives.

    python benchmarks/faults.py OUT [--only WORDS OF A FAULT]

Each fault befalls a small training in a process of its own. Then it is mended where it can be, and the same command is
given again. Writes OUT/faults.md, and looks whether the words on the screen are right, the exit status, the state and
the model, and whether the end is bit by bit that of a run without fault; what lies in OUT is not done again. The faults
of the disk take a small tmpfs, for which one has to be root.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from unnoise import run_folder
from unnoise.checkpoint import load
from unnoise.errors import InputError
from unnoise.files import write_json
from unnoise.training import state

IMAGES = 800
TRAIN = ["--images", str(IMAGES), "--backbone", "unet:widths=8-16,layers=1,groups=4,head=8", "--batch", "8"]
TRAIN += ["--steps", "2", "--precision", "fp32", "--held-out", "0", "--decay", "none", "--out", "run/here"]
CODE = """
import sys, time
import torch
from unnoise import cli
from unnoise.training import loop
from unnoise.training.run import Training

loop.SAVE_EVERY, loop.SAVE_SHARE = 0.1, 1.0
given, taken = Training.step, 0

def fault(run, batch, taken):
    pass

{code}

def step(run, batch, *rest):
    global taken
    taken += 1
    time.sleep(0.005)
    return given(run, fault(run, batch, taken) or batch, *rest)

Training.step = step
sys.exit(cli.main(sys.argv[1:]))
"""
POISON = """
noised = loop.noised

def poisoned(*given):
    batch = noised(*given)
    if {when}:
        batch.x_t[0, 0, 0, 0] = torch.nan
    return batch

loop.noised = poisoned
"""
GRADIENT = """
def fault(run, batch, taken):
    if taken == 50:
        p = next(run.model.parameters())
        hook = p.register_hook(lambda grad: [hook.remove(), grad * torch.nan][1])
"""
OPTIMIZER = """
done = []
def fault(run, batch, taken):
    if taken == 50 and not done:
        done.append(1)
        slots = next(iter(run.optimizer.state.values()))
        next(slot for slot in slots.values() if getattr(slot, "ndim", 0)).fill_(torch.nan)
"""
WEIGHT = """
done = []
def fault(run, batch, taken):
    if taken == 50 and not done:
        done.append(1)
        with torch.no_grad():
            next(run.model.parameters()).view(-1)[0] = torch.inf
"""
MEMORY = """
part = Training.in_parts
def in_parts(run, batch, each):
    if run.at_once > {most}:
        raise MemoryError("out of memory")
    return part(run, batch, each)
Training.in_parts = in_parts
"""
CLOCK = """
now = time.time
def fault(run, batch, taken):
    if taken == 50:
        time.time = lambda: now() - 86_400
"""

Process = subprocess.Popen


def nothing(*_: object) -> None:
    pass


class Fault(NamedTuple):
    """`code` runs in the process, `during` while it trains, `before` while it lies stopped, `mend` at the end."""

    name: str
    words: str = ""  # on the screen
    status: int = 0
    code: str = ""
    during: Callable[[Process, Path], object] | None = None
    before: Callable[[Path], object] | None = None
    mend: Callable[[Path], object] = nothing
    exact: bool = True  # whether the end is that of a run without fault
    options: tuple[str, ...] = ()
    data: str = "data.npy"
    goes_on: bool = True  # when the same command is given again
    disk: str = ""  # size of the one that the run lies on


def written(place: Path) -> None:
    """The same 40 images as an array and as a folder."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.save(place / "data.npy", images)
    (place / "pictures").mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(place / "pictures" / f"{i:02d}.png")


def start(place: Path, fault: Fault, code: str = "") -> Process:
    line = [sys.executable, "-c", CODE.format(code=code), "train", fault.data, *TRAIN, *fault.options]
    environment = os.environ | {"UNNOISE_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    return Process(line, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def seen(place: Path) -> int:
    try:
        return int(state.read(place / "run/here")[0]["parts"]["clock"]["seen"])
    except InputError:
        return 0


def until(process: Process, place: Path, images: int = 240) -> None:
    while seen(place) < images:
        if process.poll() is not None:
            raise SystemExit(f"it ended too early: {process.communicate()[0]}")
        time.sleep(0.02)


def sent(*numbers: int) -> Callable[[Process, Path], None]:
    def send(process: Process, _: Path) -> None:
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.001)

    return send


def killed_while_writing(process: Process, place: Path) -> None:
    while process.poll() is None and not any((place / "run/here").glob(".*.part*")):
        time.sleep(0.0005)
    process.kill()


def harmed(name: str, harm: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    def work(place: Path) -> None:
        path = place / "run/here" / name
        content = harm(path.read_bytes())
        path.unlink() if content is None else path.write_bytes(content)

    return work


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def both(place: Path) -> None:
    for name in (run_folder.STATE, run_folder.STATE_BEFORE):
        harmed(name, flipped)(place)


def another(_: Process, place: Path) -> None:
    """The same command at the same time: it is the one that is refused."""
    out, _ = (second := start(place, Fault("second"))).communicate()
    if second.returncode != 2 or "in use by another program" not in out:
        raise SystemExit(f"a second program was let in: {out}")
    print(f"    the second is told: {out.strip().splitlines()[-1]}")


def filled(_: Process, place: Path) -> None:
    """The rest of the disk, for a second."""
    with suppress(OSError), (place / "run/filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    time.sleep(1)
    (place / "run/filler").unlink()


def sealed(_: Process, place: Path) -> None:
    """Read-only for all that is opened from now on."""
    for how in (["--bind"], ["-o", "remount,bind,ro"]):
        subprocess.run(["mount", *how, str(place / "run"), str(place / "run")], check=True)


def unsealed(place: Path) -> None:
    subprocess.run(["umount", str(place / "run")], check=True)


def remounted(how: str, place: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place / "run")], check=True)


FAULTS = [
    Fault(
        "NaN in one image of a batch",
        "1 of the steps: their loss or gradient",
        code=POISON.format(when="taken == 50"),
        exact=False,
    ),
    Fault(
        "NaN in every batch from one on",
        "training stopped: 50 steps in a row were not finite",
        2,
        POISON.format(when="taken > 40"),
        exact=False,
    ),
    Fault("NaN in a gradient", "1 of the steps: their loss or gradient", code=GRADIENT, exact=False),
    Fault("NaN in the optimizer", "back to the state of", code=OPTIMIZER, exact=False),
    Fault("infinity in a weight", "back to the state of", code=WEIGHT, exact=False),
    Fault("memory for four images only", "4 images at a time from now on", code=MEMORY.format(most=4), exact=False),
    Fault("memory for no image", "out of memory even for one image", 2, MEMORY.format(most=0)),
    Fault("state cut in half", "passed over", before=harmed(run_folder.STATE, cut)),
    Fault("a bit of the state flipped", "passed over", before=harmed(run_folder.STATE, flipped)),
    Fault("state empty", "passed over", before=harmed(run_folder.STATE, lambda _: b"")),
    Fault("state removed", "goes on", before=harmed(run_folder.STATE, lambda _: None)),
    Fault("both states damaged", "no state of run/here is whole", 2, before=both, goes_on=False),
    Fault("model file damaged", "goes on", before=harmed("model.safetensors", flipped)),
    Fault("log cut in the middle of a line", "goes on", before=harmed("metrics.jsonl", lambda b: b[:-20])),
    Fault("settings of the run overwritten", "goes on", before=harmed("config.yaml", lambda _: b"lr: [")),
    Fault("other settings", "lr was 0.001, now 0.002", 2, before=nothing, options=("--lr", "2e-3"), goes_on=False),
    Fault("two programs in one folder", "trained", during=another),
    Fault("SIGINT", "stopped by SIGINT", 130, during=sent(signal.SIGINT)),
    Fault("SIGINT twice", "", 130, during=sent(signal.SIGINT, signal.SIGINT)),
    Fault("SIGTERM", "stopped by SIGTERM", 143, during=sent(signal.SIGTERM)),
    Fault("SIGKILL", "", -9, during=sent(signal.SIGKILL)),
    Fault("SIGKILL while a file is written", "", -9, during=killed_while_writing),
    Fault("clock set back by a day", "trained", code=CLOCK),
    Fault(
        "disk full from the start", "is the disk full?", 2, disk="64k", mend=lambda place: remounted("size=8m", place)
    ),
    Fault("disk full for a second", "not saved, and tried again soon", during=filled, disk="4m"),
    Fault(
        "folder read-only from the start", "cannot write to run/here", 2, disk="8m,ro", mend=partial(remounted, "rw")
    ),
    Fault("folder read-only meanwhile", "Read-only file system", 1, during=sealed, mend=unsealed, disk="8m"),
    Fault("data file removed", "trained", during=lambda _, place: (place / "data.npy").unlink(), mend=written),
    Fault(
        "decoded images removed", "are missing or damaged", 2, during=lambda _, place: shutil.rmtree(place / "cache")
    ),
    Fault(
        "decoded images cut short before",
        "goes on",
        before=lambda place: [os.truncate(path, 9) for path in (place / "cache").glob("*/images.bin")],
    ),
    Fault(
        "streamed folder removed",
        "can be read",
        2,
        during=lambda _, place: (place / "pictures").rename(place / "gone"),
        data="pictures",
        options=("--stream",),
        mend=lambda place: (place / "gone").rename(place / "pictures"),
    ),
]


def befallen(place: Path, fault: Fault) -> tuple[int, str]:
    """Status and what was said."""
    if fault.before:
        stopped = start(place, fault._replace(options=()))
        until(stopped, place)
        stopped.send_signal(signal.SIGTERM)
        stopped.communicate()
        fault.before(place)
    process = start(place, fault, fault.code)
    if fault.during:
        until(process, place)
        fault.during(process, place)
    out, _ = process.communicate(timeout=900)
    return process.returncode, out


def whole(place: Path) -> tuple[int, bool]:
    """Images of the last whole state, and whether there is a model file whose weights are whole and finite."""
    try:
        model = load(place / "run/here", "cpu").model
        fine = all(bool(p.isfinite().all()) for p in model.parameters())
    except InputError:
        fine = False
    return seen(place), fine


def weights(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "run/here/model.safetensors")


def tried(place: Path, fault: Fault, wanted: dict[str, torch.Tensor]) -> list[str]:
    """A row of the table; what is not as it should be stands in its last column, and all that was said is printed."""
    (place / "run").mkdir(parents=True)
    written(place)
    if fault.disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={fault.disk}", "tmpfs", str(place / "run")], check=True)
    try:
        status, out = befallen(place, fault)
        lines = [line for line in out.splitlines() if line.strip()]
        line = next((line for line in lines if fault.words and fault.words in line), lines[-1] if lines else "")
        images, model = whole(place)
        wrong = [
            *([f"status {status}, not {fault.status}"] if status != fault.status else []),
            *([f"{fault.words!r} was not said"] if fault.words not in out else []),
            *(["a traceback"] if "Traceback" in out else []),
        ]
        fault.mend(place)
        if fault.goes_on and not wrong:
            out, _ = (again := start(place, fault)).communicate(timeout=900)
            over = "this run is over" in out
            if again.returncode and not over:
                wrong.append("it does not go on")
            elif seen(place) != IMAGES:
                wrong.append("it does not come to its end")
        same = fault.goes_on and not wrong and all(torch.equal(wanted[k], v) for k, v in weights(place).items())
        if fault.exact and fault.goes_on and not wrong and not same:
            wrong.append("it ends otherwise than a run without fault")
        if wrong:
            print(f"{fault.name}: {'; '.join(wrong)}\n{out}", flush=True)
    finally:
        if fault.disk:
            subprocess.run(["umount", str(place / "run")], check=True)
    survived = f"state of {images:,} images" if images else "nothing was there yet"
    end = "exact" if same else "another, as it must be" if fault.goes_on else "refused until it is decided"
    end = "; ".join(wrong) or end
    return [
        fault.name,
        line.strip().removeprefix("unnoise: "),
        str(status),
        survived + (", model" if model else ""),
        end,
    ]


def main(arguments: argparse.Namespace) -> None:
    out = Path(arguments.out).absolute()
    wanted = dict[str, dict[str, torch.Tensor]]()
    for data, options in (("data.npy", ()), ("pictures", ("--stream",))):
        if not (place := out / f"whole-{data}" / "done").exists():
            shutil.rmtree(place.parent, ignore_errors=True)
            place.parent.mkdir(parents=True)
            written(place.parent)
            process = start(place.parent, Fault("none", data=data, options=options))
            process.communicate()
            if process.returncode:
                raise SystemExit("a run without fault failed")
            place.touch()
        place = place.parent
        wanted[data] = weights(place)
    rows = [["fault", "what is said", "exit status", "what survives", "end of the same command, given again"]]
    rows += [["---", "---", "---:", "---", "---"]]
    for i, fault in enumerate(FAULTS):
        if arguments.only in fault.name:
            if not (kept := out / f"{i:02d}.json").exists():
                shutil.rmtree(out / f"{i:02d}", ignore_errors=True)
                write_json(kept, tried(out / f"{i:02d}", fault, wanted[fault.data]))
            rows.append(json.loads(kept.read_text()))
            print(" | ".join(rows[-1]), flush=True)
    (out / "faults.md").write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--only", default="")
    main(parser.parse_args())
