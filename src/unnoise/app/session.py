"""The run that the app shows, opened again when its file changes, and a folder for the files that users download."""

import itertools
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

from PIL import Image

from unnoise.app.actions import Frame
from unnoise.card import Run
from unnoise.checkpoint import find_model, load
from unnoise.editing.inputs import open_image
from unnoise.images import grid, save_gif, save_image, to_pil
from unnoise.types import Images

SHEET_WIDTH = 640  # pixels of a grid of images on the page, about
UPDATE_EVERY = 0.25  # seconds between two updates of the page
KEEP_FILES = 3600.0  # seconds that files can be downloaded
MAX_FOLDERS = 100  # folders of such files, one for each request; the oldest ones are deleted


def enlarge(image: Image.Image, factor: int) -> Image.Image:
    """Return the image with each pixel as a square of `factor` by `factor` pixels."""
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


class Session:
    """A run, opened again when training has replaced its file, and the folder of the files for download."""

    def __init__(self, path: str, out: Path) -> None:
        self.given, self.path, self.out, self.last_update = path, find_model(Path(path)), out, 0.0
        self.written, self.lock, self.numbers = self.path.stat().st_mtime_ns, Lock(), itertools.count()
        self.opened = load(self.path)

    @property
    def run(self) -> Run:
        """Return the run as its file is now."""
        with self.lock:
            written = self.path.stat().st_mtime_ns
            if written != self.written:  # a file that changes while it is read is read again the next time
                self.opened, self.written = load(self.given), written
            return self.opened

    @cached_property
    def editor(self) -> Run | None:
        """Return the run that edits in place of a student, which cannot: its teacher. None for other runs."""
        return load(self.run.teacher) if self.run.teacher else None

    @property
    def folder(self) -> Path:
        """Return the folder of the run."""
        return self.path.parent

    @property
    def name(self) -> str:
        """Return the name of the run."""
        return self.folder.resolve().name

    def describe(self) -> str:
        """Return a line about the run: size, network and length of the training."""
        card = self.run.card
        c, h, w = card.shape
        trained = card.training.get("images", 0)
        return f"{w} x {h}, {card.mode or f'{c} channels'}; {card.backbone}; trained on {trained:,} images"

    def is_update_due(self, *, last: bool) -> bool:
        """Return true if the page should be updated: after the last step, and now and then before."""
        if not last and time.monotonic() - self.last_update < UPDATE_EVERY:
            return False
        self.last_update = time.monotonic()
        return True

    def limit_rate(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield as many frames as the page can show in time, and always the last one."""
        for frame in frames:
            if self.is_update_due(last=False):
                yield frame
        yield frame

    def to_sheet(self, images: Images, columns: int | None = None) -> Image.Image:
        """Return a grid of images that a browser can show, for files of any mode."""
        sheet = grid(images, "", columns)
        if sheet.mode not in ("RGB", "RGBA"):
            sheet = sheet.convert("RGBA" if sheet.mode == "LA" else "RGB")
        return enlarge(sheet, max(1, SHEET_WIDTH // sheet.width))

    def fit_upload(self, image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
        """Return an upload as the run sees it, with pixels large enough to paint on.

        The second image is the upload itself if it is smaller than the images of the run, else None.
        """
        card = self.run.card
        fitted = open_image(image, card.shape, card.mode, spans=card.spans)[0]
        small = image if image.width < card.shape[2] and image.height < card.shape[1] else None
        return enlarge(to_pil(fitted, card.mode), max(1, SHEET_WIDTH // max(card.shape[1:]))), small

    def to_run_size(self, fitted: Image.Image) -> Image.Image:
        """Return an image of `fit_upload` in the size of the run; every pixel is as it was."""
        return fitted.reduce(max(1, fitted.width // self.run.card.shape[2]))

    def painted_mask(self, layers: Sequence[Image.Image | None]) -> Image.Image | None:
        """Return a mask in the size of the run that is white where there is paint; None without a layer."""
        for layer in filter(None, layers or []):
            painted = layer.getchannel("A").point(lambda alpha: 255 * (alpha > 0))
            return self.to_run_size(painted).point(lambda share: 255 * (share > 0))
        return None

    def new_download_folder(self) -> Path:
        """Make a folder whose name nobody can guess, and delete the folders that are too old or too many."""
        for i, old in enumerate(sorted(self.out.iterdir(), reverse=True), 1):
            if i >= MAX_FOLDERS or time.time() - old.stat().st_mtime > KEEP_FILES:
                shutil.rmtree(old, ignore_errors=True)
        # The names rise: folders made within one tick of the disk's clock have the same time.
        (folder := self.out / f"{next(self.numbers):06x}{secrets.token_hex(13)}").mkdir()
        return folder

    def save_images(self, images: Images, names: Sequence[str]) -> list[str]:
        """Write a grid of all images, and a zip with one file for each; return both paths."""
        folder, mode = self.new_download_folder(), self.opened.card.mode
        grid(images, mode).save(sheet := folder / "images.png")
        with zipfile.ZipFile(packed := folder / "images.zip", "w") as archive:
            for image, name in zip(images, names, strict=True):
                archive.write(path := save_image(image, folder / name, mode), path.name)
                path.unlink()
        return [str(sheet), str(packed)]

    def save_animation(self, frames: Sequence[Images]) -> list[str]:
        """Write a GIF of the frames; return its path."""
        save_gif(frames, path := self.new_download_folder() / "animation.gif")
        return [str(path)]
