"""Which folder a run is to be in: a new one, or that of the same command that was stopped."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from unnoise import checkpoint, distributed, run_folder
from unnoise.config import LENGTHS, Sampling, TrainConfig, describe_changes
from unnoise.data.dataset import Dataset
from unnoise.errors import InputError
from unnoise.files import check_vacant, lock_folder, new_folder, remove_leftovers
from unnoise.options import plain
from unnoise.progress import duration
from unnoise.run_folder import STATE, STATE_BEFORE
from unnoise.training import state
from unnoise.training.clock import Clock

RUNS = Path("runs")
FREE = (*LENGTHS, "data", "out", "fresh", "recompute", "tracker")  # settings that may differ: they change no number


@dataclass
class Earlier:
    """A run to go on with: its folder, which is ours alone, its state, and what is to be said of it."""

    folder: Path
    state: state.State
    said: list[str]


def refuse_taken(config: TrainConfig) -> None:
    """What --out names is not there, or empty, or a run: told before any data is read."""
    if config.out is not None and not has_state(Path(config.out).expanduser()):
        check_vacant(config.out)


@contextmanager
def find(config: TrainConfig, dataset: Dataset) -> Iterator[Earlier | None]:
    """The run in --out, or the last one of the same settings and data that was stopped; held until the end."""
    with ExitStack() as to_the_end:
        found = list[Earlier]()

        def first() -> tuple[Path, list[str]] | None:
            found.extend(filter(None, [search(config, dataset, to_the_end)]))
            return (found[0].folder, found[0].said) if found else None

        told = distributed.from_main(first)
        if told and not found:  # another process found it
            found.append(Earlier(told[0], state.read(told[0])[0], told[1]))
        yield found[0] if found else None


def search(config: TrainConfig, dataset: Dataset, to_the_end: ExitStack) -> Earlier | None:
    if config.fresh:
        return None
    if config.out is None:
        tried = (same(path, config, dataset, to_the_end) for path in stopped(dataset.name))
        earlier = next(filter(None, tried), None)
    elif has_state(folder := Path(config.out).expanduser()):
        to_the_end.enter_context(lock_folder(folder))
        earlier = check(Earlier(folder, *state.read(folder)), config, dataset)
    else:
        earlier = None
    if earlier is None:
        return None
    if earlier.said:
        state.set_damaged_aside(earlier.folder)
    remove_leftovers(earlier.folder)
    earlier.said += news(config, earlier.state)
    return earlier


@contextmanager
def place(config: TrainConfig, dataset: Dataset, earlier: Earlier | None) -> Iterator[Path]:
    """The folder to train in: that of the earlier run, or a new one; held until the end."""
    with ExitStack() as to_the_end:
        yield earlier.folder if earlier else distributed.from_main(lambda: new(config, dataset, to_the_end))


def new(config: TrainConfig, dataset: Dataset, to_the_end: ExitStack) -> Path:
    if config.fresh and config.out is not None and has_state(Path(config.out).expanduser()):
        set_aside(Path(config.out).expanduser())
    folder = new_folder(config.out, RUNS, dataset.name)
    to_the_end.enter_context(lock_folder(folder))
    check_vacant(str(folder))  # still
    remove_leftovers(folder)
    return folder


def set_aside(folder: Path) -> None:
    """The run that is there, for a fresh one."""
    with lock_folder(folder):
        pass
    free = (folder.with_name(f"{folder.name}-before-{i}") for i in count(1))
    folder.rename(aside := next(path for path in free if not path.exists()))
    print(f"the run that was in {folder} is now in {aside}")


def check(earlier: Earlier, config: TrainConfig, dataset: Dataset) -> Earlier:
    """Refuse what is not this run, and a run that is over."""
    named = f"--out {earlier.folder}"
    if changed := differences(config, earlier.state, dataset):
        raise InputError(
            f"{named} holds a run of other settings: {'; '.join(changed)}. Give the same ones to go on with it, "
            f"--fresh to start over (it is set aside), or a new folder"
        )
    if over(config, earlier.state, dataset):
        raise InputError(
            f"{named}: this run is over ({so_far(earlier.state)}); give it a longer --budget (or --images, --epochs) "
            f"to go on, --fresh to start over (it is set aside), or a new folder"
        )
    return earlier


def same(folder: Path, config: TrainConfig, dataset: Dataset, to_the_end: ExitStack) -> Earlier | None:
    """This very run, not over, that nobody trains; held until the end."""
    with suppress(InputError, OSError), ExitStack() as trying:
        trying.enter_context(lock_folder(folder))
        try:
            found = Earlier(folder, *state.read(folder))
        except InputError as error:
            print(f"warning: {folder} is left alone: {error}")
            return None
        if any(found.state["config"].get(name) != getattr(config, name) for name in LENGTHS):
            return None
        check(found, config, dataset)
        to_the_end.push(trying.pop_all())
        return found
    return None


def stopped(name: str) -> list[Path]:
    """Folders NAME-N that hold a state, the last one first."""
    found = [path for path in RUNS.glob("*") if path.name.startswith(f"{name}-") and has_state(path)]
    numbered = [(int(end), path) for path in found if (end := path.name.removeprefix(f"{name}-")).isdecimal()]
    return [path for _, path in sorted(numbered, reverse=True)]


def sampling(earlier: Earlier) -> Sampling | None:
    """How the run is sampled, as its model file says it: that may have been tuned."""
    with suppress(InputError):
        return checkpoint.read_model(earlier.folder / run_folder.MODEL)[0].sampling
    return None


def has_state(folder: Path) -> bool:
    return any((folder / name).exists() for name in (STATE, STATE_BEFORE))


def differences(config: TrainConfig, earlier: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """What is not as it was, in words."""
    said = describe_changes(plain(TrainConfig()) | earlier["config"], plain(config), FREE)
    if earlier["fingerprint"] != dataset.fingerprint:
        said.append("the pictures are not the same")
    return said


def over(config: TrainConfig, earlier: Mapping[str, Any], dataset: Dataset) -> bool:
    """Whether it was trained to this length and measured."""
    clock = Clock.of(config, len(dataset))
    state.recall(clock, earlier["parts"]["clock"])
    return clock.progress >= 1 and earlier["parts"]["run"]["finished"]


def so_far(earlier: Mapping[str, Any]) -> str:
    clock = earlier["parts"]["clock"]
    return f"{clock['seen']:,} images in {duration(clock['elapsed'])}"


def news(config: TrainConfig, earlier: Mapping[str, Any]) -> list[str]:
    """What is said of a run that goes on."""
    before, now = earlier["config"], plain(config)
    changed = [name for name in LENGTHS if before.get(name) != now[name]]
    told = [f"length    --{name} was {before.get(name)}, now {now[name]}" for name in changed]
    return [f"goes on   from {so_far(earlier)}; --fresh would start over", *told]
