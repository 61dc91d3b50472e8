"""Render the HTML templates of the package; every value is escaped unless a template says otherwise."""

import base64
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from PIL import Image

from unnoise.data.open_image import open_image
from unnoise.data.sources.source import UnreadableImage
from unnoise.run_folder import own_file
from unnoise.types import MODES


@cache
def environment() -> Environment:
    """Return the Jinja environment; a fact that is missing in a template is an error."""
    return Environment(
        loader=PackageLoader("unnoise", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Return the HTML of a template, named by its path in the package, with these facts.

    Raises:
        LookupError: A fact is missing.
    """
    try:
        return environment().get_template(template).render(facts)
    except UndefinedError as error:
        raise LookupError(str(error)) from error


class EmbeddedImages:
    """Images of a run folder as data URIs, so that a page needs no other file.

    A page is often published. So the pixels are encoded anew, and no other byte of a file comes into it. A link that
    leads out of the folder is not followed, and a file with a second name (a hard link) is left out.

    Attributes:
        left_out: A text for each file that is not shown.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.left_out = folder, list[str]()

    def uri(self, *names: str) -> str | None:
        """Return the data URI of an image, or None if it is not there or cannot be shown."""
        place, path = self.folder.joinpath(*names), own_file(self.folder, *names)
        if path is None:
            if place.is_symlink() or place.parent.is_symlink():
                self.left_out.append(f"{'/'.join(names)} is not shown: it is a link out of the run folder")
            return None
        try:
            return png_uri(path)
        except (UnreadableImage, OSError) as why:
            self.left_out.append(f"{'/'.join(names)} is not shown: {why}")
            return None


def png_uri(path: Path) -> str:
    """Return the pixels of an image file as a data URI; raise UnreadableImage if it is damaged or a hard link."""
    if path.stat().st_nlink > 1:
        raise UnreadableImage("it has a second name elsewhere (a hard link)")
    with open_image(path, load=True) as (image, _):
        sheet = image if image.mode in (*MODES.values(), "I;16") else image.convert("RGBA")
        pixels = np.asarray(sheet)
    Image.fromarray(pixels).save(file := BytesIO(), "PNG")  # of an array: without texts and profiles
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
