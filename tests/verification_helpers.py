"""Values of a run, and ways to change one of them."""

import json
from collections import Counter

from unnoise.files import read_json_lines
from unnoise.tensors import read_tensors, save_tensors
from unnoise.verification.check import AGREES, DIFFERS


def changed(value):
    """Return another value of the same type: a number that is 1 % larger, or another text."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value * 1.01 + 1e-6 if isinstance(value, float) else f"{value}x"


def walk(value, keys=()):
    """Yield the keys of every number and text in a nest."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from walk(inner, (*keys, key))
    if isinstance(value, int | float | str):
        yield keys


def change(nest, keys):
    """Change one value of a nest in place."""
    for key in keys[:-1]:
        nest = nest[key]
    nest[keys[-1]] = changed(nest[keys[-1]])


def path_of(keys):
    """Return the path of a value as verify names it."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def named(checks):
    """Return the parts and values that differ."""
    return {(check.part, check.what) for check in checks if check.verdict == DIFFERS}


def agreeing(checks):
    """Return the number of values of each part that agree."""
    return Counter(check.part for check in checks if check.verdict == AGREES)


def change_row(run, key, keys, times=1.01):
    """Change a value of the last row of metrics.jsonl that has a key; return the images that it names."""
    rows = [*read_json_lines(run / "metrics.jsonl")]
    row = nest = next(row for row in rows[::-1] if key in row)
    for inner in keys[:-1]:
        nest = nest[inner]
    nest[keys[-1]] = times * nest[keys[-1]] + 1e-6
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return row["images"]


def change_card(run, keys):
    """Change a value of the card; its checksum is made anew."""
    text, weights = read_tensors(run / "model.safetensors")
    card = json.loads(text)
    change(card, keys)
    save_tensors(run / "model.safetensors", weights, card)
