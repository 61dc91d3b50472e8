"""The table that `unnoise tune` prints: the settings of the last round, and what decided between them."""

from typing import Any

HOLD_TOGETHER = "less before: the difference to the run's own settings, by images of the same seeds"


def format_candidates(result: dict[str, Any]) -> list[str]:
    """Return the lines that `unnoise tune` prints, the best candidate first."""
    head = f"{'sampler':26}{'steps':>6}  {'spacing':10}{'guidance':>8}{'ms':>9}  KID x 1000  95 % interval"
    lines = [f"{head:92}less before"]
    for row in result["tried"]:
        settings = {name: row[name] for name in result["best"]}
        mark = "best" if settings == result["best"] else "before" if settings == result["before"] else ""
        name = f"{row['sampler']:26}{row['steps']:6}  {row['spacing']:10}{row['guidance']:8.1f}"
        low, high = row["interval"]
        score = f"{1000 * row['value']:10.1f}  {1000 * low:.1f} to {1000 * high:.1f}"
        text = f"{name}{1000 * row['seconds']:9.1f}  {score}"
        less = "" if settings == result["before"] else format_change(row["difference"])
        lines.append(f"{text:92}{less:24}{mark}".rstrip())
    together = f"; its intervals hold together in 95 %, for {len(result['tried']) - 1} differences"
    lines.append(HOLD_TOGETHER + (together if len(result["tried"]) > 2 else ""))
    return [*lines, *format_end(result)]


def format_end(result: dict[str, Any]) -> list[str]:
    """Return the lines about the choice, and about what was stored."""
    lines = [format_final(result["final"])] if result["final"] else []
    if result["stored"]:
        return [*lines, f"stored in {result['stored']}"]
    if result["best"] == result["before"]:
        return [*lines, "no other settings are clearly better than the run's own: nothing was changed"]
    best = result["best"]
    flags = " ".join(f"--{name} {best[name]}" for name in ("sampler", "steps", "spacing", "guidance"))
    return [*lines, f"not stored; to use the best settings, add to unnoise sample: {flags}"]


def format_change(found: dict[str, Any]) -> str:
    """Return a difference of KID x 1000 with its interval."""
    low, high = found["interval"]
    return f"{1000 * found['value']:.1f} ({1000 * low:.1f} to {1000 * high:.1f})"


def format_final(final: dict[str, Any]) -> str:
    """Return the line of the scores on new seeds."""
    best, before = (f"{1000 * final[name]['value']:.1f}" for name in ("best", "before"))
    name = final["settings"]["sampler"]
    return (
        f"on {final['images']:,} new images each: {name} {best}, before {before}, a difference of "
        f"{format_change(final['difference'])}"
    )
