"""The table that `unnoise eval` prints: the scores by both judges, what they were measured on, and the warnings."""

import math
from collections.abc import Mapping
from typing import Any

from unnoise.evaluation.coverage import format_coverage
from unnoise.evaluation.expectation import Expected
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
    how = ", ".join(f"{key} {of[key]}" for key in SAMPLING_FACTS if key in of)
    ours, theirs = of.get("weights") or of["fingerprint"], against["fingerprint"]
    lines = format_values(result)
    lines += [f"damage    {describe_ladder(result['ladder'])}"] if "ladder" in result else []
    if expected := result.get("expected"):
        lines.append(f"expected  {Expected(**expected).compared(result['values']['kid']['value'])}")
    lines += format_training(result["training"]) if "training" in result else []
    lines += format_coverage(result["coverage"]) if "coverage" in result else []
    lines.append(f"of        {of['name']}: {of['n']:,} images, {size(of)}{how + ', ' if how else ''}sha256 {ours[:16]}")
    which = f"{against['n']:,} of {against['of']:,} {against.get('which', 'images')}"
    lines.append(f"against   {against['name']}: {which}, {size(against)}sha256 {theirs[:16]}")
    lines += [f"{what:10}{facts}" for what, facts in format_judges(result)]
    return [*lines, *(f"warning: {text}" for text in result["warnings"])]


def judged_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a heading, and a row of text for each score: by the first judge, and value and interval by the second."""
    second = result.get("second", {}).get("values", {})
    head = ("score", "value", "95 % interval", "equal sets get", *(("second", "95 % interval") if second else ()))
    rows = zip(result["values"], table_rows(result["values"]), strict=True)
    return [
        head,
        *((*row, *(table_rows({name: second[name]})[0][1:3] if name in second else ())) for name, row in rows),
    ]


def format_values(result: dict[str, Any]) -> list[str]:
    """Return the lines of the scores by both judges."""
    return [
        f"{a:18}{b:>12}  {c:<24}{d:<22}{(e or [''])[0]:>10}  {(e or ['', ''])[-1]}".rstrip()
        for a, b, c, d, *e in judged_rows(result)
    ]


def format_judges(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts of both judges as text, what of a run they chose, and what it was trained with, each named."""
    judges = [("features", result["features"])]
    judges += [("second", result["second"]["features"])] if "second" in result else []
    texts = []
    for name, about in judges:
        facts = (about["network"], about["resize"], f"sha256 {about['weights'][:16]}", about.get("no_judge"))
        texts.append((name, ", ".join(filter(None, facts))))
    chosen = [f"the {what} by KID of {network}" for what, network in result.get("chosen_by", {}).items()]
    texts += [("chosen", ", ".join(chosen))] if chosen else []
    if used := result.get("trained_with"):
        names = ", ".join(name[:40] for name in used)
        texts.append(("trained", f"with features of {names}; judges like it may see the images better than they are"))
    return texts


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
