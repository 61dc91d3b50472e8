"""The settings of `unnoise distill`."""

from dataclasses import dataclass
from typing import Any

from unnoise.config import MAX_SEED
from unnoise.options import Settings, Spec, option


@dataclass(frozen=True)
class DistillConfig(Settings):
    """Settings of `unnoise distill`."""

    run: str = option("", "run folder or model file of the teacher", title="distillation")
    steps: int = option(4, "steps that the student draws in, each one call of the network", least=1)
    budget: str | None = option(None, "wall time of the distillation, e.g. 10m (default: 20m)")
    images: str | None = option(None, "length in images seen, e.g. 50000, instead of a budget")
    method: Spec = option("progressive", "distillation, as NAME:OPTION=VALUE")
    lr: float = option(2e-3, "peak learning rate", least=0)
    data: Any = option(None, "images to learn from (default: the training images of the run)", data=True)
    n: int = option(500, "images of the teacher and of the student that are scored at the end; 0 is none", least=0)
    seed: int = option(0, "seed of the order of the images and of the noise", least=0, most=MAX_SEED)
    out: str | None = option(
        None, "run folder: a new one, or the folder of a distillation to resume (default: runs/NAME-N)"
    )
    fresh: bool = option(False, "start anew even if the same command was stopped before; nothing is overwritten")
