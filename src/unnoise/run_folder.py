"""The files of a run folder, and the results of `unnoise eval` in it.

A run may come from a stranger. So nothing that is read from it follows a link out of its folder: `own_file`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unnoise.errors import InputError
from unnoise.files import parse_json, read_json_lines, write_json

MODEL = "model.safetensors"  # the weights that images are drawn from, and the card
BEST = "best.safetensors"  # the weights with the lowest KID during training
WITHOUT_COPIES = "without-copies.safetensors"  # the last weights that drew no copies of training images
TEACHER = "teacher.safetensors"  # of a distillation: a copy of the run that it learns from
CONFIG = "config.yaml"  # the settings, which are a recipe too
METRICS = "metrics.jsonl"  # one row for each measurement
STATE, STATE_BEFORE = (
    "state.safetensors",
    "state-before.safetensors",
)  # the last state, and the one before
SAMPLES = "samples"  # folder of the grids that are drawn during training
FINAL = "final.png"  # the grid of the end, among the others
LOSS = "loss.png"  # the curve of the losses
EVALUATIONS = "evaluations"  # folder of the results of `unnoise eval`, numbered
NETWORK = "config.json"  # of a checkpoint of diffusers, in the folder of its network
BESIDE = "beside.json"  # among them: results of the run that a student learned from, for the report of the student
RECORD = ".sampled.json"  # in a folder of images: how they were drawn; readers of images skip hidden files


def own_file(folder: Path, *names: str) -> Path | None:
    """Return a regular file of a folder, or None if it is not there or a link leads out of the folder.

    The folder itself may be a link.
    """
    path = folder.joinpath(*names)
    return path if is_own(folder, path) and path.is_file() else None


def own_files(folder: Path, inner: str, pattern: str) -> Iterator[Path]:
    """Yield the regular files of a folder in a folder, sorted by name, as `own_file` returns them."""
    found = sorted(path.name for path in (folder / inner).glob(pattern)) if is_own(folder, folder / inner) else []
    return filter(None, (own_file(folder, inner, name) for name in found))


def is_own(folder: Path, path: Path) -> bool:
    """Return True if a path still lies in a folder when all links are followed, or in the blobs of its own cache.

    A snapshot in a cache of Hugging Face consists of links to the blobs next to the snapshots.
    """
    try:
        root, real = folder.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a link that leads to itself
        return False
    blobs = next((above.parent / "blobs" for above in root.parents if above.name == "snapshots"), root)
    return real.is_relative_to(root) or real.is_relative_to(blobs)


def refuse_links(folder: Path) -> None:
    """Raise InputError if any link below a folder leads out of the folder; call it before files are written there."""
    for inner, folders, names in os.walk(folder):
        for path in (Path(inner, name) for name in (*folders, *names)):
            if path.is_symlink() and not is_own(folder, path):
                raise link_error(path, folder)


def refuse_links_of_run(folder: Path) -> None:
    """Raise InputError if a folder is of a run, such as one of drawn images, and a link leads out of the folder.

    Other folders are the user's own, whose links are followed.
    """
    if own_file(folder, RECORD) or own_file(folder.resolve().parent, METRICS):
        refuse_links(folder)


def link_error(link: Path, folder: Path) -> InputError:
    """Return the error about a link that leads out of a folder."""
    return InputError(
        f"{link} is a link out of {folder}, and such a link is never followed; put the file itself there, or remove "
        f"the link"
    )


@contextmanager
def reading_records(folder: Path) -> Iterator[None]:
    """Raise InputError in place of the errors that records of a run raise if they hold what no training writes.

    The records are JSON that may come from a stranger, or that was edited by hand: a text may stand where a number
    belongs.
    """
    try:
        yield
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{folder}: {METRICS} or a file in {EVALUATIONS}/ holds values that no training writes "
            f"({reason:.100}); get the files again from where the run was trained, or remove them"
        ) from error


def metrics_rows(run_folder: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl in a run folder; none if it is not there."""
    path = own_file(run_folder, METRICS)
    return [] if path is None else [*read_json_lines(path)]


def keep_evaluation(run_folder: Path, result: dict[str, Any]) -> Path | None:
    """Write a result of `unnoise eval` into a run folder; do nothing if the folder holds no training.

    Returns:
        The file, if one was written.

    Raises:
        InputError: The folder of the results is a link out of the run folder.
        OSError: The folder cannot be written.
    """
    if own_file(run_folder, METRICS) is None:
        return None
    if not is_own(run_folder, folder := run_folder / EVALUATIONS):
        raise link_error(folder, run_folder)
    folder.mkdir(exist_ok=True)
    number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.json") if path.stem.isdecimal()), default=0)
    write_json(place := folder / f"{number:04d}.json", result)
    return place


def keep_beside(run_folder: Path, results: list[dict[str, Any]]) -> None:
    """Write the results of the run that a student learned from beside the student's own results."""
    if own_file(run_folder, METRICS) and is_own(run_folder, folder := run_folder / EVALUATIONS) and folder.is_dir():
        write_json(folder / BESIDE, results)


def evaluations_beside(run_folder: Path) -> list[dict[str, Any]]:
    """Return the results of the run that a student learned from; none if they cannot be read."""
    if (path := own_file(run_folder, EVALUATIONS, BESIDE)) is None:
        return []
    try:
        return list(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return []


def evaluations(run_folder: Path) -> list[dict[str, Any]]:
    """Return all results in a run folder, the oldest first; files that cannot be read are left out."""
    return [result for _, result in evaluation_files(run_folder)]


def evaluation_files(run_folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the file and the content of all results in a run folder, as `evaluations` does."""
    found = []
    for path in own_files(run_folder, EVALUATIONS, "[0-9]*.json"):
        try:
            result = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found.append((path, result))
    return found
