"""Which folder a run is to be in: a new one, or that of the same command that was stopped."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unnoise.checkpoint import WEIGHTS, new_folder
from unnoise.config import LENGTHS, TrainConfig
from unnoise.data.cache import Dataset
from unnoise.errors import InputError
from unnoise.training import state
from unnoise.training.length import Clock
from unnoise.training.log import duration

RUNS = Path("runs")
LOCK = ".lock"
FREE = (*LENGTHS, "out", "fresh")  # settings that may differ: how far to go, and where


@dataclass
class Earlier:
    """A run to go on with: its folder, which is ours alone, its state, and what is to be said of it."""

    folder: Path
    state: state.State
    said: list[str]


def refuse_taken(config: TrainConfig) -> None:
    """What --out names is not there, or empty, or a run: told before any data is read."""
    if config.out is None or not (folder := Path(config.out).expanduser()).exists():
        return
    if not folder.is_dir():
        raise InputError(f"--out {folder} is a file; name a new folder")
    if not has_state(folder):
        refuse_files(folder)


def refuse_files(folder: Path) -> None:
    """But for the lock, and for what was being written when a run was killed."""
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        what = "a run without its state" if (folder / WEIGHTS).exists() else "files"
        raise InputError(f"--out {folder} already holds {what}, which is never overwritten; name a new folder")


@contextmanager
def find(config: TrainConfig, dataset: Dataset) -> Iterator[Earlier | None]:
    """The run in --out, or the last one of the same settings and data that was stopped; held until the end."""
    with ExitStack() as held:
        if config.fresh:
            yield None
        elif config.out is None:
            yield next((run for folder in stopped(dataset.name) if (run := same(folder, config, dataset, held))), None)
        elif has_state(folder := Path(config.out).expanduser()):
            held.enter_context(lock(folder))
            yield checked(folder, config, dataset)
        else:
            yield None


@contextmanager
def place(config: TrainConfig, dataset: Dataset, earlier: Earlier | None) -> Iterator[Path]:
    """The folder to train in: that of the earlier run, or a new one; held until the end."""
    if earlier:
        yield earlier.folder
        return
    if config.out is None:
        folder = new_folder(None, RUNS, dataset.name)
    else:
        folder = Path(config.out).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write to {folder} ({error.strerror}); choose another folder with --out"
            ) from error
        if config.fresh and has_state(folder):
            set_aside(folder)
    with lock(folder):
        refuse_files(folder)
        yield folder


def set_aside(folder: Path) -> None:
    """The run that is there, for a fresh one."""
    with lock(folder):
        pass
    free = (folder.with_name(f"{folder.name}-before-{i}") for i in count(1))
    folder.rename(aside := next(path for path in free if not path.exists()))
    folder.mkdir()
    print(f"the run that was in {folder} is now in {aside}")


def checked(folder: Path, config: TrainConfig, dataset: Dataset) -> Earlier:
    """The run in --out; refuses another one, and one that is over."""
    earlier, said = state.read(folder)
    if changed := differences(config, earlier, dataset):
        raise InputError(
            f"--out {folder} holds a run of other settings: {'; '.join(changed)}. Give the same ones to go on with it, "
            f"--fresh to start over (it is set aside), or a new folder"
        )
    if over(config, earlier, dataset):
        raise InputError(
            f"--out {folder}: this run is over ({so_far(earlier)}); give a longer --budget (or --images, --epochs) to "
            f"go on, --fresh to start over (it is set aside), or a new folder"
        )
    return Earlier(folder, earlier, said + news(config, earlier))


def same(folder: Path, config: TrainConfig, dataset: Dataset, held: ExitStack) -> Earlier | None:
    """The run in the folder, if it is this one and not over, and nobody trains it."""
    with suppress(InputError), ExitStack() as trying:
        trying.enter_context(lock(folder))
        earlier, said = state.read(folder)
        if not differences(config, earlier, dataset) and not over(config, earlier, dataset):
            held.push(trying.pop_all())
            return Earlier(folder, earlier, said + news(config, earlier))
    return None


def stopped(name: str) -> list[Path]:
    """Folders NAME-N that hold a state, the last one first."""
    found = [path for path in RUNS.glob("*") if path.name.startswith(f"{name}-") and has_state(path)]
    numbered = [(int(end), path) for path in found if (end := path.name.removeprefix(f"{name}-")).isdecimal()]
    return [path for _, path in sorted(numbered, reverse=True)]


def has_state(folder: Path) -> bool:
    return any((folder / name).exists() for name in (state.STATE, state.BEFORE))


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder; refuses where another program does."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            for part in folder.glob(".*.part*"):  # of a run that was killed
                part.unlink(missing_ok=True)
            yield
    except Timeout:
        raise InputError(f"{folder} is being trained by another program; wait for it, or name a new folder") from None


def differences(config: TrainConfig, earlier: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """What is not as it was, in words."""
    before, now = earlier["config"], asdict(config)
    default = asdict(TrainConfig())
    said = [
        f"{name} was {was!r}, now {value!r}"
        for name, value in now.items()
        if name not in FREE and (was := before.get(name, default[name])) != value
    ]
    if earlier["fingerprint"] != dataset.fingerprint:
        said.append("the pictures are not the same")
    return said


def over(config: TrainConfig, earlier: Mapping[str, Any], dataset: Dataset) -> bool:
    clock = Clock.of(config, len(dataset))
    state.recall(clock, earlier["parts"]["clock"])
    return clock.progress >= 1


def so_far(earlier: Mapping[str, Any]) -> str:
    clock = earlier["parts"]["clock"]
    return f"{clock['seen']:,} images in {duration(clock['elapsed'])}"


def news(config: TrainConfig, earlier: Mapping[str, Any]) -> list[str]:
    """What is said of a run that goes on."""
    before, now = earlier["config"], asdict(config)
    changed = [name for name in LENGTHS if before.get(name) != now[name]]
    told = [f"length    --{name} was {before.get(name)}, now {now[name]}" for name in changed]
    return [f"goes on   from {so_far(earlier)}; --fresh would start over", *told]
