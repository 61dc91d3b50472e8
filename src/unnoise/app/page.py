"""Put the page together: one tab for each thing that it offers."""

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from unnoise.app.edit_tab import edit_tab
from unnoise.app.guard import BoundedUploads, SameOrigin
from unnoise.app.session import Session
from unnoise.app.tabs import draw_tab, interpolate_tab, live_tab, noise_tab, samplers_tab, steps_tab, training_tab
from unnoise.card import Run
from unnoise.sampling import network_calls

STYLE = ".pixels img, img.pixels { image-rendering: pixelated } img.pixels { width: min(100%, 32rem) }"
LIVE_CALLS = 4  # of the network for an image; with more of them the images cannot follow a slider
TABS = {
    "Live": live_tab,
    "Draw": draw_tab,
    "Step by step": steps_tab,
    "Samplers": samplers_tab,
    "Interpolate": interpolate_tab,
    "Edit": edit_tab,
    "Noise": noise_tab,
    "Training": training_tab,
}


def theme() -> Any:
    """Return a theme that loads no fonts from another server."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def guards(folder: Path) -> list[Middleware]:
    """Return what each request passes first; `folder` has the uploads.

    The server answers only to the names of this machine, so that no other site can pass its own name off as ours.
    """
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
        Middleware(SameOrigin),
        Middleware(BoundedUploads, incoming=folder),
    ]


def build_page(session: Session) -> Any:
    """Return the page of a run as Gradio's blocks."""
    with gr.Blocks(title=f"unnoise: {session.name}", analytics_enabled=False, delete_cache=(60, 3600)) as blocks:
        gr.Markdown(f"## {session.name}\n{session.describe()}")
        for title in tabs_of(session.run):
            with gr.Tab(title):
                TABS[title](session)
    return blocks


def tabs_of(run: Run) -> list[str]:
    """Return the tabs of a run: without what it cannot do."""
    student = run.card.taught is not None
    left_out = {
        "Live": network_calls(run.card.sampling) > LIVE_CALLS,
        "Samplers": student,  # it knows its own steps alone
        "Edit": student and run.teacher is None,
    }
    return [title for title in TABS if not left_out.get(title)]
