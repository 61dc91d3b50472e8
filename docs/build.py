"""Build the site: run the pages that are scripts, write the reference from the docstrings, and call Zensical.

    python docs/build.py [OUT]

The course and some guides are scripts in cells (`# %%`, `# %% [markdown]`). Each script runs from top to bottom; its
page shows what it prints and draws. A link to a dotted name, `[...](unnoise.diffusion.process.q_step)`, leads to that
line of the source. A script that fails, or a link that leads nowhere, ends the build with an error.
"""

import argparse
import ast
import contextlib
import dataclasses
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
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
NAMED = re.compile(r"\]\((unnoise(?:\.\w+)+)\)")  # a link to a Python object
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Attributes):[ ]*(.*)$", re.MULTILINE)  # of a docstring
SHOWN = list[Any]()  # figures of the cell that runs
DEFAULTS = {"COURSE_STEPS": "600", "COURSE_IMAGES": "12000"}  # enough for good figures; tests ask for less


def main(out: Path) -> None:
    """Build the site in `out`/site."""
    warnings.simplefilter("error")
    pages = out / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.toml"))
    write(pages / "reference" / "registries.md", "\n".join(registry_reference()))  # before scripts register their own
    write(pages / "reference" / "python.md", "\n".join(python_reference()))
    for script in scripts():
        print(f"running {script.name}", flush=True)
        folder = pages / script.parent.name
        write(folder / f"{script.stem}.md", "\n".join(page(script, folder)))
    finish_pages(pages)
    write(out / "zensical.toml", (DOCS / "zensical.toml").read_text("utf-8"))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(out / "zensical.toml")]
    subprocess.run(command, check=True)  # noqa: S603


def scripts() -> list[Path]:
    """Return the pages that are scripts: guides first, then the course."""
    return [path for folder in ("guides", "course") for path in sorted((DOCS / folder).glob("*.py"))]


def finish_pages(pages: Path) -> None:
    """Resolve the links and the formulas of all pages, and add a page for each source file that is linked."""
    linked = set[str]()
    for path in sorted(pages.rglob("*.md")):
        up = "../" * len(path.relative_to(pages).parent.parts)
        text = NAMED.sub(lambda found, up=up: f"]({up}{place(found[1], linked)})", path.read_text("utf-8"))
        write(path, with_mathematics(text))
    for name in linked:
        code = (SOURCE / name).read_text("utf-8")
        write(pages / "source" / f"{name}.md", f'# unnoise/{name}\n\n```python linenums="1"\n{code}```\n')


def write(path: Path, text: str) -> None:
    """Write a text file, and make its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def with_mathematics(text: str) -> str:
    """Turn TeX between dollars into MathML, which browsers render themselves; code stays as it is."""
    parts = re.split(r"(^```.*?^```|`[^`\n]+`)", text, flags=re.DOTALL | re.MULTILINE)
    for i in range(0, len(parts), 2):  # odd parts are code
        blocks = re.sub(r"\$\$(.+?)\$\$", lambda found: mathml(found[1], "block"), parts[i], flags=re.DOTALL)
        parts[i] = re.sub(r"\$([^$\n]+(?:\n[^$\n]+)?)\$", lambda found: mathml(found[1], "inline"), blocks)
    return "".join(parts)


def mathml(tex: str, display: str) -> str:
    """Return a formula as MathML in a span, which Markdown keeps in its line."""
    return f"<span>{convert(' '.join(tex.split()), display=display)}</span>"


def page(script: Path, folder: Path) -> Iterator[str]:
    """Run a script in an empty folder; yield its text, its code, and the output of each cell as Markdown."""
    space: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as here, contextlib.chdir(here):
        for number, (kind, text) in enumerate(cells(script.read_text("utf-8"))):
            if kind == "markdown":
                yield f"{text}\n"
                continue
            yield f"```python\n{text}\n```\n"
            printed, figures = run_cell(text, space, f"{script.name}, cell {number}")
            if printed.strip():
                yield f"```text\n{printed.strip()}\n```\n"
            for i, figure in enumerate(figures):
                name = f"{script.stem}-{number}-{i}.png"
                figure.savefig(folder / name, dpi=110, bbox_inches="tight")
                plt.close(figure)
                yield f"![the output of the code above]({name})\n"


def cells(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of each cell; the text of Markdown has no comment signs."""
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            yield "markdown", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
        else:
            yield "code", body.strip()


def run_cell(code: str, space: dict[str, Any], where: str) -> tuple[str, list[Any]]:
    """Run a cell; return the text that it prints, and the figures that it shows."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.parse(code), where, "exec"), space)  # noqa: S102  # the pages are ours
    shown = [*SHOWN]
    SHOWN.clear()
    return printed.getvalue(), shown


def keep_shown() -> None:
    """Make matplotlib collect the figures that are shown; it opens no windows."""
    backend = ModuleType("course_backend")
    backend.FigureCanvas = FigureCanvasAgg  # type: ignore[attr-defined]
    backend.show = lambda *_, **__: SHOWN.extend(map(plt.figure, plt.get_fignums()))  # type: ignore[attr-defined]
    sys.modules[backend.__name__] = backend
    plt.switch_backend(f"module://{backend.__name__}")


def place(name: str, linked: set[str]) -> str:
    """Return the page and line of a dotted name, and add its source file to `linked`."""
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


def registry_reference() -> Iterator[str]:
    """Yield the page of all registries: the source, the options and the docstring of every entry."""
    yield "# Names and their options\n"
    yield "A spec string such as `ddim:eta=0.5` means the same in Python, on the command line and in every file.\n"
    for kind in KINDS:
        entries = getattr(registry, kind)
        yield f"## {entries.kind.capitalize()}\n"
        for name, options, source in entries.describe():
            entry = entries.entries[name]
            yield f"### [`{name}`]({entry.__module__}.{entry.__qualname__})\n\n{source}\n"
            if options:
                yield f"`{name}:{options}`\n"
            _, _, rest = (inspect.getdoc(entry) or "").partition("\n")
            yield docstring_markdown(rest)


def python_reference() -> Iterator[str]:
    """Yield the page of the Python functions: signature and docstring of every public name."""
    yield "# The Python functions\n"
    yield "All of these are attributes of the package: `import unnoise`.\n"
    for name in sorted(
        unnoise.__all__, key=lambda name: (isinstance(getattr(unnoise, name), ModuleType), name.lower())
    ):
        found = getattr(unnoise, name)
        if isinstance(found, ModuleType):
            yield f"## `{name}`\n\n{docstring_markdown(inspect.getdoc(found) or '')}"
            yield "See [names and their options](registries.md).\n"
            continue
        yield f"## [`{name}`]({found.__module__}.{found.__qualname__})\n\n```python\n{signature(found)}\n```\n"
        yield docstring_markdown(inspect.getdoc(found) or "")
        yield "\n".join(settings(found)) + "\n"


def settings(config: Any) -> Iterator[str]:
    """Yield a line for each setting of a config: its name, its default, and its help text."""
    for field in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
        if "help" in field.metadata:
            yield f"- `{field.name} = {field.default!r}`: {field.metadata['help']}"


def signature(found: Any) -> str:
    """Return the signature of a function or class as it stands in the source, one argument a line if it is long."""
    node: Any = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]
    if isinstance(node, ast.ClassDef):
        name, node = node.name, next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
        if node is None:
            return f"class {name}"
        node.args.args, node.returns, node.name = node.args.args[1:], None, f"class {name}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = [
        re.sub(r"^(\w+: [^=]+)=", r"\1 = ", part) for part in re.split(r", (?=\w+:|\*)", ast.unparse(node.args))
    ]
    shown = ", ".join(arguments) if len(str(arguments)) < 80 else "".join(f"\n    {part}," for part in arguments) + "\n"
    return f"{node.name}({shown}){returns}"


def docstring_markdown(text: str) -> str:
    """Turn a docstring into Markdown; its sections (Args, Returns, Raises) become lists and paragraphs."""
    before, *sections = SECTION.split(text.strip())
    made = [before.strip()]
    for title, first, body in zip(sections[::3], sections[1::3], sections[2::3], strict=True):
        lines = [first, *textwrap.dedent(body.strip("\n")).splitlines()]
        block, _, after = "\n".join(lines).strip().partition("\n\n")
        if title in ("Returns", "Yields"):
            made.append(f"**{title}:** {block}")
        else:
            items = re.sub(r"^(\*{0,2}\w[\w., ]*):\s", r"- `\1`: ", block, flags=re.MULTILINE)
            made.append(f"**{'Arguments' if title == 'Args' else title}:**\n\n{items}")
        made.append(textwrap.dedent(after))
    return "\n\n".join(filter(None, made)) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("build/docs"))
    keep_shown()
    os.environ.update({name: os.environ.get(name, value) for name, value in DEFAULTS.items()})
    main(parser.parse_args().out)
