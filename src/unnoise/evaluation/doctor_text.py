"""The page of `unnoise doctor` in words."""

import math
from typing import Any

from unnoise.evaluation.score_table import size

STARTS_TOLD = "pure noise"


def format_doctor(found: dict[str, Any]) -> list[str]:
    """Return the lines that `unnoise doctor` prints."""
    of, against, n = found["of"], found["against"], found["n"]
    which = f"{found['real_n']:,} {against.get('which', 'images')} of {against['name']}"
    lines = [
        f"doctor    {of['name']}: {n:,} images, {size(of)}against {which}",
        f"KID       {thousandths(found['kid'])} (x 1000, 95 %); equal sets get {ends(found['equal_kid'])}",
    ]
    lines += [line for i, finding in enumerate(found["findings"]) for line in format_finding(i + 1, finding)]
    if not found["findings"]:
        lines.append("nothing found beyond what equal sets of real images show, which is:")
        lines += [f"          {each['says']}: {span(each['equal'])}" for each in told_numbers(found)]
    lines.append(f"rest      KID is {thousandths(found['rest'])} against real images with the same faults")
    lines += format_levels(found.get("levels") or {})
    return lines


def format_finding(number: int, finding: dict[str, Any]) -> list[str]:
    """Return the lines of a finding: its cost and name, what was measured, and what mends it."""
    cost = thousandths(finding["cost"]) if finding["cost"] else "no KID"
    lines = [f"{number:2}. {cost:26}{finding['name']}"]
    if "equal" in finding:
        measured = f"{shown(finding['number'])} ({span(finding['interval'])}), real images get {span(finding['equal'])}"
        lines.append(f"    measured  {finding['says']}: {measured}")
    elif finding["fault"] == "training":
        lines.append(f"    measured  {finding['number']:,} images seen")
    return [*lines, f"    mend      {finding['advice']}"]


def format_levels(levels: dict[str, Any]) -> list[str]:
    """Return the lines of the ladder of levels."""
    if not levels:
        return []
    lines = [f"levels    KID of {levels['n']} held-out images that were noised to a level, and drawn from there"]
    for row in levels["rows"]:
        name = "pure noise" if row["noise"] is None else f"noise {row['noise']:.2g} times the image"
        lines.append(f"          {name:28}{thousandths(row['kid'])}")
    if parts := levels["parts"]:
        shares = f"{parts['coarse']:.0%} at coarse levels (noise above 2: shapes), {parts['middle']:.0%} between, "
        lines.append(f"          so KID arises {shares}{parts['fine']:.0%} at fine levels (below 0.3: details)")
    return lines


def told_numbers(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the numbers of the faults, each text once."""
    return list({each["says"]: each for each in found["numbers"].values()}.values())


def thousandths(score: dict[str, Any]) -> str:
    """Return a KID times 1000 with its interval."""
    return f"{thousandth(score['value'])} ({ends(score)})"


def ends(score: dict[str, Any]) -> str:
    """Return the interval of a KID times 1000."""
    return " to ".join(map(thousandth, score["interval"]))


def thousandth(kid: float | None) -> str:
    """Return a KID times 1000; "-" if it is unknown: JSON has null in place of nan."""
    return f"{1000 * kid:.1f}" if kid is not None and math.isfinite(kid) else "-"


def span(interval: list[float]) -> str:
    """Return an interval of numbers."""
    return " to ".join(map(shown, interval))


def shown(number: float | None) -> str:
    """Return a number with three digits; "-" if it is unknown."""
    if number is None or not math.isfinite(number):
        return "-"
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
