"""Render the HTML templates of the package; every value is escaped unless a template says otherwise."""

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


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
    """Return the HTML of a template, named by its path in the package, with these facts."""
    return environment().get_template(template).render(facts)


def png_uri(path: Path) -> str:
    """Return a PNG file as a data URI, so that the page needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
