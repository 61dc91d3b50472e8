"""Read the log of a training and draw its curves; the report and the app show the same ones."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from unnoise.evaluation.scores import symmetric
from unnoise.files import read_json_lines

BLUE, ORANGE, GRAY = "#1f4e8c", "#d1661d", "#b8c4d6"
MEASURED_ON = (("trained", BLUE, "training images"), ("held_out", ORANGE, "held-out images"))  # key, colour, words
MOST = 3e38  # the largest number of float32
QUARTERS = ("cleanest", "second", "third", "noisiest")


class TrainingLog(NamedTuple):
    """The rows of metrics.jsonl, sorted by what they hold."""

    steps: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    kid: list[dict[str, Any]]
    copies: list[dict[str, Any]]
    summary: dict[str, Any]


class Plot(NamedTuple):
    """A figure as an SVG element, and its caption."""

    svg: str
    caption: str


def read_log(path: Path) -> TrainingLog:
    """Read the rows of metrics.jsonl that can be read; the last one may be cut off."""
    log = TrainingLog([], [], [], [], {})
    for row in read_json_lines(path):
        if "held_out" in row:
            log.validation.append(row)
        elif "kid" in row:
            log.kid.append(row)
        elif "copies" in row:
            log.copies.append(row)
        elif "loss" in row and "seconds" in row:
            log.steps.append(row)
        elif "training_seconds" in row:
            log.summary.update(row)
    return log


def draw_curves(log: TrainingLog) -> dict[str, list[Plot]]:
    """Return the plots of a training by the names in the templates; a list is empty if there is nothing to plot."""
    if not log.steps:
        return {"loss_plots": [], "kid_plots": []}
    by_level = [plot_loss_by_level(log)] if len(log.validation) > 1 else []
    kid, copies = [plot_kid(log)] if len(log.kid) > 1 else [], [plot_copies(log)] if len(log.copies) > 1 else []
    return {"loss_plots": [plot_loss(log), *by_level], "kid_plots": kid + copies}


def plot_loss(log: TrainingLog) -> Plot:
    """Plot the loss of the training steps, and of the averaged weights on training and on held-out images."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(*columns(log.steps, "images", "loss"), color=GRAY, linewidth=0.9, label="training steps")
    if log.validation:
        (images,) = columns(log.validation, "images")
        for key, colour, words in MEASURED_ON:
            losses = [sum(losses) / len(losses) for losses in columns(log.validation, key)[0]]
            axis.plot(images, losses, "o-", color=colour, label=f"averaged weights on {words}")
    style_axis(axis, "images seen", "loss", scale="log")
    axis.legend(frameon=False)
    return to_plot(figure, "Loss by images seen. The averaged weights are measured at fixed noise and levels.")


def plot_loss_by_level(log: TrainingLog) -> Plot:
    """Plot the loss of the averaged weights in each part of the noise levels."""
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    (images,) = columns(log.validation, "images")
    trained, held_out = columns(log.validation, *(key for key, _, _ in MEASURED_ON))
    for part, axis in enumerate(figure.subplots(2, 2, sharex=True).flat):
        for losses, (_, colour, _) in zip((trained, held_out), MEASURED_ON, strict=True):
            axis.plot(images, [row[part] for row in losses], "o-", color=colour, markersize=3)
        style_axis(axis)
        axis.set_title(f"{QUARTERS[part]} quarter of the levels", fontsize=9)
    return to_plot(figure, "The same loss by noise level: held-out images in orange, training images in blue.")


def plot_kid(log: TrainingLog) -> Plot:
    """Plot the KID that was measured during the training, with its intervals."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axis = figure.subplots()
    images, value = columns(log.kid, "images", "kid")
    low, high = zip(*map(kid_interval, log.kid), strict=True)
    axis.plot(images, [1000 * v for v in value], "o-", color=BLUE)
    axis.vlines(images, [1000 * end for end in low], [1000 * end for end in high], color=BLUE)
    style_axis(axis, "images seen", "KID x 1000")
    return to_plot(figure, f"KID of {int(log.kid[-1]['pictures'])} images with its 95 % interval.")


def plot_copies(log: TrainingLog) -> Plot:
    """Plot the share of drawn images that look like copies, with its intervals, and of new images."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axis = figure.subplots()
    images, drawn, new, interval = columns(log.copies, "images", "copies", "copies_of_new", "copies_interval")
    axis.plot(images, [100 * share for share in drawn], "o-", color=BLUE, label="drawn images")
    axis.vlines(images, [100 * low for low, _ in interval], [100 * high for _, high in interval], color=BLUE)
    axis.plot(images, [100 * share for share in new], color=ORANGE, label="new images")
    style_axis(axis, "images seen", "%")
    axis.legend(frameon=False)
    return to_plot(
        figure, "Share of images that are nearer to one training image than new images are; bars are of 95 %."
    )


def kid_interval(row: dict[str, Any]) -> tuple[float, float]:
    """Return the interval of a row's KID; version 0.1.0 wrote the error alone."""
    if "kid_interval" in row:
        low, high = number(row["kid_interval"])
        return low, high
    return symmetric(number(row["kid"]), number(row["kid_error"]) ** 2).interval


def plot_speed(log: TrainingLog) -> Plot:
    """Plot the images per second by the minutes of training."""
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axis = figure.subplots()
    seconds, speed = columns(log.steps, "seconds", "images_per_second")
    axis.plot([s / 60 for s in seconds], speed, color=BLUE, linewidth=0.9)
    style_axis(axis, "minutes", "images/s")
    axis.set_ylim(bottom=0)
    return to_plot(figure, "Training speed.")


def columns(rows: Sequence[dict[str, Any]], *names: str) -> tuple[list[Any], ...]:
    """Return the numbers of each name in all rows; raise TypeError if a value is no number."""
    return tuple([number(row[name]) for row in rows] for name in names)


def number(value: Any) -> Any:
    """Return a value, or a list of values; raise TypeError if one is no number, or larger than any in float32."""
    if isinstance(value, list) and value:
        return [number(part) for part in value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST:
        raise TypeError(f"{str(value)[:40]!r} is no finite number")
    return value


def style_axis(axis: Any, x: str = "", y: str = "", scale: str = "linear") -> None:
    """Give an axis its labels, scale and grid; counts of images are written as 20k."""
    axis.set(xlabel=x, ylabel=y, yscale=scale)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.grid(visible=True, which="both", alpha=0.25)


def to_plot(figure: Figure, caption: str) -> Plot:
    """Return a figure as an SVG element without the XML header."""
    file = io.StringIO()
    figure.savefig(file, format="svg")
    svg = file.getvalue()
    return Plot(svg[svg.index("<svg") :], caption)
