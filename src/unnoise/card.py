"""The card: everything a model file says about itself; and the run: a model with its card and its place."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unnoise.config import Sampling
from unnoise.data.numbers import VERSION_0_1_0, Spans, describe_spans
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError
from unnoise.files import parse_json
from unnoise.run_folder import MODEL, NETWORK, TEACHER, own_file
from unnoise.types import MODES

FORMAT = 1
MAX_SIDE = 2**16  # pixels


@dataclass(frozen=True)
class Card:
    """Everything a model file says about itself beside its weights: plain values."""

    backbone: str
    schedule: str
    target: str
    shape: tuple[int, int, int]  # channels, height, width
    mode: str  # of the written images: L, LA, RGB, RGBA, I;16, or "" for other channel counts
    classes: tuple[str, ...] = ()
    learned_variance: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    data: Mapping[str, Any] = field(default_factory=dict)  # name, fingerprint, count, held_out, class_counts
    training: Mapping[str, Any] = field(default_factory=dict)  # images, seconds, config, loss curve
    format: int = FORMAT
    plugin: str = ""  # the file or distribution that defines the backbone, if it is not part of unnoise

    @property
    def spans(self) -> Spans:
        """Return the spans of the numbers of the training images, or the rule of version 0.1.0 if the card has none."""
        return {kind: (low, high) for kind, (low, high) in self.data.get("spans", VERSION_0_1_0).items()}

    @property
    def taught(self) -> tuple[int, str] | None:
        """Return the steps and the spacing that a student was taught: it knows no other levels. None of other runs."""
        config = self.training.get("config", {})
        return (config.get("steps"), config.get("spacing")) if config.get("distill") else None

    @property
    def mirrored(self) -> bool:
        """Return True if the run was trained on mirrored images too."""
        return on_mirrored(self.training.get("config", {}))


def on_mirrored(config: Mapping[str, Any]) -> bool:
    """Return True if these settings train on mirrored images too."""
    return bool(config.get("flip") or config.get("augment"))


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained model, its card, and its model file (None for a model in memory).

    A run is a path: `Path(run)` is the run folder, or the model file if it lies alone.
    """

    model: Diffusion
    card: Card
    path: Path | None = None

    @property
    def file(self) -> Path:
        """Return the model file; raise InputError for a model in memory."""
        if self.path is None:
            raise InputError("this model is only in memory; save it first: unnoise.save('NAME.safetensors', model)")
        return self.path

    @property
    def folder(self) -> Path:
        """Return the folder of the model file; raise InputError for a model in memory."""
        return self.file.parent.parent if self.file.name == NETWORK else self.file.parent

    @property
    def name(self) -> str:
        """Return a name for tables: the run folder or the model file."""
        return "a model in memory" if self.path is None else self.__fspath__()

    @property
    def teacher(self) -> Path | None:
        """Return the copy of the run that a student learned from; None if there is none."""
        return own_file(self.path.parent, TEACHER) if self.path and self.card.taught else None

    @property
    def described_teacher(self) -> str:
        """Return the file of the teacher of a student, or words for the teacher if there is no copy."""
        return str(self.teacher or "the run that it learned from")

    def __fspath__(self) -> str:
        return str(self.folder if self.file.name == MODEL else self.file)

    def __repr__(self) -> str:
        c, h, w = self.card.shape
        place = "in memory" if self.path is None else repr(self.__fspath__())
        images = f"{self.card.training.get('images', 0):,} images trained"
        return f"Run({place}, {w}x{h} {self.card.mode or f'{c} channels'}, {images})"


def describe_run(run: Run) -> list[str]:
    """Return lines that say what a run is and how it was made."""
    card, how, data, training = run.card, run.card.sampling, run.card.data, run.card.training
    teacher = training.get("distilled")
    c, h, w = card.shape
    plugin = f", from the plugin {card.plugin}" if card.plugin else ""
    sampling = f"{how.sampler}, {how.steps} steps, {how.spacing}{', x0 clipped' if how.clip else ''}"
    rows = {
        "file": run.file,
        "images": f"{w}x{h}, {card.mode or f'{c} channels'}",
        "numbers": describe_spans(card.spans if "spans" in data else {}),
        "classes": ", ".join(card.classes) or "none",
        "network": f"{card.backbone}{plugin} ({sum(p.numel() for p in run.model.parameters()):,} parameters)",
        "schedule": card.schedule if len(card.schedule) < 200 else f"{card.schedule[:200]}...",
        "target": card.target,
        "sampling": sampling + (f", guidance {how.guidance:g}" if how.guidance != 1 else ""),
        "data": f"{data['name']}: {data['count']:,} images, sha256 {data['fingerprint'][:16]}"
        if data
        else "not recorded",
        "distilled": f"from {teacher['name']}, sha256 {teacher['weights'][:16]}" if teacher else "",
        "trained": f"{training.get('images', 0):,} images in {training.get('seconds', 0):.0f} s",
        "loss": f"{training['loss'][-1][1]:.4f} at the end" if training.get("loss") else "not recorded",
    }
    return [f"{name:10}{value}" for name, value in rows.items() if value]


def parse_card(text: str, path: Path) -> Card:
    """Read the card of a model file; raise InputError if it is damaged or of another format."""
    try:
        about = parse_json(text)
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
    return make_card({name: value for name, value in about.items() if name in known}, path)


def make_card(about: Mapping[str, Any], path: Path) -> Card:
    """Make a card of the values in a file; raise InputError if any of them is not what it should be."""
    try:
        card = Card(**about)
        wrong = damaged_fields(card)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: its description is damaged ({error!r:.200})") from error
    if wrong:
        raise InputError(f"{path}: its description is damaged ({', '.join(wrong)})")
    return card


def damaged_fields(card: Card) -> list[str]:
    """Return the names of fields that are not what they should be: a stranger may have written the file."""
    how, data, training = card.sampling, card.data, card.training
    counts = (data.get("count", 0), data.get("held_out", 0), training.get("images", 0))
    curve = [number for pair in training.get("loss", []) for number in (pair[0], pair[1])]
    sound = {
        "names": are_texts(card.backbone, card.schedule, card.target, card.plugin),
        "shape": len(card.shape) == 3 and all(is_count(side) and 1 <= side <= MAX_SIDE for side in card.shape),
        "mode": card.mode in ("", "I;16", *MODES.values()),
        "classes": are_texts(*card.classes) and len(set(card.classes)) == len(card.classes),
        "learned_variance": isinstance(card.learned_variance, bool),
        "sampling": is_sound_sampling(how),
        "data": are_texts(data.get("name", ""), data.get("fingerprint", "")),
        "numbers": all(map(is_count, counts)),
        "class_counts": "class_counts" not in data or are_class_counts(data["class_counts"], len(card.classes)),
        "spans": all(are_numbers(low, high) and low < high for low, high in data.get("spans", {}).values()),
        "training": isinstance(training.get("config", {}), dict) and are_numbers(training.get("seconds", 0), *curve),
        "distilled": "distilled" not in training or are_texts(*map(training["distilled"].get, ("name", "weights"))),
        "taught": card.taught is None or (is_count(card.taught[0]) and are_texts(card.taught[1])),
    }
    return [name for name, fine in sound.items() if not fine]


def is_sound_sampling(how: Sampling) -> bool:
    """Return True if sampling settings from a file are of the right types."""
    texts, steps = are_texts(how.sampler, how.spacing, how.guidance_interval), how.steps
    return texts and is_count(steps) and steps >= 1 and isinstance(how.clip, bool) and are_numbers(how.guidance)


def are_texts(*values: object) -> bool:
    """Return True if all values are texts."""
    return all(isinstance(value, str) for value in values)


def is_count(value: object) -> bool:
    """Return True for a whole number of 0 or more."""
    return type(value) is int and value >= 0


def are_class_counts(counts: Any, classes: int) -> bool:
    """Return True for the number of images of each class and of no class, if there are images at all."""
    return isinstance(counts, list) and len(counts) == classes + 1 and all(map(is_count, counts)) and sum(counts) > 0


def are_numbers(*values: Any) -> bool:
    """Return True if all values are finite numbers."""
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)
