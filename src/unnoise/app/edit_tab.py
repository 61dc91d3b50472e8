"""Make the tab that edits an uploaded image."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr
import torch
from PIL import Image

from unnoise import registry
from unnoise.app import actions
from unnoise.app.components import (
    class_boxes,
    count_box,
    files_box,
    image_box,
    parse_seed,
    respond_at_once,
    seed_box,
    show_errors,
    start_and_stop,
)
from unnoise.app.session import Session
from unnoise.errors import InputError

DEFAULT_METHOD = "default"
VARY, INPAINT, UPSCALE = "make variations", "fill in the painted area", "upscale"
EDITS = {  # what the page says: the spec of the edit
    VARY: "vary:strength={strength:g}",
    INPAINT: "inpaint",
    "add colour": "colorize",
    UPSCALE: "enlarge:factor={factor:d}",
    "sharpen": "deblur:sigma={sigma:g}",
}
Painting = dict[str, Any]  # what Gradio's editor gives: the background and the painted layers


class EditBoxes(NamedTuple):
    """The boxes of the tab, in the order in which `edit` takes their values; `small` holds a small upload as it was."""

    given: gr.ImageEditor
    small: gr.State
    task: gr.Radio
    method: gr.Dropdown
    n: gr.Slider
    seed: gr.Number
    strength: gr.Slider
    factor: gr.Slider
    sigma: gr.Slider


def edit_tab(session: Session) -> None:
    """Edit an uploaded image, and show the results while they form."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            boxes = edit_boxes()
            class_box = class_boxes(session, "no class")
            buttons = gr.Column()
        with gr.Column(scale=2, min_width=320):
            sheet, files = image_box("What is known of your image, then the results"), files_box()

    def edit(given: Painting | None, small: Image.Image | None, task: str, *values: Any) -> Iterator[Any]:
        if not given or given["background"] is None:
            raise InputError("upload an image first")
        settings = edit_settings(task, *values)
        image = small if small is not None and task == UPSCALE else session.to_run_size(given["background"])
        mask = session.painted_mask(given["layers"]) if task == INPAINT else None
        known, frames = actions.edit_frames(session.editor or session.run, settings, (image,), mask)
        for frame in session.limit_rate(frames):
            yield session.to_sheet(torch.cat([known.cpu(), frame.x0.cpu()])), gr.skip()
        saved = session.save_images(frame.x, [f"{settings['seed'] + i:06d}" for i in range(settings["n"])])
        yield session.to_sheet(torch.cat([known.cpu(), frame.x.cpu()])), gr.Files(saved, visible=True)

    def fit(given: Painting | None) -> Iterator[tuple[Image.Image, Image.Image | None]]:
        if given and given["background"] is not None:
            yield session.fit_upload(given["background"])

    with buttons:
        start_and_stop(edit, [*boxes, *class_box], [sheet, files], "Edit")
    amounts = [boxes.strength, boxes.factor, boxes.sigma]
    respond_at_once(boxes.task.change, show_amounts, [boxes.task], [*amounts, boxes.method])
    respond_at_once(boxes.given.upload, show_errors(fit), [boxes.given], [boxes.given, boxes.small])


def edit_boxes() -> EditBoxes:
    """Make the boxes of the tab; the amounts of other edits than the first one are hidden."""
    given, methods = image_editor(), [DEFAULT_METHOD, *registry.posterior.names()]
    return EditBoxes(
        given=given,
        small=gr.State(None, time_to_live=3600),
        task=gr.Radio([*EDITS], value=VARY, label="Edit"),
        strength=gr.Slider(0.05, 1, 0.5, step=0.05, label="Strength (0 keeps your image)"),
        factor=gr.Slider(2, 8, 4, step=2, label="Factor", visible=False),
        sigma=gr.Slider(0.5, 4, 1.5, step=0.5, label="Blur: standard deviation in pixels", visible=False),
        method=gr.Dropdown(methods, value=DEFAULT_METHOD, label="How the known part is kept", visible=False),
        n=count_box(16, 4),
        seed=seed_box(),
    )


def image_editor() -> gr.ImageEditor:
    """Make the editor for the upload and its mask."""
    editor = gr.ImageEditor(
        label="Your image; paint the area to fill in",
        type="pil",
        sources=["upload", "clipboard"],
        format="png",  # lossless, so that known pixels stay as they are
        layers=False,
        transforms=(),
        brush=gr.Brush(default_size=48, colors=["#ffffff"], color_mode="fixed"),
        elem_id="editor",
    )
    editor.accept_blobs = None  # an image comes by upload alone, which is bounded; this way is not
    return editor


def edit_settings(
    task: str, method: str, n: int, seed: int, strength: float, factor: float, sigma: float, label: str = ""
) -> dict[str, Any]:
    """Return the fields of EditConfig for the values of the boxes."""
    return {
        "task": EDITS[task].format(strength=strength, factor=int(factor), sigma=sigma),
        "by": None if method == DEFAULT_METHOD or task == VARY else method,
        "n": n,
        "seed": parse_seed(seed),
        "label": label or None,
    }


def show_amounts(task: str) -> list[Any]:
    """Show the amount that an edit has and hide the others; show the method for edits that keep a known part."""
    amounts = [gr.Slider(visible=f"{{{name}" in EDITS[task]) for name in ("strength", "factor", "sigma")]
    return [*amounts, gr.Dropdown(visible=task != VARY)]
