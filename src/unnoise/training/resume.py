"""Find the folder of a training: a new one, or the one in which the same command was stopped."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from unnoise import checkpoint, distributed
from unnoise.config import LENGTHS, Sampling, TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.device import pick_device
from unnoise.errors import InputError, NothingLeftError
from unnoise.files import check_new_folder, check_vacant, lock_folder, new_folder, remove_leftovers, user_path
from unnoise.options import describe_changes, plain
from unnoise.progress import duration
from unnoise.run_folder import MODEL, STATE, STATE_BEFORE, own_file, refuse_links
from unnoise.tensors import check_name
from unnoise.terminal import tell
from unnoise.training.checks import WITHOUT_FEATURES
from unnoise.training.clock import Clock
from unnoise.training.optimizers import peak_lr
from unnoise.training.state import State, read_state, recall, set_damaged_aside

RUNS = Path("runs")
OTHER_IMAGES = "the images are not the same"
MAY_DIFFER = (
    *LENGTHS,
    "data",
    "out",
    "fresh",
    "allow_copies",
    "recompute",
    "tracker",
    "plugin",
)  # settings that change no number
# of version 0.1.0, which knew no references and looked for no copies
FIRST_DEFAULTS: dict[str, Any] = {
    "objective": "capped_v:gamma=2.5,first=20",
    "batch": 64,
    "lr": 1e-3,
    "references": 0,
    "allow_copies": True,
}


@dataclass
class Earlier:
    """A run to resume: its folder, which is locked, its state, and messages about it."""

    folder: Path
    state: State
    messages: list[str]


def refuse_taken(config: TrainConfig) -> None:
    """Raise InputError, before any data is read, if --out has files and is no run, or if no folder can be made."""
    if config.out is not None and has_state(user_path(config.out)):
        return
    if config.out is not None:
        check_name(check_vacant(config.out))
    check_new_folder(config.out, RUNS)


@contextmanager
def find(config: TrainConfig, dataset: Dataset) -> Iterator[Earlier | None]:
    """Find the run in --out, or the last stopped run of the same settings and data; it is locked in this context."""
    with ExitStack() as to_the_end:
        found = list[Earlier]()

        def search_and_tell() -> tuple[Path, list[str]] | None:
            found.extend(filter(None, [search(config, dataset, to_the_end)]))
            return (found[0].folder, found[0].messages) if found else None

        told = distributed.from_main(search_and_tell)
        if told and not found:  # another process found it
            found.append(Earlier(told[0], read_state(told[0])[0], told[1]))
        yield found[0] if found else None


def search(config: TrainConfig, dataset: Dataset, to_the_end: ExitStack) -> Earlier | None:
    """Return the run to resume, if there is one; its folder is locked until `to_the_end` closes."""
    if config.fresh:
        return None
    if config.out is None:
        tried = (same_run(path, config, dataset, to_the_end) for path in stopped_runs(dataset.name))
        earlier = next(filter(None, tried), None)
    elif has_state(folder := user_path(config.out)):
        refuse_links(folder)
        to_the_end.enter_context(lock_folder(folder))
        earlier = check_same(Earlier(folder, *read_state(folder)), config, dataset)
    else:
        earlier = None
    if earlier is None:
        return None
    if earlier.messages:
        set_damaged_aside(earlier.folder)
    remove_leftovers(earlier.folder)
    earlier.messages += resume_messages(config, earlier.state)
    return earlier


@contextmanager
def place(config: TrainConfig, dataset: Dataset, earlier: Earlier | None) -> Iterator[Path]:
    """Provide the folder to train in: the earlier run's, or a new one, locked in this context."""
    with ExitStack() as to_the_end:
        yield earlier.folder if earlier else distributed.from_main(lambda: make_folder(config, dataset, to_the_end))


def make_folder(config: TrainConfig, dataset: Dataset, to_the_end: ExitStack) -> Path:
    """Make a new folder, locked until `to_the_end` closes; with --fresh, rename the run that is there."""
    if config.fresh and config.out is not None and has_state(user_path(config.out)):
        set_aside(user_path(config.out))
    folder = new_folder(config.out, RUNS, dataset.name)
    to_the_end.enter_context(lock_folder(folder))
    check_vacant(str(folder))  # still, now that it is locked
    remove_leftovers(folder)
    return folder


def set_aside(folder: Path) -> None:
    """Rename a run, so that a fresh one can take its folder."""
    with lock_folder(folder):
        pass
    free = (folder.with_name(f"{folder.name}-before-{i}") for i in count(1))
    folder.rename(aside := next(path for path in free if not path.exists()))
    tell(f"the run that was in {folder} is now in {aside}")


def check_same(earlier: Earlier, config: TrainConfig, dataset: Dataset) -> Earlier:
    """Return a run that can be resumed; raise InputError for one of other settings or data, or one that is over."""
    named = f"--out {earlier.folder}"
    if changed := differences(config, earlier.state, dataset):
        other_images = changed[-1].startswith(OTHER_IMAGES)
        more = f" with --init {earlier.folder} to start from its weights" if other_images else ""
        raise InputError(
            f"{named} holds a run of other settings: {'; '.join(changed)}. Give the same ones to resume it, "
            f"--fresh to start over (the run is renamed), or a new folder{more}"
        )
    if is_over(config, earlier.state, dataset) and has_ended(config, earlier.state):
        raise NothingLeftError(
            f"{named}: this run was ended ({so_far(earlier.state)}), since it drew copies of its training images; "
            f"--allow-copies resumes it, --fresh starts over (the run is renamed)"
        )
    if is_over(config, earlier.state, dataset):
        raise NothingLeftError(
            f"{named}: this run is over ({so_far(earlier.state)}); give it a longer --budget (or --images, --epochs) "
            f"to resume it, --fresh to start over (the run is renamed), or a new folder"
        )
    return earlier


def same_run(folder: Path, config: TrainConfig, dataset: Dataset, to_the_end: ExitStack) -> Earlier | None:
    """Return the run in a folder if it is this one, not over, and nobody trains it; it stays locked."""
    with suppress(InputError, OSError), ExitStack() as trying:
        trying.enter_context(lock_folder(folder))
        try:
            refuse_links(folder)
            found = Earlier(folder, *read_state(folder))
        except InputError as error:
            tell(f"warning: {folder} is left alone: {error}")
            return None
        if any(found.state["config"].get(name) != getattr(config, name) for name in LENGTHS):
            return None
        check_same(found, config, dataset)
        to_the_end.push(trying.pop_all())
        return found
    return None


def stopped_runs(name: str) -> list[Path]:
    """Return the folders NAME-N that hold a state, the last one first."""
    found = [path for path in RUNS.glob("*") if path.name.startswith(f"{name}-") and has_state(path)]
    numbered = [(int(end), path) for path in found if (end := path.name.removeprefix(f"{name}-")).isdecimal()]
    return [path for _, path in sorted(numbered, reverse=True)]


def as_then(config: TrainConfig, earlier: Mapping[str, Any]) -> TrainConfig:
    """Return the settings with the choice of an earlier run if they leave one open, and its defaults of version 0.1.0.

    A state of version 0.1.0 holds no `references`. A given value that is today's default is replaced too.
    """
    config = replace(config, flip=bool(earlier.get("flip"))) if config.flip is None else config
    if "references" in earlier:
        return config
    resolved = {"lr": peak_lr(replace(config, lr=None)), "objective": WITHOUT_FEATURES}  # what a default may become
    today = {name: (getattr(TrainConfig, name), resolved.get(name)) for name in FIRST_DEFAULTS}
    return replace(config, **{name: FIRST_DEFAULTS[name] for name in today if getattr(config, name) in today[name]})


def with_chosen(config: TrainConfig, earlier: Earlier | None) -> TrainConfig:
    """Return the settings with the backbone and the precision that were chosen when the run started."""
    if earlier is None:
        return config
    backbone = config.backbone or earlier.state["backbone"]  # it may be a network itself, which a state cannot hold
    return replace(config, backbone=backbone, precision=earlier.state["precision"])


def tuned_settings(earlier: Earlier) -> Sampling | None:
    """Return the sampling settings in the model file of a run, since `unnoise tune` may have changed them."""
    with suppress(InputError):
        return checkpoint.read_model(earlier.folder / MODEL)[0].sampling
    return None


def has_state(folder: Path) -> bool:
    """Return True if a folder holds a state."""
    return any(own_file(folder, name) for name in (STATE, STATE_BEFORE))


def changed_settings(config: TrainConfig, earlier: Mapping[str, Any], free: Collection[str]) -> list[str]:
    """Return in words which settings are not as in an earlier run, except settings that are free to change."""
    return describe_changes(
        {**plain(TrainConfig()), **FIRST_DEFAULTS, **earlier}, plain(as_then(config, earlier)), free
    )


def differences(config: TrainConfig, earlier: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """Return in words which settings and data are not as they were."""
    changed = changed_settings(config, earlier["config"], MAY_DIFFER)
    if earlier["fingerprint"] != dataset.fingerprint:
        then = earlier.get("data", {}).get("count")
        count = f" ({then:,} then, {len(dataset):,} now)" if isinstance(then, int) else ""
        changed.append(f"{OTHER_IMAGES}{count}")
    return changed


def is_over(config: TrainConfig, earlier: Mapping[str, Any], dataset: Dataset) -> bool:
    """Return True if a run was trained to the length of the settings, and measured."""
    clock = Clock.from_config(as_then(config, earlier["config"]), len(dataset))
    recall(clock, earlier["parts"]["clock"])
    clock.ended = has_ended(config, earlier)
    return bool(clock.progress >= 1 and earlier["finished"])


def has_ended(config: TrainConfig, earlier: Mapping[str, Any]) -> bool:
    """Return True if a run was ended since it drew copies, and the settings do not allow them."""
    return bool(earlier["parts"]["clock"].get("ended")) and not config.allow_copies


def so_far(earlier: Mapping[str, Any]) -> str:
    """Return the images and the time of a state in words."""
    clock = earlier["parts"]["clock"]
    return f"{clock['seen']:,} images in {duration(clock['elapsed'])}"


def resume_messages(config: TrainConfig, earlier: Mapping[str, Any]) -> list[str]:
    """Return what to print about a run that is resumed."""
    before, now = earlier["config"], plain(config)
    changed = [name for name in LENGTHS if before.get(name) != now[name]]
    lengths = [f"length    --{name} was {before.get(name)}, now {now[name]}" for name in changed]
    return [f"resume    from {so_far(earlier)}; --fresh would start over", *lengths, *other_threads(earlier)]


def other_threads(earlier: Mapping[str, Any]) -> list[str]:
    """Return a line if a CPU now computes on another number of threads: sums are then rounded in another order."""
    before, now = earlier.get("threads", 0), torch.get_num_threads()
    if not before or before == now or pick_device().type != "cpu":
        return []
    about = f"threads   {before} until now, {now} from now on: rounding differs, at the end by about 1e-6"
    return [f"{about}; OMP_NUM_THREADS={before} keeps every bit"]
