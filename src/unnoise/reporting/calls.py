"""Quality against calls: what a run scored with other numbers of steps, and what the teacher of a student scored."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter

from unnoise.config import Sampling
from unnoise.reporting.curves import BLUE, ORANGE, Plot, number, to_plot
from unnoise.sampling import network_calls

LEAST = 2  # numbers of calls that make a section
HEAD = ("images of", "calls", "KID x 1000", "second judge", "recall")


class Drawn(NamedTuple):
    """Hold what one way to draw costs and gives: the calls of the network for an image, and the scores."""

    who: str
    how: str
    calls: int
    scores: dict[str, Any]
    second: dict[str, Any]


def quality_against_calls(own: Sequence[dict[str, Any]], beside: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a table and a plot of the last results at each number of calls; nothing if there is one number alone.

    Args:
        own, beside: Results of `unnoise eval`, the oldest first: of the run, and of the run that it learned from.
    """
    results = [("its teacher", each) for each in beside] + [("this run", each) for each in own]
    rows = sorted(comparable(results), key=lambda row: (-row.calls, row.who))
    if len({row.calls for row in rows}) < LEAST:
        return {}
    return {"rows": [HEAD, *map(to_cells, rows)], "plot": plot_calls(rows)}


def comparable(results: Iterable[tuple[str, dict[str, Any]]]) -> list[Drawn]:
    """Return the last result of each way to draw; the weights, the images and the judge are as in the last of all."""
    found = [(who, result["scores"]) for who, result in results if "kid" in result.get("scores", {}).get("values", {})]
    found = [(who, scores) for who, scores in found if "sampler" in scores["of"]]
    last = {who: scores["of"]["weights"] for who, scores in found}
    of_one = [(who, scores) for who, scores in found if scores["of"]["weights"] == last[who]]
    alike = [(who, scores) for who, scores in of_one if condition(scores) == condition(found[-1][1])]
    rows = {(row.who, row.how): row for row in (drawn(who, scores) for who, scores in alike)}
    return [*rows.values()]


def condition(scores: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two results must share: the number of images, the real images and the judge."""
    return scores["of"]["n"], scores["against"]["fingerprint"], scores["features"]["weights"]


def drawn(who: str, scores: dict[str, Any]) -> Drawn:
    """Return a result as a row."""
    of = scores["of"]
    settings = Sampling(**{f.name: of[f.name] for f in fields(Sampling) if f.name in of})
    how = f"{settings.sampler}, {settings.steps} step{'s' * (settings.steps > 1)} at {settings.spacing} levels"
    how += f", guidance {settings.guidance:g}" if settings.guidance != 1 else ""
    second = scores.get("second", {}).get("values", {})
    return Drawn(who, how, network_calls(settings), scores["values"], second)


def to_cells(row: Drawn) -> tuple[str, ...]:
    """Return a row of the table as text; "-" for what was not measured."""
    kid, second = with_interval(row.scores.get("kid")), with_interval(row.second.get("kid"))
    recall = f"{number(row.scores['recall']['value']):.2f}" if "recall" in row.scores else "-"
    return f"{row.who}: {row.how}", str(row.calls), kid, second, recall


def with_interval(score: dict[str, Any] | None) -> str:
    """Return a KID x 1000 with its interval as text."""
    if score is None:
        return "-"
    value, low, high = (1000 * number(end) for end in (score["value"], *score["interval"]))
    return f"{value:.0f} ({low:.0f} to {high:.0f})"


def plot_calls(rows: Sequence[Drawn]) -> Plot:
    """Plot the KID against the calls of the network, with its intervals."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axis = figure.subplots()
    for who, colour in (("this run", BLUE), ("its teacher", ORANGE)):
        points = [(row.calls, *number([1000 * end for end in ends(row)])) for row in rows if row.who == who]
        if points:
            calls, value, low, high = zip(*points, strict=True)
            axis.plot(calls, value, "o-", color=colour, label=who)
            axis.vlines(calls, low, high, color=colour)
    axis.set(xlabel="calls of the network for an image", ylabel="KID x 1000", xscale="log", yscale="log")
    axis.xaxis.set_major_locator(FixedLocator([*{row.calls for row in rows}]))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for each in (axis.xaxis, axis.yaxis):
        each.set_minor_locator(NullLocator())
        each.set_major_formatter(ScalarFormatter())
    axis.grid(visible=True, alpha=0.25)
    axis.legend(frameon=False)
    return to_plot(figure, "KID by the calls of the network; bars are of 95 %.")


def ends(row: Drawn) -> tuple[float, float, float]:
    """Return the KID of a row and the ends of its interval."""
    kid = row.scores["kid"]
    low, high = kid["interval"]
    return kid["value"], low, high
