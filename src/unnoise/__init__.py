"""unnoise: train a diffusion model on your own images, on the machine you have, and trust every number it prints.

run = unnoise.train("photos", budget="20m")
images = unnoise.sample(run, 16)
unnoise.show(images)
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unnoise.config import SampleConfig, TrainConfig
from unnoise.errors import InputError

if TYPE_CHECKING:
    from unnoise import backbones, samplers
    from unnoise.card import Run
    from unnoise.checkpoint import load, save
    from unnoise.data.cache import open_data
    from unnoise.diffusion import objective as objectives
    from unnoise.diffusion import schedule as schedules
    from unnoise.diffusion import target as targets
    from unnoise.diffusion.model import Diffusion
    from unnoise.diffusion.objective import noised
    from unnoise.editing.edit import edit
    from unnoise.evaluation.doctor import doctor
    from unnoise.evaluation.evaluate import evaluate
    from unnoise.exporting.export import export
    from unnoise.images import show
    from unnoise.sampling import sample
    from unnoise.training.distill import distill
    from unnoise.training.ema import EMA
    from unnoise.training.monitors import Monitor
    from unnoise.verification.verify import verify

__version__ = "0.2.0.dev0"
__all__ = [
    "EMA",
    "Diffusion",
    "InputError",
    "Run",
    "SampleConfig",
    "TrainConfig",
    "backbones",
    "distill",
    "doctor",
    "edit",
    "evaluate",
    "export",
    "load",
    "noised",
    "objectives",
    "open_data",
    "sample",
    "samplers",
    "save",
    "schedules",
    "show",
    "targets",
    "train",
    "verify",
]

LAZY = {  # name -> where it is; loaded on first use, so that importing unnoise does not import torch
    "EMA": "unnoise.training.ema:EMA",
    "Diffusion": "unnoise.diffusion.model:Diffusion",
    "Run": "unnoise.card:Run",
    "backbones": "unnoise.backbones",
    "distill": "unnoise.training.distill:distill",
    "doctor": "unnoise.evaluation.doctor:doctor",
    "edit": "unnoise.editing.edit:edit",
    "evaluate": "unnoise.evaluation.evaluate:evaluate",
    "export": "unnoise.exporting.export:export",
    "load": "unnoise.checkpoint:load",
    "noised": "unnoise.diffusion.objective:noised",
    "objectives": "unnoise.diffusion.objective",
    "open_data": "unnoise.data.cache:open_data",
    "sample": "unnoise.sampling:sample",
    "samplers": "unnoise.samplers",
    "save": "unnoise.checkpoint:save",
    "schedules": "unnoise.diffusion.schedule",
    "show": "unnoise.images:show",
    "targets": "unnoise.diffusion.target",
    "verify": "unnoise.verification.verify:verify",
}


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module 'unnoise' has no attribute {name!r}")
    module, _, attribute = LAZY[name].partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def train(
    data: Any = "faces", *, recipe: str | None = None, monitors: "Sequence[Monitor]" = (), **settings: Any
) -> "Run":
    """Train a diffusion model and return the run; a run that was stopped before is resumed.

    Args:
        data: A folder, archive or array file of images, the name of a built-in dataset, an array or tensor of images
            [n, h, w, c] or [n, c, h, w], a torch or Hugging Face dataset, or a list of paths or of PIL images.
        recipe: The name of a recipe, or the config.yaml of a run; `settings` change it.
        monitors: Your own, beside previews, held-out loss and KID; see `unnoise.training.monitors.Monitor`.
        settings: The fields of TrainConfig, for example `budget="20m"` or `backbone=MyNet(3)`.

    Returns:
        The run, opened from its folder: `unnoise.sample(run, 16)`; `Path(run)` is the folder.

    Raises:
        InputError: A setting or the data cannot be used; the message says what to change.
    """
    from unnoise.checkpoint import load  # noqa: PLC0415
    from unnoise.recipes import train_config  # noqa: PLC0415
    from unnoise.training.train import train as train_folder  # noqa: PLC0415

    config = train_config(recipe, {"data": data, **settings})
    folder = train_folder(config, monitors)
    return load(folder, backbone=None if isinstance(config.backbone, str) else config.backbone)
