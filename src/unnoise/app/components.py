"""Make the parts that several tabs of the page have: boxes for settings, images, and the buttons that start work."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import gradio as gr

from unnoise import registry
from unnoise.app.session import Session
from unnoise.errors import InputError

Handler = Callable[..., Any]


def show_errors(work: Handler) -> Handler:
    """Return the same work, with an InputError shown as a message on the page."""

    @wraps(work)
    def safely(*values: Any) -> Iterator[Any]:
        try:
            yield from work(*values)
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None

    return safely


def start_on_click(button: gr.Button, work: Handler, inputs: list[Any], outputs: list[Any]) -> Any:
    """Let a button start work of the model, one request after another; return the event."""
    return button.click(
        show_errors(work), inputs, outputs, concurrency_id="model", concurrency_limit=1, api_visibility="private"
    )


def start_and_stop(work: Handler, inputs: list[Any], outputs: list[Any], label: str = "Draw") -> None:
    """Make a button that starts work of the model, and a button that stops it."""
    with gr.Row():
        start, stop = gr.Button(label, variant="primary"), gr.Button("Stop", variant="stop")
    event = start_on_click(start, work, inputs, outputs)
    stop.click(None, cancels=[event], api_visibility="private")


def respond_at_once(listen: Handler, work: Handler, inputs: list[Any], outputs: Any) -> None:
    """Let an event start work that takes no time, so it does not wait in the queue."""
    listen(work, inputs, outputs, queue=False, show_progress="hidden", api_visibility="private")


def draw_live(boxes: list[Any], work: Handler, output: Any) -> None:
    """Draw when the page opens and at each change of a box; while an image is drawn, only the last change waits."""
    gr.on(
        None,
        show_errors(work),
        boxes,
        output,
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
    )


def image_box(label: str) -> gr.Image:
    """Make the box that shows images of the run."""
    return gr.Image(label=label, interactive=False, format="png", elem_classes="pixels", buttons=["download"])


def files_box() -> gr.Files:
    """Make the box of the files for download, hidden until there are some."""
    return gr.Files(label="Files", visible=False)


def count_box(most: int, value: int, label: str = "Images", least: int = 1) -> gr.Slider:
    """Make the box for the number of images."""
    return gr.Slider(least, most, value, step=1, label=label)


def seed_box(value: int = 0, label: str = "Seed") -> gr.Number:
    """Make the box for a seed."""
    return gr.Number(value, label=label, precision=0, minimum=0, maximum=2**53)


def parse_seed(seed: float | None) -> int:
    """Return the seed in a box; raise InputError if the box is empty."""
    if seed is None:
        raise InputError("enter a seed: a whole number, 0 or more")
    return int(seed)


def class_boxes(session: Session, none: str) -> list[Any]:
    """Make a box for the class, or no box if the run has no classes; the text `none` stands for no chosen class."""
    classes = session.run.card.classes
    choices = [(none, ""), *((name, name) for name in classes)]
    return [gr.Dropdown(choices, value="", label="Class")] if classes else []


def sampler_names(session: Session) -> tuple[str, list[str]]:
    """Return the sampler of the run, and all samplers with it."""
    own = registry.sampler.text(session.run.card.sampling.sampler)
    return own, sorted({*registry.sampler.names(), own})


def sampling_boxes(session: Session, *, sampler: bool = True) -> tuple[list[Any], Callable[..., dict[str, Any]]]:
    """Make the boxes for the sampling settings, and a function that turns their values into fields of SampleConfig."""
    boxes: dict[str, Any] = {}
    if class_box := class_boxes(session, "each in turn"):
        boxes["label"] = class_box[0]
    if not session.run.card.taught:  # a student knows its own steps alone
        boxes |= step_boxes(session, sampler=sampler)

    def to_settings(*values: Any) -> dict[str, Any]:
        return {name: None if value == "" else value for name, value in zip(boxes, values, strict=True)}

    return [*boxes.values()], to_settings


def step_boxes(session: Session, *, sampler: bool) -> dict[str, Any]:
    """Make the boxes for the sampler, its steps and its guidance, by the names of the settings."""
    card, boxes = session.run.card, dict[str, Any]()
    how = card.sampling
    with gr.Accordion("Sampler", open=False):
        if sampler:
            own, names = sampler_names(session)
            boxes["sampler"] = gr.Dropdown(names, value=own, label="Sampler")
        most = max(how.steps, min(250, session.run.model.schedule.T))
        boxes["steps"] = gr.Slider(1, most, how.steps, step=1, precision=0, label="Steps")
        if card.classes:
            boxes["guidance"] = gr.Slider(0, max(8, how.guidance), how.guidance, step=0.1, label="Guidance (1 is off)")
    return boxes
