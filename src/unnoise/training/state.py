"""Save and read what a run needs to resume exactly: one checked file of tensors and JSON, and the file before it.

A state is a nested dict of plain values and tensors. Parts of a run name the attributes that are saved (`remembered`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors import SafetensorError, safe_open
from torch import Tensor

from unnoise.errors import InputError
from unnoise.files import parse_json
from unnoise.run_folder import STATE, STATE_BEFORE, own_file
from unnoise.tensors import read_tensors, save_tensors

FORMAT = 2

State = dict[str, Any]


@runtime_checkable
class Part(Protocol):
    """A part of a run that changes while it trains."""

    @property
    def remembered(self) -> tuple[str, ...]:
        """Name the attributes that are saved; one may be a part itself."""


def remember(part: Part) -> State:
    """Return the attributes that a part names."""
    values = {name: getattr(part, name) for name in part.remembered}
    return {name: remember(value) if isinstance(value, Part) else value for name, value in values.items()}


def recall(part: Part, saved: Mapping[str, Any]) -> None:
    """Set the attributes of a part; attributes that an older version did not save stay as they are."""
    for name in filter(saved.__contains__, part.remembered):
        if isinstance(inner := getattr(part, name), Part):
            recall(inner, saved[name])
        else:
            setattr(part, name, saved[name])


def write_state(folder: Path, state: State) -> None:
    """Write the state of a run folder; the one before it is replaced only when the new one is whole and on the disk."""
    tensors, plain = take_apart(state)
    save_tensors(folder / STATE, tensors, plain, before=folder / STATE_BEFORE)


def read_state(folder: Path) -> tuple[State, list[str]]:
    """Return the last whole state of a run folder, and messages about damaged ones."""
    messages = list[str]()
    for name in (STATE, STATE_BEFORE):
        if own_file(folder, name) is None:
            continue
        try:
            return parse_state(folder / name), messages
        except InputError as error:
            messages.append(f"not used: {error}")
    raise InputError(f"no state of {folder} is whole ({'; '.join(messages)}); --fresh starts over")


def read_facts(folder: Path) -> State:
    """Return what the last state of a run folder says beside its tensors, which are not read and not checked."""
    path = own_file(folder, STATE) or own_file(folder, STATE_BEFORE)
    try:
        if path is None:
            raise InputError(f"{folder} has no state")
        with safe_open(path, "pt") as file:
            facts = parse_json(file.metadata()["unnoise"])
        return upgrade(facts) if isinstance(facts, dict) else {}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no whole state ({error!r:.200})") from error


def parse_state(path: Path) -> State:
    """Read a state file of this version or of an older one."""
    text, tensors = read_tensors(path)
    try:
        saved = upgrade(put_together(tensors, parse_json(text)))
        clock, known = saved["parts"]["clock"], isinstance(saved["config"], dict) and saved["format"] == FORMAT
        whole = isinstance(clock["seen"], int) and isinstance(clock["elapsed"], int | float)
    except (KeyError, TypeError, ValueError, AttributeError):
        known = whole = False
    if not (known and whole):
        raise InputError(f"{path} is not a state that this version can resume")
    return saved


def upgrade(saved: State) -> State:
    """Give the parts of a state of version 0.1.0 (format 1) their names of today."""
    if saved["format"] != 1:
        return saved
    old = dict(saved["parts"])
    trainer, validation = dict(old.pop("run")), dict(old.pop("held_out"))
    validation["best_losses"] = validation.pop("better")
    saved["finished"] = trainer.pop("finished")
    saved["monitors"] = {
        "previews": old.pop("previews") | {"budget": old.pop("previewing")},
        "validation": validation | {"budget": old.pop("measuring")},
        "kid": old.pop("quality"),
    }
    return saved | {"format": FORMAT, "parts": old | {"trainer": trainer}}


def set_damaged_aside(folder: Path) -> None:
    """Rename the last state, which is damaged, so that the next one does not replace the whole one before it."""
    (folder / STATE).replace(folder / "state-damaged.safetensors")


def take_apart(state: Mapping[Any, Any]) -> tuple[dict[str, Tensor], State]:
    """Return the tensors of a nested dict by their path, and the same nest without them."""
    tensors, plain = dict[str, Tensor](), State()
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[str(name)] = value
        elif isinstance(value, Mapping):
            inner, plain[str(name)] = take_apart(value)
            tensors |= {f"{name}/{path}": tensor for path, tensor in inner.items()}
        else:
            plain[str(name)] = value
    return tensors, plain


def put_together(tensors: Mapping[str, Tensor], plain: State) -> State:
    """Undo `take_apart`; keys become text."""
    for path, tensor in tensors.items():
        *way, name = path.split("/")
        place = plain
        for step in way:
            place = place.setdefault(step, {})
        place[name] = tensor
    return plain
