"""TODO."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.errors import InputError
from unnoise.types import MODES

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
    return make_card({name: value for name, value in about.items() if name in known}, path)


def make_card(about: Mapping[str, Any], path: Path) -> Card:
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
