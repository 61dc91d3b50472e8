"""One self-describing file, `model.safetensors`, and the run folder around it. Data only: no pickle is ever read."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unnoise import pipeline, registry
from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError

WEIGHTS = "model.safetensors"
FORMAT = 1


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
    channels = card.shape[0]
    outputs = 2 * channels if card.learned_variance else channels
    backbone = registry.backbone.get(card.backbone)(channels, len(card.classes), outputs)
    schedule, target = registry.schedule.get(card.schedule)(), registry.target.get(card.target)
    return Diffusion(backbone, schedule, target, card.shape, card.classes)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the temporary path given; it takes the place of `path` only once it is whole and on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Safetensors with one JSON text of metadata."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(flat, temporary, {"unnoise": json.dumps(about)})
        except SafetensorError as error:
            raise InputError(
                f"cannot write {path} ({error}); is the disk full? What was saved before is whole"
            ) from error


def save(path: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write the self-describing model file."""
    save_tensors(path, weights, asdict(card))


def load(run: str | Path, device: str | torch.device | None = None) -> Run:
    """Open a run folder or a model file; the model is in evaluation mode, on the GPU where there is one."""
    path = find(Path(run))
    card, weights = read(path)
    model = build(card)
    try:
        model.backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{path}: the weights do not fit the network it names ({card.backbone}); is it damaged?"
        ) from error
    device = device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    return Run(model.to(device).eval().requires_grad_(requires_grad=False), card, path)


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
        return Card(**about), weights
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("unnoise")
            if text is None:
                raise InputError(
                    f"{path} holds weights but not what network they belong to; unnoise opens its own {WEIGHTS}"
                )
            return parse_card(text, path), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        if isinstance(error, SafetensorError) and is_pickle(path):
            raise InputError(
                f"{path} is a Python pickle (a .pt or .ckpt file), which can run code when opened; unnoise reads only "
                f"safetensors: give a run folder or its {WEIGHTS}"
            ) from error
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); give a run folder or its {WEIGHTS}"
        ) from error


def is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2)
    return start == b"PK" or start[:1] == b"\x80"


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
        return Card(**{name: value for name, value in about.items() if name in known})
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: its description is damaged ({error!r})") from error


def new_folder(wanted: str | None, parent: Path, stem: str) -> Path:
    """Create `wanted`, or the first free parent/stem-N; never an existing one that holds something."""
    if wanted is None:
        return next(path for i in count(1) if (path := claim(parent / f"{stem}-{i}")))
    if (folder := vacant(wanted)).exists():
        folder.rmdir()
    if not claim(folder):
        raise InputError(f"--out {folder} was made by another program just now; name a new folder")
    return folder


def vacant(wanted: str) -> Path:
    """The folder to make: it is not there, or empty."""
    folder = Path(wanted).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; name a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--out {folder} already holds files, which are never overwritten; name a new folder")
    return folder


def claim(folder: Path) -> Path | None:
    """Make the folder; None if it is there already, so that two runs never share one."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return None
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another folder with --out") from error
    return folder
