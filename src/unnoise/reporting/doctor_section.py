"""The section of the page about a run that shows its faults, with two plots."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from unnoise.evaluation.doctor_text import shown, span, thousandths
from unnoise.reporting.curves import BLUE, ORANGE, Plot, number, to_plot


def describe_doctor(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the findings as rows of text, what they are of, and the plots."""
    return {
        "rows": [describe_finding(finding) for finding in found["findings"]],
        "kid": thousandths(found["kid"]),
        "rest": thousandths(found["rest"]),
        "of": found["of"],
        "n": found["n"],
        "real_n": found["real_n"],
        "against": found["against"],
        "plots": [*plot_levels(found.get("levels") or {}), plot_spectrum(found["spectrum"])],
    }


def describe_finding(finding: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return the cells of a finding: its name, cost, measurement and remedy."""
    measured = ""
    if "equal" in finding:
        measured = f"{finding['says']}: {shown(finding['number'])}; real images get {span(finding['equal'])}"
    cost = thousandths(finding["cost"]) if finding["cost"] else ""
    return finding["name"], cost, measured, finding["advice"]


def plot_levels(levels: Mapping[str, Any]) -> list[Plot]:
    """Plot KID by the level that real images were noised to; nothing if the levels were not measured."""
    if not levels:
        return []
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axis = figure.subplots()
    rows = levels["rows"][::-1]
    noise = [number(row["noise"]) for row in rows if row["noise"] is not None]
    places = [*noise, noise[-1] * (noise[-1] / noise[-2] if len(noise) > 1 else 10)][: len(rows)]
    value = [1000 * number(row["kid"]["value"]) for row in rows]
    low, high = ([1000 * number(row["kid"]["interval"][end]) for row in rows] for end in (0, 1))
    axis.plot(places, value, "o-", color=BLUE)
    axis.vlines(places, low, high, color=BLUE)
    axis.set(xscale="log", xlabel="noise over image, where drawing starts", ylabel="KID x 1000")
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks(places, [*(shown(place) for place in noise), "pure noise"][: len(places)])
    axis.set_ylim(bottom=min(0.0, *low))
    axis.grid(visible=True, which="major", alpha=0.25)
    caption = (
        f"KID of {levels['n']} real images that were noised to a level and drawn from there, with its 95 % interval: "
        "a step shows where quality is lost."
    )
    return [to_plot(figure, caption)]


def plot_spectrum(spectrum: Mapping[str, Any]) -> Plot:
    """Plot the power of drawn and of real images by the period of a pattern in pixels."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axis = figure.subplots()
    count = len(spectrum["real"])
    middles = [(ring + 0.5) / count for ring in range(count)]
    for key, colour, words in (("real", ORANGE, "real images"), ("drawn", BLUE, "drawn images")):
        power = [max(float(number(value)), 1e-3) for value in spectrum[key]]
        axis.plot(middles, power, "o-", color=colour, label=words, markersize=4)
    axis.set(yscale="log", xlabel="period in pixels", ylabel="power")
    periods = (32, 16, 8, 4, 3, 2)
    axis.set_xticks([2 / period for period in periods], [str(period) for period in periods])
    axis.grid(visible=True, which="both", alpha=0.25)
    axis.legend(frameon=False)
    return to_plot(figure, "Power spectrum. Less power on the right than real images have is haze, more is grain.")
