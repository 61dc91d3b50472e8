"""What the app works at: the run as it lies on the disk now, and a folder for the files that are handed out."""

import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

from PIL import Image

from unnoise.app.actions import Frame
from unnoise.card import Run
from unnoise.checkpoint import find_model, load
from unnoise.editing.inputs import open_image
from unnoise.images import grid, save_gif, save_image, to_pil
from unnoise.types import Images

WIDE = 640  # pixels of a sheet on the page, about
PACE = 0.25  # seconds between two pictures of one piece of work
KEPT = 3600.0  # seconds that handed out files are kept


def enlarged(picture: Image.Image, factor: int) -> Image.Image:
    """Pixels stay squares."""
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


class Desk:
    """A run, opened again where training has replaced its file, and where its files go."""

    def __init__(self, path: str, out: Path) -> None:
        self.path, self.out, self.last = find_model(Path(path)), out, 0.0
        self.written, self.lock = self.path.stat().st_mtime_ns, Lock()
        self.opened = load(self.path)

    @property
    def run(self) -> Run:
        with self.lock:
            written = self.path.stat().st_mtime_ns
            if written != self.written:  # what is written while it is read is read again the next time
                self.opened, self.written = load(self.path), written
            return self.opened

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def facts(self) -> str:
        card = self.run.card
        c, h, w = card.shape
        trained = card.training.get("images", 0)
        return f"{w} x {h}, {card.mode or f'{c} channels'}; {card.backbone}; trained on {trained:,} images"

    def due(self, *, last: bool) -> bool:
        """Whether it is time to show something again."""
        if not last and time.monotonic() - self.last < PACE:
            return False
        self.last = time.monotonic()
        return True

    def paced(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Some of them, the last one always."""
        for frame in frames:
            if self.due(last=False):
                yield frame
        yield frame

    def shown(self, images: Images, columns: int | None = None) -> Image.Image:
        """A sheet as a browser can show it, whatever the mode of the files."""
        sheet = grid(images, "", columns)
        shown = sheet if sheet.mode in ("RGB", "RGBA") else sheet.convert("RGBA" if sheet.mode == "LA" else "RGB")
        return enlarged(shown, max(1, WIDE // shown.width))

    def fitted(self, picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
        """An upload as the run takes it, its pixels large enough to paint on; and as it was, if it is smaller."""
        seen, card = open_image(picture, self.run.card.shape, self.run.card.mode)[0], self.run.card
        small = picture if picture.width < card.shape[2] and picture.height < card.shape[1] else None
        return enlarged(to_pil(seen, card.mode), max(1, WIDE // max(card.shape[1:]))), small

    def own(self, painted: Image.Image) -> Image.Image:
        """What `fitted` made, pixel for pixel as it was."""
        return painted.reduce(max(1, painted.width // self.run.card.shape[2]))

    def painted(self, layers: Sequence[Image.Image | None]) -> Image.Image | None:
        """White where anything was painted, in pixels of the run."""
        for layer in filter(None, layers or []):
            return self.own(layer.getchannel("A").point(lambda alpha: 255 * (alpha > 0))).point(lambda v: 255 * (v > 0))
        return None

    def place(self) -> Path:
        """A folder that nobody can guess; those of an hour ago are gone."""
        for old in self.out.iterdir():
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
        (place := self.out / secrets.token_hex(16)).mkdir()
        return place

    def files(self, images: Images, names: Sequence[str]) -> list[str]:
        """All together, and a zip of one file an image."""
        place, mode = self.place(), self.opened.card.mode
        grid(images, mode).save(together := place / "pictures.png")
        with zipfile.ZipFile(packed := place / "pictures.zip", "w") as archive:
            for image, name in zip(images, names, strict=True):
                archive.write(path := save_image(image, place / name, mode), path.name)
                path.unlink()
        return [str(together), str(packed)]

    def save_gif(self, frames: Sequence[Images]) -> list[str]:
        """One frame after another."""
        place = self.place()
        save_gif(frames, path := place / "film.gif")
        return [str(path)]
