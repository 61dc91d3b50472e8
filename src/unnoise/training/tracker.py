"""Log a training to TensorBoard, trackio or Weights & Biases too, by Accelerate's trackers."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unnoise.errors import InputError, unknown

TRACKERS = ("tensorboard", "trackio", "wandb")
PROJECT = "unnoise"


def check_tracker(name: str) -> None:
    """Raise InputError for an unknown tracker, or if a package that it needs is missing."""
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    if find_spec("accelerate") is None:
        raise InputError(f"--tracker {name} needs Accelerate: pip install 'unnoise[tracker]' {name}")
    if name not in available_trackers():
        raise InputError(f"--tracker {name} needs its package: pip install {name}")


def available_trackers() -> list[str]:
    """Return the trackers whose packages are installed."""
    from accelerate.tracking import get_available_trackers  # noqa: PLC0415  # slow to import, and an extra

    return [str(name) for name in get_available_trackers()]


def tracker_class(name: str) -> Any:
    """Return Accelerate's class for a tracker."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # noqa: PLC0415

    return LOGGER_TYPE_TO_CLASS[name]


class Tracker:
    """Pass on each row of the log, from the main process; trouble there ends no training, it is reported once."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.name, self.say, self.seen = name, say, 0
        self.tracker: Any = None
        self.try_to(lambda: self.start(folder, {key: str(value) for key, value in settings.items()}))

    def start(self, folder: Path, settings: dict[str, str]) -> None:
        """Open the tracker, and store the settings of the run."""
        made = tracker_class(self.name)
        self.tracker = made(PROJECT, folder) if made.requires_logging_directory else made(PROJECT, name=folder.name)
        self.tracker.start()
        self.tracker.store_init_configuration(settings)

    def log(self, row: Mapping[str, Any]) -> None:
        """Pass on the numbers of a row, unless they were passed on before the run was rolled back."""
        step = int(row["images"])
        if self.tracker is None or step < self.seen:
            return
        self.seen = step
        self.try_to(lambda: self.tracker.log(scalars(row), step=step))

    def finish(self) -> None:
        """Close the tracker."""
        if self.tracker is not None:
            self.try_to(self.tracker.finish)

    def try_to(self, work: Callable[[], object]) -> None:
        """Do some work; if it fails, report that and leave the tracker alone from then on."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  # its network, its disk, its own mistakes
            self.tracker = None
            self.say(f"{self.name} gets no more rows: {error!r:.200}")


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row; lists become means, and the loss of an epoch gets a name of its own."""
    values = {name: sum(value) / len(value) if isinstance(value, list) else value for name, value in row.items()}
    if "epoch" in values:
        values["epoch_loss"] = values.pop("loss")
    return {name: value for name, value in values.items() if isinstance(value, int | float) and name != "images"}
