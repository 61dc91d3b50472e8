"""The documentation is true: its pages run, its links lead somewhere, its commands exist."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unnoise
from unnoise import cli, registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = [path for folder in ("course", "guides") for path in sorted((ROOT / "docs" / folder).glob("*.py"))]
GUIDES = [path for path in PAGES if path.parent.name == "guides" or path.name == "README.md"]
TINY = "--images 64 --size 16 --batch 8 --steps 2 --backbone unet:widths=8-16,layers=1,groups=4,head=8"
BLOCKING = ("app",)


def load(name):
    """Import a script of docs/."""
    spec = spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build():
    return load("build")


def commands(path, kind="sh"):
    """Yield the shell commands of a page, without comments."""
    for block in re.findall(rf"^```{kind}\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            yield from (part.strip() for part in line.partition(" #")[0].split("&&"))


def inline(path):
    """Return the commands that stand inside the text."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [f"unnoise {found}" for found in re.findall(r"`unnoise ([^`]*)`", text.replace("\n", " "))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_are_commands(path):
    said = [line for line in [*commands(path), *inline(path)] if line.startswith("unnoise ") and "..." not in line]
    for line in said:
        words = shlex.split(re.sub(r"\[.*?\]", "", line))[1:]
        given = cli.make_parser().parse_args(words) if len(words) > 1 else None
        for name in ("sampler", "spacing", "backbone", "optimizer", "task", "by"):
            if given and getattr(given, name, None):
                kind = {"task": "edit", "by": "posterior"}.get(name, name)
                getattr(registry, kind).get(getattr(given, name))


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_python_in_guides_is_python(path):
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for name in re.findall(r"unnoise\.(\w+)", block):
            assert name in unnoise.__all__
        compile(block, path.name, "exec")


def test_no_page_and_no_printed_line_has_a_plus_minus():
    """It had two meanings, one standard error and 1.96 of them; an error is an interval of 95 %, "a to b"."""
    source = [
        path
        for folder in ("src", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".jinja", ".js", ".html")
    ]
    assert len(source) > 100
    marks = ("±", "+-", "&plusmn;", "\\pm")
    found = [
        f"{path.relative_to(ROOT)}: {mark}"
        for path in (*PAGES, *SCRIPTS, *source)
        for mark in marks
        if mark in path.read_text("utf-8")
    ]
    assert found == []


def test_links_lead_to_lines_of_the_source():
    module, linked = build(), set()
    for path in [*PAGES, *SCRIPTS]:
        for name in module.NAMED.findall(path.read_text("utf-8")):
            file, _, line = module.place(name, linked).removeprefix("source/").partition(".md#__codelineno-0-")
            source = (module.SOURCE / file).read_text("utf-8").splitlines()
            assert name.rpartition(".")[2] in "\n".join(source[int(line) - 2 : int(line) + 2]), name
    assert len(linked) > 10


def test_every_module_is_listed():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    package = ROOT / "src" / "unnoise"
    for path in package.rglob("*.py"):
        assert path.name == "__init__.py" or f"{path.name}`" in page, path.relative_to(package)
    for name in re.findall(r"^\| `([\w/]+\.py)` \|", page, re.MULTILINE):
        assert [*package.rglob(name)], name


def test_core_types_stand_in_their_files():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(
        r"^\| ([^|]*) \| (`\w+/[^|]*`|`\w+\.py`) \| .* \|$", page.partition("## Core types")[2], re.MULTILINE
    )
    assert len(rows) > 20
    for names, files in rows:
        texts = "".join(
            (ROOT / "src" / "unnoise" / file).read_text("utf-8") for file in re.findall(r"[\w/]+\.py", files)
        )
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(class )?{name}\b", texts, re.MULTILINE), name


def test_the_image_of_the_layers_is_up_to_date():
    module = load("layers")
    assert (ROOT / "docs" / "layers.svg").read_text("utf-8") == module.draw(module.layers())
    assert {name for row in module.layers() for name in row} == {*module.CONTENT}


def test_every_function_of_the_notebook_has_its_line():
    table = (ROOT / "docs" / "course" / "index.md").read_text("utf-8")
    for name in ("forward_step", "get_betas", "SimpleImageFolder", "show", "forward_sample", "conv_transpose2d",
                 "TimeEmbedding", "UNet2DModel", "sample_ddpm", "GradScaler", "mse_loss"):  # fmt: skip
        assert f"`{name}" in table or f"{name}(" in table or f"{name}`" in table, name


def test_formulas_become_mathml_and_code_stays():
    made = build().with_mathematics("Let $x_0$ be\n\n$$ a = \\frac{1}{2} $$\n\n```python\nprint('$x$')\n```\nand `$y$`")
    assert made.count("<math") == 2
    assert 'display="block"' in made
    assert "print('$x$')" in made
    assert "`$y$`" in made


def test_docstrings_become_markdown():
    made = build().docstring_markdown(
        "Add.\n\nArgs:\n    x: [b, c],\n        long\n    y: more\n\nReturns:\n    the sum"
    )
    assert made == "Add.\n\n**Arguments:**\n\n- `x`: [b, c],\n    long\n- `y`: more\n\n**Returns:** the sum\n"


def test_signatures_are_those_of_the_source():
    assert build().signature(build().write) == "write(path: Path, text: str) -> None"


@pytest.fixture
def own_entries():
    """Take back the entries that a page registers."""
    kinds = {kind: getattr(registry, kind) for kind in build().KINDS}
    for found in kinds.values():
        found.names()  # loads the entries
    before = {kind: (dict(found.entries), dict(found.facts)) for kind, found in kinds.items()}
    yield
    for kind, found in kinds.items():
        found.entries, found.facts = before[kind]


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.parent.name == "guides"], ids=lambda path: path.stem)
@pytest.mark.usefixtures("own_entries")
def test_guides_that_are_scripts_run(path, tmp_path):
    made = "\n".join(build().page(path, tmp_path))
    assert "```python" in made


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    """The build also runs all pages that are scripts."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", tmp_path],
        env={**os.environ, "COURSE_STEPS": "30", "COURSE_IMAGES": "64"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "No issues found" in done.stdout + done.stderr
    for script in SCRIPTS:
        html = (tmp_path / "site" / script.parent.name / f"{script.stem}.html").read_text("utf-8")
        assert "<math" in html or "10_evaluation" in script.stem or script.parent.name == "guides"
        assert "$$" not in html
    assert len([*(tmp_path / "site" / "course").glob("*.png")]) > 15
    reference = (tmp_path / "site" / "reference" / "registries.html").read_text("utf-8")
    assert "there_and_back" not in reference  # an exercise
    assert "calmer" not in reference  # an example
    python = (tmp_path / "site" / "reference" / "python.html").read_text("utf-8")
    assert all(name in python for name in unnoise.__all__)
    assert all(
        name in reference
        for kind in build().KINDS
        for name in getattr(registry, kind).names()
        if name not in ("there_and_back", "calmer", "straight", "mynet")
    )


def tiny(line):
    """Return the same command, so small that it takes seconds."""
    line = re.sub(r"--budget \w+|--recipe \S+", TINY, line)
    line = re.sub(r" -n \d+", "", line).replace("train faces ", "train faces:count=200 ").replace("100ms", "4ms")
    count = {"eval": 50, "tune": 200, "sample": 4}.get(line.split()[1] if " " in line else "")
    return f"{line} -n {count}" if count else line


@pytest.mark.slow
@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_guides_run_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(0)
    Path("photos").mkdir()
    for name in [*(f"photos/{i}.png" for i in range(600)), "me.png", "you.png", "small.png", "blurred.png"]:
        Image.fromarray(chance.integers(0, 256, (16, 16, 3), np.uint8)).save(name)
    Image.open("me.png").convert("L").save("gray.png")
    Image.new("L", (16, 16)).save("mask.png")
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 9, 9))
    mask.save("mask.png")
    assert cli.main(shlex.split(tiny("train faces --budget 1m"))) == 0
    for line in commands(path):
        words = shlex.split(tiny(line))
        if words[:1] != ["unnoise"] or words[1] in BLOCKING:
            continue
        assert cli.main(words[1:]) == 0, line
