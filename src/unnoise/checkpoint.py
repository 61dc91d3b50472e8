"""One self-describing file, `model.safetensors`. Data only: no pickle is ever read."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from unnoise import registry
from unnoise.card import Card, Run, make_card, parse_card
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError
from unnoise.interop.diffusers_format import INDEX, WEIGHTS
from unnoise.interop.diffusers_read import read_pipeline
from unnoise.options import plain
from unnoise.run_folder import MODEL
from unnoise.tensors import read_tensors, save_tensors


def build_model(card: Card) -> Diffusion:
    """The untrained model a card describes."""
    schedule, target = registry.schedule.get(card.schedule)(), registry.target.get(card.target)
    return Diffusion(build_backbone(card), schedule, target, card.shape, card.classes)


def build_backbone(card: Card) -> nn.Module:
    channels = card.shape[0]
    outputs = 2 * channels if card.learned_variance else channels
    return cast("nn.Module", registry.backbone.get(card.backbone)(channels, len(card.classes), outputs))


def save(path: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write the self-describing model file."""
    save_tensors(path, weights, plain(card))


def load(run: str | Path, device: str | torch.device | None = None) -> Run:
    """Open a run folder or a model file; the model is in evaluation mode, on the GPU where there is one."""
    path = find_model(Path(run))
    card, weights = read_model(path)
    with torch.device("meta"):  # nothing is allocated before it is known that the file holds as much
        wanted = {name: tensor.shape for name, tensor in build_backbone(card).state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in weights.items()}:
        raise InputError(f"{path}: the weights do not fit the network it names ({card.backbone}); is it damaged?")
    model = build_model(card)
    model.backbone.load_state_dict(weights)
    device = device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    return Run(model.to(device).eval().requires_grad_(requires_grad=False), card, path)


def weights_hash(run: Run) -> str:
    """sha256 of its weights, and of nothing else that the file tells: they may be sampled in another way later."""
    with (run.path.parent / WEIGHTS if run.path.name == INDEX else run.path).open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))  # the header of safetensors, after its own length
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model(path: Path) -> Path:
    """The model file of a run folder, or the file itself, or what is wrong with what was given."""
    if path.is_dir():
        for name in (MODEL, INDEX):
            if (path / name).is_file():
                return path / name
        runs = sorted(found.parent.name for found in path.glob(f"*/{MODEL}"))
        hint = f"it holds the runs {', '.join(runs)}: name one" if runs else "train one with 'unnoise train'"
        raise InputError(f"{path} is no run: it has no {MODEL}; {hint}")
    if not path.exists():
        near = sorted(str(found.parent) for found in Path("runs").glob(f"*/{MODEL}"))
        raise InputError(
            f"no run at {path}; " + (f"there are {', '.join(near)}" if near else "train one with 'unnoise train'")
        )
    return path


def read_model(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Card and weights of a model file, or of a pipeline folder of diffusers by its index."""
    if path.name == INDEX:
        about, weights = read_pipeline(path.parent)
        return make_card(about, path), weights
    text, weights = read_tensors(path)
    return parse_card(text, path), weights
