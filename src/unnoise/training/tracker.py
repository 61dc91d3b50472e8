"""Elsewhere that a training is logged to: one of Accelerate's trackers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from unnoise.errors import InputError, unknown

TRACKERS = ("tensorboard", "trackio", "wandb")
PROJECT = "unnoise"


def check_tracker(name: str) -> None:
    """Refuse what is no tracker, or one whose package is missing."""
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    if name not in map(str, get_available_trackers()):
        raise InputError(f"--tracker {name} needs its package: pip install {name}")


class Tracker:
    """Told each row of the log, by the first process alone; trouble there ends no training, it is said once."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.name, self.say, self.seen = name, say, 0
        self.tracker: Any = None
        self.tried(lambda: self.start(folder, {key: str(value) for key, value in settings.items()}))

    def start(self, folder: Path, settings: dict[str, str]) -> None:
        made = LOGGER_TYPE_TO_CLASS[self.name]
        inside = made.requires_logging_directory
        self.tracker = made(PROJECT, folder) if inside else made(PROJECT, name=folder.name)
        self.tracker.start()
        self.tracker.store_init_configuration(settings)

    def tell(self, row: Mapping[str, Any]) -> None:
        """Its numbers, at the images seen; none that were told before a run went back to an earlier state."""
        step = int(row["images"])
        if self.tracker is None or step < self.seen:
            return
        self.seen = step
        self.tried(lambda: self.tracker.log(numbers(row), step=step))

    def finish(self) -> None:
        if self.tracker is not None:
            self.tried(self.tracker.finish)

    def tried(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # its network, its disk, its own mistakes
            self.tracker = None
            self.say(f"{self.name} is told no more: {error!r:.200}")


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Of a row, lists as their means; the loss of an epoch is another one than that of some steps."""
    said = {name: sum(value) / len(value) if isinstance(value, list) else value for name, value in row.items()}
    if "epoch" in said:
        said["epoch_loss"] = said.pop("loss")
    return {name: value for name, value in said.items() if isinstance(value, int | float) and name != "images"}
