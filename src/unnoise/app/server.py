"""Serve the app on this machine, for this machine only."""

import os
import signal
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from unnoise.app.session import Session
from unnoise.config import AppConfig
from unnoise.data.open_image import FORMATS
from unnoise.errors import InputError
from unnoise.terminal import tell

MAX_UPLOAD = "20mb"  # size of an uploaded file
MAX_PIXELS = 20_000_000  # of an uploaded image
MAX_WAITING = 64  # requests in the queue, and browsers whose state is kept


def serve(config: AppConfig) -> None:
    """Serve the page on loopback until the process is interrupted; no request is sent to another machine."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary folder is deleted at the end
    with tempfile.TemporaryDirectory(prefix="unnoise-app-") as folder:
        page = import_page(folder)
        limit_decoders()
        (out := Path(folder) / "out").mkdir()
        session = Session(config.run, out)
        blocks = page.build_page(session)
        blocks.queue(max_size=MAX_WAITING, api_open=False)
        try:
            blocks.launch(server_port=config.port, inbrowser=config.browser, **launch_options(page, Path(folder)))
        except OSError as error:
            if config.port is None:
                raise
            raise InputError(f"port {config.port} is not free; name another one with --port") from error
        tell(f"{session.name} is at {blocks.local_url}  (Ctrl-C stops the app)")
        blocks.block_thread()


def import_page(folder: str) -> ModuleType:
    """Import the page, and with it Gradio, which keeps its files in `folder` and sends no statistics."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        from unnoise.app import page  # noqa: PLC0415  # Gradio reads both variables when it is imported
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "gradio":
            raise
        raise InputError("the app needs Gradio: pip install 'unnoise[app]'") from None
    return page


def launch_options(page: ModuleType, folder: Path) -> dict[str, Any]:
    """Return the options of Gradio's server: it is private and bounded; its files are in `folder`."""
    return {
        "server_name": "127.0.0.1",
        "share": False,
        "show_error": True,
        "quiet": True,
        "footer_links": [],
        "max_file_size": MAX_UPLOAD,
        "state_session_capacity": MAX_WAITING,
        "app_kwargs": {"middleware": page.guards(folder)},
        "ssr_mode": False,
        "enable_monitoring": False,
        "prevent_thread_lock": True,
        "theme": page.theme(),
        "css": page.STYLE,
    }


def limit_decoders() -> None:
    """Let Pillow decode image formats alone and no image that is too large, since Gradio decodes uploads with it."""
    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses images at twice this number
