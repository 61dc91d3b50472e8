"""Build the site: run the course's pages, write the reference from the registries, and let Zensical do the rest.

    python docs/build.py [OUT]

Pages of the course are scripts in cells (`# %%`, `# %% [markdown]`). Each is run from top to bottom; what it prints and
shows goes into its page. A link to a dotted name, `[...](unnoise.diffusion.process.q_step)`, leads to that line of the
source. Whatever does not run, or leads nowhere, ends the build.
"""

import argparse
import ast
import contextlib
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
from latex2mathml.converter import convert
from matplotlib.backends.backend_agg import FigureCanvasAgg

import unnoise
from unnoise import registry

DOCS, SOURCE = Path(__file__).parent, Path(unnoise.__file__).parent
KINDS = (
    *("sampler", "edit", "posterior", "schedule", "spacing", "target", "objective", "times"),
    *("optimizer", "backbone", "features", "dataset"),
)
NAMED = re.compile(r"\]\((unnoise(?:\.\w+)+)\)")
SHOWN = list[Any]()  # figures of the cell that runs
GIVEN = {"COURSE_STEPS": "600", "COURSE_IMAGES": "12000"}  # enough for a picture in a book, where nobody asked for less


def main(out: Path) -> None:
    warnings.simplefilter("error")
    pages = out / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.toml"))
    linked = set[str]()
    write(pages / "reference" / "registries.md", "\n".join(reference()))  # before pages register what is theirs
    for script in sorted((DOCS / "course").glob("*.py")):
        print(f"running {script.name}", flush=True)
        write(pages / "course" / f"{script.stem}.md", "\n".join(page(script, pages / "course")))
    for path in sorted(pages.rglob("*.md")):
        up = "../" * len(path.relative_to(pages).parent.parts)
        text = NAMED.sub(lambda found, up=up: f"]({up}{place(found[1], linked)})", path.read_text("utf-8"))
        write(path, with_mathematics(text))
    for name in linked:
        code = (SOURCE / name).read_text("utf-8")
        write(pages / "source" / f"{name}.md", f'# unnoise/{name}\n\n```python linenums="1"\n{code}```\n')
    config = (DOCS / "zensical.toml").read_text("utf-8")
    write(out / "zensical.toml", config)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(out / "zensical.toml")]
    subprocess.run(command, check=True)  # noqa: S603


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def with_mathematics(text: str) -> str:
    """TeX between dollars as MathML, which browsers set by themselves; code is left alone."""
    parts = re.split(r"(^```.*?^```|`[^`\n]+`)", text, flags=re.DOTALL | re.MULTILINE)
    for i in range(0, len(parts), 2):  # the others are code
        blocks = re.sub(r"\$\$(.+?)\$\$", lambda found: mathml(found[1], "block"), parts[i], flags=re.DOTALL)
        parts[i] = re.sub(r"\$([^$\n]+(?:\n[^$\n]+)?)\$", lambda found: mathml(found[1], "inline"), blocks)
    return "".join(parts)


def mathml(tex: str, display: str) -> str:
    """In a span, where Markdown leaves it in its line."""
    return f"<span>{convert(' '.join(tex.split()), display=display)}</span>"


def page(script: Path, folder: Path) -> Iterator[str]:
    """Text as it is, code with what comes of it."""
    space: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as here, contextlib.chdir(here):
        for number, (kind, text) in enumerate(cells(script.read_text("utf-8"))):
            if kind == "markdown":
                yield f"{text}\n"
                continue
            yield f"```python\n{text}\n```\n"
            said, figures = run(text, space, f"{script.name}, cell {number}")
            if said.strip():
                yield f"```text\n{said.strip()}\n```\n"
            for i, figure in enumerate(figures):
                name = f"{script.stem}-{number}-{i}.png"
                figure.savefig(folder / name, dpi=110, bbox_inches="tight")
                plt.close(figure)
                yield f"![what the code above shows]({name})\n"


def cells(text: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of each; markdown without its comment signs."""
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            yield "markdown", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
        else:
            yield "code", body.strip()


def run(code: str, space: dict[str, Any], where: str) -> tuple[str, list[Any]]:
    """What it prints, and the figures it shows."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(ast.parse(code), where, "exec"), space)  # noqa: S102  # the pages are ours
    shown = [*SHOWN]
    SHOWN.clear()
    return said.getvalue(), shown


def keep_shown() -> None:
    """Let matplotlib hand out what is shown, in place of opening windows."""
    backend = ModuleType("course_backend")
    backend.FigureCanvas = FigureCanvasAgg  # type: ignore[attr-defined]
    backend.show = lambda *_, **__: SHOWN.extend(map(plt.figure, plt.get_fignums()))  # type: ignore[attr-defined]
    sys.modules[backend.__name__] = backend
    plt.switch_backend(f"module://{backend.__name__}")


def place(name: str, linked: set[str]) -> str:
    """Page and line of a dotted name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found: Any = import_module(".".join(parts[:cut]))
            break
    for part in parts[cut:]:
        found = getattr(found, part)
    found = inspect.unwrap(found)
    file, line = inspect.getsourcefile(found), inspect.getsourcelines(found)[1]
    relative = str(Path(str(file)).relative_to(SOURCE))
    linked.add(relative)
    return f"source/{relative}.md#__codelineno-0-{max(line, 1)}"


def reference() -> Iterator[str]:
    """Every entry of every registry: options, what it declares, the first line of its docstring."""
    yield "# What can be named\n"
    yield "A text such as `ddim:eta=0.5` means the same in Python, on the command line and in every file.\n"
    for kind in KINDS:
        entries = getattr(registry, kind)
        yield f"## {entries.kind.capitalize()}\n"
        for name, options, source in entries.describe():
            entry = entries.entries[name]
            yield f"### [`{name}`]({entry.__module__}.{entry.__qualname__})\n\n{source}\n"
            if options:
                yield f"`{name}:{options}`\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("build/docs"))
    keep_shown()
    os.environ.update({name: os.environ.get(name, value) for name, value in GIVEN.items()})
    main(parser.parse_args().out)
