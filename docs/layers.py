"""Draw the layers of the import contract in pyproject.toml as docs/layers.svg.

python docs/layers.py
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT, GAP, MARGIN, GUTTER = 860, 46, 12, 16, 48  # of the image, a box, between boxes, around all, of the arrow
CONTENT = {  # what a reader finds in each box
    "cli": "command line",
    "commands": "one function for each command",
    "app": "page in the browser",
    "training": "setup, loop, step, monitors, state",
    "verification": "a run recomputed",
    "reporting": "report, comparison",
    "evaluation": "scores, statistics, tuning",
    "editing": "edits, posterior samplers",
    "distillation": "students of a run",
    "exporting": "runs without PyTorch",
    "recipes": "named settings",
    "sampling": "images from a run",
    "checkpoint": "load, save, find",
    "interop": "diffusers pipelines",
    "card": "card of a model, Run",
    "samplers": "from noise to images",
    "diffusion": "the mathematics",
    "backbones": "networks",
    "data": "sources, decoding, cache",
    "registry": "names, spec strings",
    "config": "settings of commands",
    "tensors": "checked files",
    "pretrained": "networks of others",
    "options": "plain values",
    "plugins": "your own entries",
    "run_folder": "names of files",
    "cache_folder": "private, swept",
    "distributed": "several processes",
    "images": "pixels, grids, PNG",
    "files": "whole files or none",
    "progress": "progress bar",
    "device": "CPU or GPU",
    "types": "tensor aliases",
    "errors": "InputError",
    "terminal": "safe lines",
}


def main() -> None:
    """Write the SVG beside this script."""
    (Path(__file__).parent / "layers.svg").write_text(draw(layers()), encoding="utf-8")


def layers() -> list[list[str]]:
    """Return the layers of the import contract, highest first; each is a list of modules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = (found for found in contracts if found["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def draw(rows: list[list[str]]) -> str:
    """Return an SVG: a row of boxes for each layer, and an arrow for the direction of imports."""
    height = 2 * MARGIN + len(rows) * (HEIGHT + GAP) - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        '<g font-family="sans-serif" text-anchor="middle">',
        "<title>Layers of unnoise: each module may import from the rows below it</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for row, names in enumerate(rows):
        inner = WIDTH - 2 * MARGIN - GUTTER
        width = (inner - GAP * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            x, y = MARGIN + GUTTER + column * (width + GAP), MARGIN + row * (HEIGHT + GAP)
            parts += box(name, x, y, width, shade=row / max(1, len(rows) - 1))
    x, bottom = MARGIN + GUTTER / 3, height - MARGIN
    parts += [
        f'<path d="M{x:g} {MARGIN}V{bottom - 8}" stroke="#555" stroke-width="1.5"/>',
        f'<path d="M{x - 5:g} {bottom - 10}h10l-5 10z" fill="#555"/>',
        f'<text transform="translate({x + 18:g} {height / 2:g}) rotate(-90)" font-size="13" fill="#555">imports</text>',
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def box(name: str, x: float, y: float, width: float, *, shade: float) -> list[str]:
    """Return the parts of one box: its name, and its content in small letters."""
    fill = f"hsl(210, {35 + 25 * shade:.0f}%, {96 - 14 * shade:.0f}%)"
    middle = x + width / 2
    return [
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="#7d95b0"/>',
        f'<text x="{middle:.1f}" y="{y + 20}" font-size="14" font-weight="bold" fill="#1c2b3a">{name}</text>',
        f'<text x="{middle:.1f}" y="{y + 36}" font-size="11" fill="#41566b">{CONTENT.get(name, "")}</text>',
    ]


if __name__ == "__main__":
    main()
