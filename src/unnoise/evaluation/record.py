"""Results as JSON: those of a run are kept in its folder one after the other."""

import json
from pathlib import Path
from typing import Any

from unnoise.checkpoint import Run
from unnoise.files import write_json

FOLDER = "evaluations"


def keep(run: Run, result: dict[str, Any]) -> None:
    """Write a result into the folder of its run, if it has one."""
    if not (run.path.parent / "metrics.jsonl").is_file():
        return
    folder = run.path.parent / FOLDER
    folder.mkdir(exist_ok=True)
    number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.json") if path.stem.isdigit()), default=0)
    write_json(folder / f"{number:04d}.json", result)


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """All results in a run folder, the oldest first; what can't be read is left out."""
    found = []
    for path in sorted((folder / FOLDER).glob("[0-9]*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found.append(result)
    return found
