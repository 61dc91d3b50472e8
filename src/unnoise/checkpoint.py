"""One self-describing file, `model.safetensors`, and the run folder around it. Data only: no pickle is ever read."""

import hashlib
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
def replacing(path: Path, before: Path | None = None) -> Iterator[Path]:
    """Write to the temporary path given; it takes the place of `path` only once it is whole and on the disk.

    What was at `path` is lost, or kept as `before`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if before and path.exists():
            path.replace(before)
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """So that a new name outlives a power cut, where folders can be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], before: Path | None = None
) -> None:
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
    except (SafetensorError, OSError) as error:
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
    text, weights = read_tensors(path)
    return parse_card(text, path), weights


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
