"""The page: what can be asked for, and what is shown. What happens in between is in `acts`."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import gradio as gr
import torch
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from unnoise import registry
from unnoise.app import actions as acts
from unnoise.app.session import Desk
from unnoise.app.training_view import training_view
from unnoise.errors import InputError
from unnoise.images import Uint8Images, to_float, to_uint8
from unnoise.types import Images

STYLE = ".pixels img, img.pixels { image-rendering: pixelated } img.pixels { width: min(100%, 32rem) }"
USUAL = "as is usual for it"
TASKS = {
    "vary it": "vary:strength={strength:g}",
    "fill in what is painted": "inpaint",
    "colour it": "colorize",
    "enlarge it": "enlarge:factor={factor:d}",
    "sharpen it": "deblur:sigma={sigma:g}",
}
Handler = Callable[..., Any]


def theme() -> Any:
    """Without fonts from elsewhere."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def own_hosts() -> Middleware:
    """Answer under the names of this machine alone: a page from elsewhere cannot pass its own name off as ours."""
    return Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])


def page(desk: Desk) -> Any:
    """One tab for each thing one can do."""
    with gr.Blocks(title=f"unnoise: {desk.name}", analytics_enabled=False, delete_cache=(60, 3600)) as blocks:
        gr.Markdown(f"## {desk.name}\n{desk.facts()}")
        for title, tab in (
            ("Draw", draw_tab),
            ("Film", film_tab),
            ("Samplers", samplers_tab),
            ("Between", between_tab),
            ("Edit", edit_tab),
            ("Noise", noise_tab),
            ("Training", training_tab),
        ):
            with gr.Tab(title):
                tab(desk)
    return blocks


def told(work: Handler) -> Handler:
    """What is refused is said on the page."""

    @wraps(work)
    def safely(*given: Any) -> Iterator[Any]:
        try:
            yield from work(*given)
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None

    return safely


def working(work: Handler, given: list[Any], shown: list[Any], label: str = "Draw") -> Any:
    """A button that starts it and one that stops it; all work of the model waits in one line. Returns its event."""
    with gr.Row():
        start, stop = gr.Button(label, variant="primary"), gr.Button("Stop", variant="stop")
    event = start.click(told(work), given, shown, concurrency_id="model", concurrency_limit=1, api_visibility="private")
    stop.click(None, cancels=[event], api_visibility="private")
    return event


def instantly(listen: Handler, work: Handler, given: list[Any], shown: Any) -> None:
    """For what takes no time: it waits for nobody."""
    listen(work, given, shown, queue=False, show_progress="hidden", api_visibility="private")


def picture(label: str) -> gr.Image:
    """Where pictures of the run are shown."""
    return gr.Image(label=label, interactive=False, format="png", elem_classes="pixels", buttons=["download"])


def gallery(label: str, columns: int) -> gr.Gallery:
    return gr.Gallery(label=label, columns=columns, format="png", elem_classes="pixels", object_fit="contain")


def seed_box(value: int = 0, label: str = "Seed") -> gr.Number:
    return gr.Number(value, label=label, precision=0, minimum=0, maximum=2**53)


def whole(seed: float | None) -> int:
    if seed is None:
        raise InputError("give a seed: a whole number, 0 or more")
    return int(seed)


def class_box(desk: Desk, first: str) -> list[Any]:
    """Where the run knows classes, one of them, or "", of which `first` says what it means."""
    classes = desk.run.card.classes
    choices = [(first, ""), *((name, name) for name in classes)]
    return [gr.Dropdown(choices, value="", label="Class")] if classes else []


def controls(desk: Desk, *, sampler: bool = True) -> tuple[list[Any], Callable[..., dict[str, Any]]]:
    """How it is sampled, and from the values of these the settings they say."""
    how, card = desk.run.card.sampling, desk.run.card
    boxes: dict[str, Any] = {}
    if box := class_box(desk, "each in turn"):
        boxes["label"] = box[0]
    with gr.Accordion("Sampler", open=False):
        if sampler:
            choices = sorted({*registry.sampler.names(), registry.sampler.text(how.sampler)})
            boxes["sampler"] = gr.Dropdown(choices, value=how.sampler, label="Sampler")
        most = max(how.steps, min(250, desk.run.model.schedule.T))
        boxes["steps"] = gr.Slider(1, most, how.steps, step=1, precision=0, label="Steps")
        if card.classes:
            boxes["guidance"] = gr.Slider(0, max(8, how.guidance), how.guidance, step=0.1, label="Guidance: 1 is off")

    def settings(*values: Any) -> dict[str, Any]:
        said = dict(zip(boxes, values, strict=True))
        return {name: None if value == "" else value for name, value in said.items()}

    return [*boxes.values()], settings


def draw_tab(desk: Desk) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            n, seed = gr.Slider(1, acts.MOST, 16, step=1, label="Pictures"), seed_box()
            boxes, settings = controls(desk)
            ask = gr.Column()
        with gr.Column(scale=2, min_width=320):
            shown, note, files = picture("Pictures"), gr.Markdown(), gr.Files(label="Files", visible=False)
            twins = picture("Above, what was drawn; below, the nearest training image")
            compare = gr.Button("Beside the nearest training images")
    drawn = gr.State(None, time_to_live=3600)

    def draw(n: int, seed: int, *values: Any) -> Iterator[tuple[Any, ...]]:
        for frame in desk.paced(acts.sampled(desk.run, {"n": n, "seed": whole(seed), **settings(*values)})):
            yield desk.shown(frame.x0), f"step {frame.done} of {frame.steps}", gr.skip(), gr.skip()
        names = [f"{whole(seed) + i:06d}" for i in range(n)]
        yield desk.shown(frame.x), "", gr.Files(desk.files(frame.x, names), visible=True), frame.x.cpu()

    with ask:
        working(draw, [n, seed, *boxes], [shown, note, files, drawn])

    def look(images: Images | None) -> Iterator[Image.Image]:
        if images is None:
            raise InputError("draw some pictures first")
        images = images[: acts.MOST // 4]
        yield desk.shown(torch.cat([images, acts.nearest_seen(desk.run, images)]), columns=len(images))

    compare.click(told(look), [drawn], [twins], concurrency_id="model", concurrency_limit=1, api_visibility="private")


def film_tab(desk: Desk) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            seed = seed_box()
            boxes, settings = controls(desk)
            ask = gr.Column()
        with gr.Column(scale=2, min_width=320):
            place = gr.Slider(0, 1, 0, step=1, label="Step", interactive=True)
            shown = picture("Left, the noisy image x_t; right, the image that is believed in")
            files = gr.Files(label="Files", visible=False)
    frames = gr.State(None, time_to_live=3600)

    def roll(seed: int, *values: Any) -> Iterator[tuple[Any, ...]]:
        seen = list[Uint8Images]()
        for frame in acts.sampled(desk.run, {"n": 1, "seed": whole(seed), **settings(*values)}):
            seen.append(to_uint8(torch.cat([frame.x, frame.x0])).cpu())
            if desk.due(last=frame.done == frame.steps):
                yield desk.shown(to_float(seen[-1]), columns=2), gr.skip(), gr.skip(), gr.skip()
        slider = gr.Slider(1, len(seen), len(seen), step=1)
        made = gr.Files(desk.save_gif([*map(to_float, seen)]), visible=True)
        yield desk.shown(to_float(seen[-1]), columns=2), slider, made, seen

    with ask:
        working(roll, [seed, *boxes], [shown, place, files, frames])

    def at(step: int, seen: list[Uint8Images] | None) -> Any:
        if not seen or not step:
            return gr.skip()
        return desk.shown(to_float(seen[min(int(step), len(seen)) - 1]), columns=2)

    instantly(place.change, at, [place, frames], shown)


def samplers_tab(desk: Desk) -> None:
    own = registry.sampler.text(desk.run.card.sampling.sampler)
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            names = sorted({*registry.sampler.names(), own})
            chosen = gr.CheckboxGroup(names, value=list(dict.fromkeys([own, "ddim", "ddpm"])), label="Samplers")
            n, seed = gr.Slider(1, 8, 4, step=1, label="Pictures"), seed_box()
            boxes, settings = controls(desk, sampler=False)
            ask = gr.Column()
        with gr.Column(scale=2, min_width=320):
            shown, note = picture("The same noise, one row a sampler"), gr.Markdown()

    def compare(chosen: list[str], n: int, seed: int, *values: Any) -> Iterator[tuple[Image.Image, str]]:
        rows, said = dict[str, Images](), dict[str, str]()
        for found in acts.compared(desk.run, chosen, {"n": n, "seed": whole(seed), **settings(*values)}):
            rows[found.sampler], said[found.sampler] = found.images.cpu(), f"{found.sampler}, {found.seconds:.1f} s"
            if desk.due(last=found.done):
                yield desk.shown(torch.cat([*rows.values()]), columns=n), f"From above: {'; '.join(said.values())}"

    with ask:
        working(compare, [chosen, n, seed, *boxes], [shown, note], "Compare")


def between_tab(desk: Desk) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            first, last, box = seed_box(0, "First seed"), seed_box(1, "Last seed"), class_box(desk, "choose one")
            n = gr.Slider(2, acts.MOST, 12, step=1, label="Pictures on the way")
            ask = gr.Column()
        with gr.Column(scale=2, min_width=320):
            shown, files = picture("From one to the other"), gr.Files(label="Files", visible=False)

    def go(first: int, last: int, n: int, label: str = "") -> Iterator[tuple[Any, ...]]:
        settings = {"n": n, "seed": whole(first), "task": f"interpolate:to={whole(last)}", "label": label or None}
        _, steps = acts.edited(desk.run, settings)
        for frame in desk.paced(steps):
            yield desk.shown(frame.x0), gr.skip()
        yield desk.shown(frame.x), gr.Files(desk.save_gif([*frame.x[:, None].cpu()]), visible=True)

    with ask:
        working(go, [first, last, n, *box], [shown, files])


def edit_tab(desk: Desk) -> None:
    methods, small = registry.posterior.names(), gr.State(None, time_to_live=3600)  # the upload, if it is small
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            given = gr.ImageEditor(
                label="Your picture; paint what is to be filled in",
                type="pil",
                sources=["upload", "clipboard"],
                format="png",  # every pixel as it is
                layers=False,
                transforms=(),
                brush=gr.Brush(default_size=48, colors=["#ffffff"], color_mode="fixed"),
                elem_id="editor",
            )
            given.accept_blobs = None  # hands what it holds over by upload, which is bounded, and by nothing else
            task = gr.Radio([*TASKS], value="vary it", label="What")
            strength = gr.Slider(0.05, 1, 0.5, step=0.05, label="How far from it")
            factor = gr.Slider(2, 8, 4, step=2, label="How many times larger", visible=False)
            sigma = gr.Slider(0.5, 4, 1.5, step=0.5, label="How blurred it is: deviation, pixels", visible=False)
            by = gr.Dropdown([USUAL, *methods], value=USUAL, label="How what is known is kept", visible=False)
            box = class_box(desk, "none of them")
            n, seed = gr.Slider(1, 16, 4, step=1, label="Pictures"), seed_box()
            ask = gr.Column()
        with gr.Column(scale=2, min_width=320):
            shown, files = picture("What is known, then what is made of it"), gr.Files(label="Files", visible=False)

    def edit(
        given: dict[str, Any] | None, small: Image.Image | None, what: str, by: str, n: int, seed: int, *rest: Any
    ) -> Iterator[Any]:
        if not given or given["background"] is None:
            raise InputError("upload a picture first")
        strength, factor, sigma, *label = rest
        task = TASKS[what].format(strength=strength, factor=int(factor), sigma=sigma)
        settings = {"task": task, "n": n, "seed": whole(seed), "label": label[0] or None if label else None}
        settings["by"] = None if by == USUAL or "vary" in task else by
        source = small if small is not None and "enlarge" in task else desk.own(given["background"])
        mask = desk.painted(given["layers"]) if task == "inpaint" else None
        known, steps = acts.edited(desk.run, settings, (source,), mask)
        for frame in desk.paced(steps):
            yield desk.shown(torch.cat([known.cpu(), frame.x0.cpu()])), gr.skip()
        names = [f"{whole(seed) + i:06d}" for i in range(n)]
        final = desk.shown(torch.cat([known.cpu(), frame.x.cpu()]))
        yield final, gr.Files(desk.files(frame.x, names), visible=True)

    with ask:
        working(edit, [given, small, task, by, n, seed, strength, factor, sigma, *box], [shown, files], "Edit")

    def asked(what: str) -> list[Any]:
        amounts = [gr.Slider(visible=f"{{{name}" in TASKS[what]) for name in ("strength", "factor", "sigma")]
        return [*amounts, gr.Dropdown(visible=what != "vary it")]

    instantly(task.change, asked, [task], [strength, factor, sigma, by])

    def fit(given: dict[str, Any] | None) -> Iterator[tuple[Image.Image, Image.Image | None]]:
        if given and given["background"] is not None:
            yield desk.fitted(given["background"])

    given.upload(told(fit), [given], [given, small], queue=False, show_progress="hidden", api_visibility="private")


def noise_tab(desk: Desk) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            given = gr.Image(label="Your picture", type="pil", image_mode=None, sources=["upload", "clipboard"])
            count = gr.Slider(2, 16, 10, step=1, label="Levels")
            seed = seed_box()
            ask = gr.Column()
        with gr.Column(scale=2, min_width=320):
            shown = gallery("x_t", columns=5)

    def noised(given: Image.Image | None, count: int, seed: int) -> Iterator[list[tuple[Image.Image, str]]]:
        if given is None:
            raise InputError("upload a picture first")
        images, times = acts.noised(desk.run, given, count, whole(seed))
        yield [(desk.shown(image[None]), f"t = {time}") for image, time in zip(images, times, strict=True)]

    with ask:
        working(noised, [given, count, seed], [shown], "Noise it")


def training_tab(desk: Desk) -> None:
    shown = gr.HTML(training_view(desk.folder, desk.run.card))
    instantly(gr.Timer(5).tick, lambda: training_view(desk.folder, desk.run.card), [], shown)
