"""The files of a run folder, and the results of `unnoise eval` in it."""

import json
from pathlib import Path
from typing import Any

from unnoise.files import write_json

MODEL = "model.safetensors"  # the weights that images are drawn from, and the card
BEST = "best.safetensors"  # the weights with the lowest KID during training
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


def keep_evaluation(run_folder: Path, result: dict[str, Any]) -> None:
    """Write a result of `unnoise eval` into a run folder; do nothing if the folder holds no training."""
    if not (run_folder / METRICS).is_file():
        return
    folder = run_folder / EVALUATIONS
    folder.mkdir(exist_ok=True)
    number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.json") if path.stem.isdigit()), default=0)
    write_json(folder / f"{number:04d}.json", result)


def evaluations(run_folder: Path) -> list[dict[str, Any]]:
    """Return all results in a run folder, the oldest first; files that cannot be read are left out."""
    found = []
    for path in sorted((run_folder / EVALUATIONS).glob("[0-9]*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found.append(result)
    return found
