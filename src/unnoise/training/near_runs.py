"""Name the run that a command would resume except for one thing: a new run is never started without a word."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from unnoise.config import LENGTHS, TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.errors import InputError
from unnoise.training.resume import MAY_DIFFER, RUNS, changed_settings, has_state
from unnoise.training.state import read_facts

LOOKED_AT = 50  # runs, the last ones
SAME_RUN = tuple(name for name in MAY_DIFFER if name not in LENGTHS)


def near_runs(config: TrainConfig, dataset: Dataset) -> list[str]:
    """Return a line about the last run that this command nearly resumes, or nothing if there is none.

    Call it when no run was found to resume.
    """
    if config.fresh or config.out is not None:
        return []
    folders = sorted((path for path in RUNS.glob("*") if has_state(path)), key=last_change, reverse=True)
    for folder in folders[:LOOKED_AT]:
        with suppress(InputError, OSError, KeyError, TypeError, ValueError, AttributeError):  # a damaged state
            if line := describe_near_run(folder, read_facts(folder), config, dataset):
                return [f"new run   {line}"]
    return []


def last_change(folder: Path) -> float:
    """Return the time of the last change in a folder; 0 if the folder is gone."""
    with suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def describe_near_run(folder: Path, state: Mapping[str, Any], config: TrainConfig, dataset: Dataset) -> str:
    """Return what one run has in common with this command, and how to resume it; an empty text for another run."""
    changed = changed_settings(config, state["config"], SAME_RUN)
    name = str(state.get("data", {}).get("name") or folder.name.rpartition("-")[0])
    same_name, same_images = name == dataset.name, state["fingerprint"] == dataset.fingerprint
    if same_name and not same_images and not changed:
        return (
            f"since {folder} was trained on other images ({describe_count(state)}now {len(dataset):,}). To start from "
            f"its weights, add --init {folder}"
        )
    if not same_images or state["finished"] or (changed and not (same_name and only_one(changed))):
        return ""
    if changed:
        return f"since {folder} was stopped with another setting: {'; '.join(changed)}. With its setting, it is resumed"
    if same_name:
        return f"since another program trains {folder}, which has the same settings and images"
    return f"since {folder} has these images under the name {name}. It was stopped; to resume it, add --out {folder}"


def describe_count(state: Mapping[str, Any]) -> str:
    """Return the number of images that a run was trained on, if its state says so."""
    count = state.get("data", {}).get("count")
    return f"then {count:,}, " if isinstance(count, int) else ""


def only_one(changed: list[str]) -> bool:
    """Return True if one setting has changed; the length counts as one."""
    others = [text for text in changed if text.partition(" ")[0] not in LENGTHS]
    return len(others) + (len(others) < len(changed)) == 1
