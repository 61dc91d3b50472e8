"""The table that `unnoise eval` prints: the scores by both judges, what they were measured on, and the warnings."""

import math
from typing import Any

from unnoise.evaluation.coverage import format_coverage
from unnoise.evaluation.ladder import describe_ladder

SAMPLING_FACTS = ("sampler", "steps", "spacing", "guidance", "precision", "labels", "seed")  # how the images were drawn


def table_rows(values: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return a row of text for each score: its name, value, interval, and the interval of equal sets."""
    rows = []
    for name, score in values.items():
        unit, floor = 1000 if name == "kid" else 1, score.get("floor")
        real = format_numbers(unit, " to ", *floor["interval"]) if floor else ""
        value, interval = format_numbers(unit, "", score["value"]), format_numbers(unit, " to ", *score["interval"])
        rows.append((name if unit == 1 else f"{name} x {unit}", value, interval, real))
    return rows


def format_numbers(unit: float, separator: str, *numbers: float | None) -> str:
    """Return numbers times a unit as text; "-" if one is unknown, for example since all images are the same."""
    known = [f"{unit * number:.3f}" for number in numbers if number is not None and math.isfinite(number)]
    return separator.join(known) if len(known) == len(numbers) else "-"


def format_scores(result: dict[str, Any]) -> list[str]:
    """Return the lines of the table of scores, of what they were measured on, and of the warnings."""
    of, against = result["of"], result["against"]
    head = ("score", "value", "95 % interval", "equal sets get")
    lines = [f"{a:18}{b:>12}  {c:<24}{d}".rstrip() for a, b, c, d in (head, *table_rows(result["values"]))]
    how = ", ".join(f"{key} {of[key]}" for key in SAMPLING_FACTS if key in of)
    ours, theirs, about = of.get("weights") or of["fingerprint"], against["fingerprint"], result["features"]
    lines += [f"damage    {describe_ladder(result['ladder'])}"] if "ladder" in result else []
    lines += format_training(result["training"]) if "training" in result else []
    lines += format_coverage(result["coverage"]) if "coverage" in result else []
    lines.append(f"of        {of['name']}: {of['n']:,} images, {size(of)}{how + ', ' if how else ''}sha256 {ours[:16]}")
    which = f"{against['n']:,} of {against['of']:,} {against.get('which', 'images')}"
    lines.append(f"against   {against['name']}: {which}, {size(against)}sha256 {theirs[:16]}")
    lines.append(f"features  {about['network']}, {about['resize']}, sha256 {about['weights'][:16]}")
    return [*lines, *(f"warning: {text}" for text in result["warnings"])]


def size(about: dict[str, Any]) -> str:
    """Return the size of the images as text; nothing for scores of version 0.1.0, which do not name it."""
    return f"{about['size']}, " if "size" in about else ""


def format_training(training: dict[str, Any]) -> list[str]:
    """Return the lines of the scores against training images, and the scores of held-out images against them."""
    about, rows = training["against"], (table_rows(training[name]) for name in ("values", "held_out"))
    head = f"against {about['n']:,} training images"
    lines = [f"{head:56}{training['held_out_images']:,} held-out images get there"]
    for (name, ours, to, _), (_, real, real_to, _) in zip(*rows, strict=True):
        lines.append(f"{name:18}{ours:>12}  {to:<24}{real} ({real_to})")
    return lines
