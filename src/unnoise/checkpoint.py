"""One self-describing file, `model.safetensors`. Data only: no pickle is ever read."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unnoise import pipeline, registry
from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError
from unnoise.files import replacing
from unnoise.types import MODES

WEIGHTS = "model.safetensors"
FORMAT = 1
MOST = 2**16  # pixels of a side


@dataclass(frozen=True)
class Card:
    """Everything a model file says of itself beside its weights: plain values."""

    backbone: str
    schedule: str
    target: str
    shape: tuple[int, int, int]  # channels, height, width
    mode: str  # of the written pictures: L, LA, RGB, RGBA, I;16, or "" for other channel counts
    classes: tuple[str, ...] = ()
    learned_variance: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    data: Mapping[str, Any] = field(default_factory=dict)  # name, fingerprint, count
    training: Mapping[str, Any] = field(default_factory=dict)  # images, seconds, config, loss curve
    format: int = FORMAT


class Run(NamedTuple):
    """A trained model, what its file says, and where it lies."""

    model: Diffusion
    card: Card
    path: Path


def build(card: Card) -> Diffusion:
    """The untrained model a card describes."""
    schedule, target = registry.schedule.get(card.schedule)(), registry.target.get(card.target)
    return Diffusion(backbone(card), schedule, target, card.shape, card.classes)


def backbone(card: Card) -> nn.Module:
    channels = card.shape[0]
    outputs = 2 * channels if card.learned_variance else channels
    return cast("nn.Module", registry.backbone.get(card.backbone)(channels, len(card.classes), outputs))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Any, before: Path | None = None) -> None:
    """Safetensors with one JSON text of metadata and a checksum of everything; read again before it counts."""
    flat, text = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, json.dumps(about)
    with replacing(path, before) as temporary:
        try:
            save_file(flat, temporary, {"unnoise": text, "sha256": checksum(text, flat)})
        except SafetensorError as error:
            raise InputError(
                f"cannot write {path} ({error}); is the disk full? What was saved before is whole"
            ) from error
        read_tensors(temporary)


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the description, and of the name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The description and the tensors of a file of `save_tensors`; refuses what is damaged, or no such file."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if "unnoise" not in about:
                raise InputError(
                    f"{path} holds weights but not what network they belong to; unnoise opens its own {WEIGHTS}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:  # the last: "unable to open"
        if isinstance(error, SafetensorError) and is_pickle(path):
            raise InputError(
                f"{path} is a Python pickle (a .pt or .ckpt file), which can run code when opened; unnoise reads only "
                f"safetensors: give a run folder or its {WEIGHTS}"
            ) from error
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); give a run folder or its {WEIGHTS}"
        ) from error
    if about.get("sha256", wanted := checksum(about["unnoise"], tensors)) != wanted:
        raise InputError(f"{path} is damaged: its checksum is another one than when it was written")
    return about["unnoise"], tensors


def save(path: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write the self-describing model file."""
    save_tensors(path, weights, asdict(card))


def load(run: str | Path, device: str | torch.device | None = None) -> Run:
    """Open a run folder or a model file; the model is in evaluation mode, on the GPU where there is one."""
    path = find(Path(run))
    card, weights = read(path)
    with torch.device("meta"):  # nothing is allocated before it is known that the file holds as much
        wanted = {name: tensor.shape for name, tensor in backbone(card).state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in weights.items()}:
        raise InputError(f"{path}: the weights do not fit the network it names ({card.backbone}); is it damaged?")
    model = build(card)
    model.backbone.load_state_dict(weights)
    device = device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    return Run(model.to(device).eval().requires_grad_(requires_grad=False), card, path)


def weights_of(run: Run) -> str:
    """sha256 of its weights, and of nothing else that the file tells: they may be sampled in another way later."""
    with (run.path.parent / pipeline.WEIGHTS if run.path.name == pipeline.INDEX else run.path).open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))  # the header of safetensors, after its own length
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(path: Path) -> Path:
    """The model file of a run folder, or the file itself, or what is wrong with what was given."""
    if path.is_dir():
        for name in (WEIGHTS, pipeline.INDEX):
            if (path / name).is_file():
                return path / name
        runs = sorted(found.parent.name for found in path.glob(f"*/{WEIGHTS}"))
        hint = f"it holds the runs {', '.join(runs)}: name one" if runs else "train one with 'unnoise train'"
        raise InputError(f"{path} is no run: it has no {WEIGHTS}; {hint}")
    if not path.exists():
        near = sorted(str(found.parent) for found in Path("runs").glob(f"*/{WEIGHTS}"))
        raise InputError(
            f"no run at {path}; " + (f"there are {', '.join(near)}" if near else "train one with 'unnoise train'")
        )
    return path


def read(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Card and weights of a model file, or of a pipeline folder of diffusers by its index."""
    if path.name == pipeline.INDEX:
        about, weights = pipeline.read(path.parent)
        return card_of(about, path), weights
    text, weights = read_tensors(path)
    return parse_card(text, path), weights


def is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    safetensors = start[8:] == b"{"  # after a length of eight bytes, which may begin as a pickle does
    return not safetensors and (start[:2] == b"PK" or start[:1] == b"\x80")


def parse_card(text: str, path: Path) -> Card:
    try:
        about = json.loads(text)
        known = {f.name for f in fields(Card)}
        if about["format"] != FORMAT:
            raise InputError(
                f"{path} has format {about['format']}, this unnoise reads {FORMAT}; install the version that wrote it"
            )
        about["sampling"] = Sampling(**about["sampling"])
        about["shape"], about["classes"] = tuple(about["shape"]), tuple(about["classes"])
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: its description is damaged ({error!r:.200})") from error
    return card_of({name: value for name, value in about.items() if name in known}, path)


def card_of(about: Mapping[str, Any], path: Path) -> Card:
    """Refuses what is not as a card says it of itself."""
    try:
        card = Card(**about)
        wrong = [name for name, fine in sane(card).items() if not fine]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: its description is damaged ({error!r:.200})") from error
    if wrong:
        raise InputError(f"{path}: its description is damaged ({', '.join(wrong)})")
    return card


def sane(card: Card) -> dict[str, bool]:
    """Whether each field is what it should be: a stranger may have written it."""
    how, told, trained = card.sampling, card.data, card.training
    numbers = [card.shape, (told.get("count", 0), told.get("held_out", 0)), (trained.get("images", 0),)]
    return {
        "names": all(isinstance(name, str) for name in (card.backbone, card.schedule, card.target)),
        "shape": len(card.shape) == 3 and all(type(side) is int and 1 <= side <= MOST for side in card.shape),
        "mode": card.mode in ("", "I;16", *MODES.values()),
        "classes": all(isinstance(name, str) for name in card.classes) and len(set(card.classes)) == len(card.classes),
        "learned_variance": isinstance(card.learned_variance, bool),
        "sampling": all(isinstance(name, str) for name in (how.sampler, how.spacing, how.guidance_interval))
        and type(how.steps) is int
        and how.steps >= 1
        and isinstance(how.clip, bool)
        and is_number(how.guidance),
        "data": all(isinstance(told.get(name, ""), str) for name in ("name", "fingerprint")),
        "numbers": all(type(number) is int and number >= 0 for group in numbers for number in group),
        "training": isinstance(trained.get("config", {}), dict)
        and is_number(trained.get("seconds", 0))
        and all(is_number(value) for pair in trained.get("loss", []) for value in (pair[0], pair[1])),
    }


def is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
