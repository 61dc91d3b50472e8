"""The faults that faults.py causes: what happens, the message and the exit status that are expected, the repair."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.robustness.trainings import RUN, Process, start_training, write_data
from unnoise.run_folder import CONFIG, METRICS, MODEL, STATE, STATE_BEFORE


def do_nothing(*_: object) -> None:
    """Repair nothing."""


class Fault(NamedTuple):
    """One fault.

    `fault` names one of disturbed.py. `during` happens while the training runs, `before` while it lies stopped;
    `mend` repairs what can be repaired.
    """

    name: str
    words: str = ""  # in the message
    status: int = 0  # exit status
    fault: str = ""
    during: Callable[[Process, Path], object] | None = None
    before: Callable[[Path], object] | None = None
    mend: Callable[[Path], object] = do_nothing
    exact: bool = True  # True if the end must be that of a run without fault, bit by bit
    options: tuple[str, ...] = ()
    data: str = "data.npy"
    resumes: bool = True  # True if the same command must resume the run
    disk: str = ""  # size of a small disk for the run; "" is none


def send(*signals: int) -> Callable[[Process, Path], None]:
    """Return a function that sends these signals."""

    def send_all(process: Process, _: Path) -> None:
        for number in signals:
            process.send_signal(number)
            time.sleep(0.001)

    return send_all


def kill_while_writing(process: Process, place: Path) -> None:
    """Kill the process while a file is being written."""
    while process.poll() is None and not any((place / RUN).glob(".*.part*")):
        time.sleep(0.0005)
    process.kill()


def change(name: str, changed: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    """Return a function that changes the bytes of a file of the run, or removes it if `changed` returns None."""

    def change_file(place: Path) -> None:
        path = place / RUN / name
        content = changed(path.read_bytes())
        path.unlink() if content is None else path.write_bytes(content)

    return change_file


def flip_bit(content: bytes) -> bytes:
    """Return the content with one bit flipped in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def cut(content: bytes) -> bytes:
    """Return the first half of the content."""
    return content[: len(content) // 2]


def damage_both_states(place: Path) -> None:
    """Flip a bit of the state and of the state before it."""
    for name in (STATE, STATE_BEFORE):
        change(name, flip_bit)(place)


def start_second(_: Process, place: Path) -> None:
    """Start the same command at the same time, which must be refused."""
    out, _ = (second := start_training(place, "data.npy")).communicate()
    if second.returncode != 2 or "in use by another program" not in out:
        raise SystemExit(f"a second program was let in: {out}")
    print(f"    the second program prints: {out.strip().splitlines()[-1]}")


def fill_disk(_: Process, place: Path) -> None:
    """Fill the disk for a second."""
    with suppress(OSError), (place / "run/filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    time.sleep(1)
    (place / "run/filler").unlink()


def make_read_only(_: Process, place: Path) -> None:
    """Make the folder read-only for all files that are opened from now on."""
    for how in (["--bind"], ["-o", "remount,bind,ro"]):
        subprocess.run(["mount", *how, str(place / "run"), str(place / "run")], check=True)


def make_writable(place: Path) -> None:
    """Undo `make_read_only`."""
    subprocess.run(["umount", str(place / "run")], check=True)


def remount(how: str, place: Path) -> None:
    """Mount the small disk again, with other options."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(place / "run")], check=True)


def remove_data_file(_: Process, place: Path) -> None:
    """Remove the file of the images."""
    (place / "data.npy").unlink()


def remove_cache(_: Process, place: Path) -> None:
    """Remove the decoded images."""
    shutil.rmtree(place / "cache")


def cut_cache(place: Path) -> None:
    """Cut the decoded images to 9 bytes."""
    for path in (place / "cache").glob("*/images.bin"):
        os.truncate(path, 9)


def rename_images(_: Process, place: Path) -> None:
    """Rename the folder of images that is streamed."""
    (place / "images").rename(place / "gone")


def rename_back(place: Path) -> None:
    """Undo `rename_images`."""
    (place / "gone").rename(place / "images")


RESUMED = "resume    from"
NUMBERS = [
    Fault("NaN in one image of a batch", "1 steps: their loss or gradient", fault="nan_image", exact=False),
    Fault(
        "NaN in every batch from one on",
        "training stopped: 50 steps in a row were not finite",
        2,
        fault="nan_always",
        exact=False,
    ),
    Fault("NaN in a gradient", "1 steps: their loss or gradient", fault="nan_gradient", exact=False),
    Fault("NaN in the optimizer", "back to the state of", fault="nan_optimizer", exact=False),
    Fault("infinity in a weight", "back to the state of", fault="infinite_weight", exact=False),
    Fault("memory for four images only", "4 images at a time from now on", fault="memory:4", exact=False),
    Fault("memory for no image", "out of memory even for one image", 2, fault="memory:0"),
]
FILES = [
    Fault("state cut in half", "not used:", before=change(STATE, cut)),
    Fault("a bit of the state flipped", "not used:", before=change(STATE, flip_bit)),
    Fault("state empty", "not used:", before=change(STATE, lambda _: b"")),
    Fault("state removed", RESUMED, before=change(STATE, lambda _: None)),
    Fault("both states damaged", f"no state of {RUN} is whole", 2, before=damage_both_states, resumes=False),
    Fault("model file damaged", RESUMED, before=change(MODEL, flip_bit)),
    Fault("log cut in the middle of a line", RESUMED, before=change(METRICS, lambda content: content[:-20])),
    Fault("settings of the run overwritten", RESUMED, before=change(CONFIG, lambda _: b"lr: [")),
    Fault("other settings", "lr was 0.003, now 0.002", 2, before=do_nothing, options=("--lr", "2e-3"), resumes=False),
    Fault("two programs in one folder", "trained", during=start_second),
]
SIGNALS = [
    Fault("SIGINT", "stopped by SIGINT", 130, during=send(signal.SIGINT)),
    Fault("SIGINT twice", "", 130, during=send(signal.SIGINT, signal.SIGINT)),
    Fault("SIGTERM", "stopped by SIGTERM", 143, during=send(signal.SIGTERM)),
    Fault("SIGKILL", "", -9, during=send(signal.SIGKILL)),
    Fault("SIGKILL while a file is written", "", -9, during=kill_while_writing),
    Fault("clock set back by a day", "trained", fault="clock"),
]
DISKS = [
    Fault("disk full from the start", "is the disk full?", 2, disk="64k", mend=partial(remount, "size=8m")),
    Fault("disk full for a second", "not saved, and tried again soon", during=fill_disk, disk="4m"),
    Fault("folder read-only from the start", f"cannot write to {RUN}", 2, disk="8m,ro", mend=partial(remount, "rw")),
    Fault(
        "folder read-only meanwhile", "Read-only file system", 1, during=make_read_only, mend=make_writable, disk="8m"
    ),
    Fault("data file removed", "trained", during=remove_data_file, mend=write_data),
    Fault("decoded images removed", "are missing or damaged", 2, during=remove_cache),
    Fault("decoded images cut short before", RESUMED, before=cut_cache),
    Fault(
        "streamed folder removed",
        "can be read",
        2,
        during=rename_images,
        data="images",
        options=("--stream",),
        mend=rename_back,
    ),
]
FAULTS = [*NUMBERS, *FILES, *SIGNALS, *DISKS]
