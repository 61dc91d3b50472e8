"""The app on this machine, for whoever sits at it."""

import os
import signal
import tempfile
from pathlib import Path

from PIL import Image

from unnoise.app.session import Desk
from unnoise.config import AppConfig
from unnoise.data.decode import FORMATS
from unnoise.errors import InputError

LARGEST, WAITING = "20mb", 64  # of an uploaded file; pieces of work that may wait in line
PIXELS = 20_000_000  # of an uploaded picture


def serve(config: AppConfig) -> None:
    """Until it is interrupted; on loopback only, and nothing is sent elsewhere."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the temporary folder ends with it
    with tempfile.TemporaryDirectory(prefix="unnoise-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            from unnoise.app import page  # noqa: PLC0415  # reads the two above, and needs the extra
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "gradio":
                raise
            raise InputError("the app needs Gradio: pip install 'unnoise[app]'") from None
        restrain_decoders()
        (out := Path(folder) / "out").mkdir()
        desk = Desk(config.run, out)
        blocks = page.page(desk)
        blocks.queue(max_size=WAITING, api_open=False)
        try:
            blocks.launch(
                server_name="127.0.0.1",
                server_port=config.port,
                inbrowser=config.browser,
                share=False,
                show_error=True,
                quiet=True,
                footer_links=[],
                max_file_size=LARGEST,
                state_session_capacity=WAITING,
                app_kwargs={"middleware": [page.own_hosts()]},
                ssr_mode=False,
                enable_monitoring=False,
                prevent_thread_lock=True,
                theme=page.theme(),
                css=page.STYLE,
            )
        except OSError as error:
            if config.port is None:
                raise
            raise InputError(f"port {config.port} cannot be had; name another with --port") from error
        print(f"{desk.name} is at {blocks.local_url}  (Ctrl-C ends it)", flush=True)
        blocks.block_thread()


def restrain_decoders() -> None:
    """What is uploaded is decoded by Gradio: let Pillow know picture formats alone, and no picture too large."""
    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]
    Image.MAX_IMAGE_PIXELS = PIXELS // 2  # it refuses at twice that
