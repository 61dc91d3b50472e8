"""Make the tabs of the page: what a user can ask for, and what is shown while the answer is computed."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch
from PIL import Image

from unnoise.app import actions
from unnoise.app.components import (
    class_boxes,
    count_box,
    draw_live,
    files_box,
    image_box,
    parse_seed,
    respond_at_once,
    sampler_names,
    sampling_boxes,
    seed_box,
    start_and_stop,
    start_on_click,
)
from unnoise.app.session import Session
from unnoise.app.training_view import training_view
from unnoise.errors import InputError
from unnoise.images import Uint8Images, to_float, to_uint8
from unnoise.types import Images

KEEP_STATE = 3600  # seconds that Gradio keeps what a browser has drawn


def draw_tab(session: Session) -> None:
    """Draw images and show them while they form; show the nearest training images on request."""
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            n, seed = count_box(actions.MAX_IMAGES, 16), seed_box()
            boxes, to_settings = sampling_boxes(session)
            buttons = gr.Column()
        with gr.Column(scale=2, min_width=320):
            sheet, note, files = image_box("Images"), gr.Markdown(), files_box()
            pairs = image_box("Top: drawn images. Bottom: the nearest training image of each")
            compare = gr.Button("Show the nearest training images")
    drawn = gr.State(None, time_to_live=KEEP_STATE)

    def draw(n: int, seed: int, *values: Any) -> Iterator[tuple[Any, ...]]:
        first = parse_seed(seed)
        settings = {"n": n, "seed": first, **to_settings(*values)}
        for frame in session.limit_rate(actions.sample_frames(session.run, settings)):
            yield session.to_sheet(frame.x0), f"step {frame.done} of {frame.steps}", gr.skip(), gr.skip()
        saved = session.save_images(frame.x, [f"{first + i:06d}" for i in range(n)])
        yield session.to_sheet(frame.x), "", gr.Files(saved, visible=True), frame.x.cpu()

    def show_nearest(images: Images | None) -> Iterator[Image.Image]:
        if images is None:
            raise InputError("draw some images first")
        images = images[: actions.MAX_IMAGES // 4]
        nearest = actions.nearest_training_images(session.run, images)
        yield session.to_sheet(torch.cat([images, nearest]), columns=len(images))

    with buttons:
        start_and_stop(draw, [n, seed, *boxes], [sheet, note, files, drawn])
    start_on_click(compare, show_nearest, [drawn], [pairs])


def live_tab(session: Session) -> None:
    """Draw images between the images of two seeds, again whenever a slider moves."""
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            share = gr.Slider(0, 1, 0, step=0.01, label="From the first seeds to the last")
            classes = session.run.card.classes
            class_box = [gr.Dropdown([*classes], value=classes[0], label="Class")] if classes else []
            with gr.Accordion("Seeds", open=False):
                first, last, n = seed_box(0, "First seed"), seed_box(1000, "Last seed"), count_box(16, 9)
        with gr.Column(scale=2, min_width=320):
            sheet = image_box("Images, drawn again while a slider moves")

    def draw(share: float, first: int, last: int, n: int, label: str | None = None) -> Iterator[Image.Image]:
        task = f"blend:to={parse_seed(last)},share={share:g}"
        settings = {"n": n, "seed": parse_seed(first), "task": task, "label": label}
        _, frames = actions.edit_frames(session.run, settings)
        *_, frame = frames
        yield session.to_sheet(frame.x)

    draw_live([share, first, last, n, *class_box], draw, sheet)


def steps_tab(session: Session) -> None:
    """Draw one image, and show any of its steps by a slider."""
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            seed = seed_box()
            boxes, to_settings = sampling_boxes(session)
            buttons = gr.Column()
        with gr.Column(scale=2, min_width=320):
            slider = gr.Slider(0, 1, 0, step=1, label="Step", interactive=True)
            sheet = image_box("Left: the noisy image x_t. Right: the predicted image x0")
            files = files_box()
    steps = gr.State(None, time_to_live=KEEP_STATE)

    def draw(seed: int, *values: Any) -> Iterator[tuple[Any, ...]]:
        seen = list[Uint8Images]()
        settings = {"n": 1, "seed": parse_seed(seed), **to_settings(*values)}
        for frame in actions.sample_frames(session.run, settings):
            seen.append(to_uint8(torch.cat([frame.x, frame.x0])).cpu())
            if session.is_update_due(last=frame.done == frame.steps):
                yield session.to_sheet(to_float(seen[-1]), columns=2), gr.skip(), gr.skip(), gr.skip()
        saved = gr.Files(session.save_animation([*map(to_float, seen)]), visible=True)
        last = session.to_sheet(to_float(seen[-1]), columns=2)
        yield last, gr.Slider(1, len(seen), len(seen), step=1), saved, seen

    def show_step(step: int, seen: list[Uint8Images] | None) -> Any:
        if not seen or not step:
            return gr.skip()
        return session.to_sheet(to_float(seen[min(int(step), len(seen)) - 1]), columns=2)

    with buttons:
        start_and_stop(draw, [seed, *boxes], [sheet, slider, files, steps])
    respond_at_once(slider.change, show_step, [slider, steps], sheet)


def samplers_tab(session: Session) -> None:
    """Draw images from the same noise by several samplers, and show the seconds that each one took."""
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            own, names = sampler_names(session)
            chosen = gr.CheckboxGroup(names, value=list(dict.fromkeys([own, "ddim", "ddpm"])), label="Samplers")
            n, seed = count_box(8, 4), seed_box()
            boxes, to_settings = sampling_boxes(session, sampler=False)
            buttons = gr.Column()
        with gr.Column(scale=2, min_width=320):
            sheet, note = image_box("One row for each sampler, all from the same noise"), gr.Markdown()

    def compare(chosen: list[str], n: int, seed: int, *values: Any) -> Iterator[tuple[Image.Image, str]]:
        rows, notes = dict[str, Images](), dict[str, str]()
        settings = {"n": n, "seed": parse_seed(seed), **to_settings(*values)}
        for frame in actions.compare_samplers(session.run, chosen, settings):
            rows[frame.sampler] = frame.images.cpu()
            notes[frame.sampler] = f"{frame.sampler}, {frame.seconds:.1f} s"
            if session.is_update_due(last=frame.done):
                text = f"From top to bottom: {'; '.join(notes.values())}"
                yield session.to_sheet(torch.cat([*rows.values()]), columns=n), text

    with buttons:
        start_and_stop(compare, [chosen, n, seed, *boxes], [sheet, note], "Compare")


def interpolate_tab(session: Session) -> None:
    """Interpolate from the image of one seed to the image of another."""
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            first, last = seed_box(0, "First seed"), seed_box(1, "Last seed")
            class_box = class_boxes(session, "choose one")
            n = count_box(actions.MAX_IMAGES, 12, least=2)
            buttons = gr.Column()
        with gr.Column(scale=2, min_width=320):
            sheet, files = image_box("From the first seed to the last"), files_box()

    def interpolate(first: int, last: int, n: int, label: str = "") -> Iterator[tuple[Any, ...]]:
        task = f"interpolate:to={parse_seed(last)}"
        settings = {"n": n, "seed": parse_seed(first), "task": task, "label": label or None}
        _, frames = actions.edit_frames(session.run, settings)
        for frame in session.limit_rate(frames):
            yield session.to_sheet(frame.x0), gr.skip()
        saved = session.save_animation([*frame.x[:, None].cpu()])
        yield session.to_sheet(frame.x), gr.Files(saved, visible=True)

    with buttons:
        start_and_stop(interpolate, [first, last, n, *class_box], [sheet, files])


def noise_tab(session: Session) -> None:
    """Show an uploaded image at several noise levels: the forward process."""
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            given = gr.Image(label="Your image", type="pil", image_mode=None, sources=["upload", "clipboard"])
            count, seed = count_box(16, 10, "Levels", least=2), seed_box()
            buttons = gr.Column()
        with gr.Column(scale=2, min_width=320):
            gallery = gr.Gallery(
                label="The noisy image x_t", columns=5, format="png", elem_classes="pixels", object_fit="contain"
            )

    def add_noise(given: Image.Image | None, count: int, seed: int) -> Iterator[list[tuple[Image.Image, str]]]:
        if given is None:
            raise InputError("upload an image first")
        images, times = actions.add_noise(session.run, given, count, parse_seed(seed))
        yield [(session.to_sheet(image[None]), f"t = {time}") for image, time in zip(images, times, strict=True)]

    with buttons:
        start_and_stop(add_noise, [given, count, seed], [gallery], "Add noise")


def training_tab(session: Session) -> None:
    """Show the training of the run, read again every 5 seconds."""
    view = gr.HTML(training_view(session.folder, session.run.card))
    respond_at_once(gr.Timer(5).tick, lambda: training_view(session.folder, session.run.card), [], view)
