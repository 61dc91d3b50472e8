"""What a run needs to go on exactly where it was: one checked file of tensors and JSON, and the one before it.

A state is a nested dict of plain values and tensors. Parts of a run name the attributes that are theirs to remember.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from unnoise.errors import InputError
from unnoise.run_folder import STATE, STATE_BEFORE
from unnoise.tensors import read_tensors, save_tensors

FORMAT = 1

State = dict[str, Any]


@runtime_checkable
class Part(Protocol):
    """Something of a run that changes while it trains."""

    @property
    def remembered(self) -> tuple[str, ...]:
        """Names of the attributes that say where it is."""


def remember(part: Part) -> State:
    return {name: getattr(part, name) for name in part.remembered}


def recall(part: Part, state: Mapping[str, Any]) -> None:
    """What an older version did not remember stays as it is."""
    for name in filter(state.__contains__, part.remembered):
        setattr(part, name, state[name])


def write(folder: Path, state: State) -> None:
    """The last state takes the place of the one before it only once this one is whole, read again, and on the disk."""
    tensors, plain = parted(state)
    save_tensors(folder / STATE, tensors, plain, before=folder / STATE_BEFORE)


def read(folder: Path) -> tuple[State, list[str]]:
    """The last state that is whole, and what is to be said of others."""
    said = list[str]()
    for name in (STATE, STATE_BEFORE):
        if not (folder / name).exists():
            continue
        try:
            return parsed(folder / name), said
        except InputError as error:
            said.append(f"passed over: {error}")
    raise InputError(f"no state of {folder} is whole ({'; '.join(said)}); --fresh starts over")


def parsed(path: Path) -> State:
    text, tensors = read_tensors(path)
    try:
        saved = joined(tensors, json.loads(text))
        clock, known = saved["parts"]["clock"], isinstance(saved["config"], dict) and saved["format"] == FORMAT
        whole = isinstance(clock["seen"], int) and isinstance(clock["elapsed"], int | float)
    except (KeyError, TypeError, ValueError, AttributeError):
        known = whole = False
    if not (known and whole):
        raise InputError(f"{path} is no state that this version can go on from")
    return saved


def set_damaged_aside(folder: Path) -> None:
    """The last one, so that the next does not take the place of the one before, which is whole."""
    (folder / STATE).replace(folder / "state-damaged.safetensors")


def parted(state: Mapping[Any, Any]) -> tuple[dict[str, Tensor], State]:
    """The tensors by their path, and the same nest without them."""
    tensors, plain = dict[str, Tensor](), State()
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[str(name)] = value
        elif isinstance(value, Mapping):
            inner, plain[str(name)] = parted(value)
            tensors |= {f"{name}/{path}": tensor for path, tensor in inner.items()}
        else:
            plain[str(name)] = value
    return tensors, plain


def joined(tensors: Mapping[str, Tensor], plain: State) -> State:
    """What `parted` took apart; keys are text."""
    for path, tensor in tensors.items():
        *way, name = path.split("/")
        place = plain
        for step in way:
            place = place.setdefault(step, {})
        place[name] = tensor
    return plain
