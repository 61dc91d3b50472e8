"""The rules of CONTRIBUTING.md on plain English and small pieces, as far as a machine can hold them.

`python tests/test_english.py` prints every violation with its file and line.
"""

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import unnoise
from unnoise import registry
from unnoise.options import options_of

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "unnoise"
Function = ast.FunctionDef | ast.AsyncFunctionDef

# A docstring that begins with one of these says nothing without the name before it.
FRAGMENTS = {"of", "that", "those", "what", "whether", "where", "with", "so", "as"}

WORDS = {  # what is written -> what to write in its place
    r"pictures?": "image",
    r"go(es)? on|going on|gone on|went on": "resume or continue",
    r"so (many|much|long|few)": "the number itself: `count` items",
    r"as many (of|in)": "the number itself",
    r"but for": "except",
    r"likewise": "the same again, in words",
    r"that of|those of|those beside|those that|those with": "the noun itself",
    r"whatever": "any",
    r"what is told|is told|be told|are told|was told|told of": "print, log or report",
    r"ways? of (sampling|drawing)": "sampling settings",
    r"on the way": "during the run, or between",
    r"(that|which|what) one (has|asked|wants)|one has": "you",
    r"beside (it|them|that|this)|kept beside": "next to",
    r"of it": "the noun itself",
    r"can be had|to be had": "is available",
    r"nought": "zero",
    r"all the same": "still",
    r"let be|leaves? alone": "does not change",
    r"hitherto|thereof|therein|whilst|betwixt|lest": "a word of today",
    r"so far as|in so far": "if, or as far as",
    r"census|survey|occasions?|follower|the desk": "the usual word of the field",
}
FORBIDDEN = {re.compile(rf"\b({words})\b", re.IGNORECASE): better for words, better in WORDS.items()}

ALLOWED = {  # (file, string) that stays as it is, with the reason
    ("cli.py", "picture"): "a field of EditConfig",
    ("editing/edit.py", "picture"): "a field of EditConfig",
    ("reporting/curves.py", "pictures"): "a column of metrics.jsonl since version 0.1.0",
    ("training/monitors/kid.py", "pictures"): "a column of metrics.jsonl since version 0.1.0",
    ("verification/weights.py", "pictures"): "a column of metrics.jsonl since version 0.1.0",
}
DESCRIBED_ELSEWHERE = {"UNet2D": "its options are those of diffusers, which describes them"}

MOST_LINES = {"training/loop.py": 130, "training/monitors/": 130, "": 330}  # the first that a path begins with
LONGEST_FUNCTION = 40
LONG_FUNCTIONS = {("backbones/unet.py", "UNet.__init__")}  # one network, read from its input to its output
MOST_ATTRIBUTES = {"Trainer": 12}


class Violation(NamedTuple):
    """One breach of a rule."""

    path: str  # in src/unnoise
    line: int
    rule: str
    says: str


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def files() -> dict[str, Path]:
    return {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}


def named(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yield every function and class of a module with its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | Function):
            yield prefix + child.name, child
            inner = "" if isinstance(child, ast.ClassDef) else "<locals>."
            yield from named(child, f"{prefix}{child.name}.{inner}")
        else:
            yield from named(child, prefix)


# Docstrings


def fragments() -> Iterator[Violation]:
    """Yield the docstrings that begin as a fragment of a sentence."""
    for name, path in files().items():
        for label, node in [("the module", tree(path)), *named(tree(path))]:
            text = ast.get_docstring(node) or ""
            if re.split(r"\W", text, maxsplit=1)[0].lower() in FRAGMENTS:
                line = node.body[0].lineno
                yield Violation(name, line, "docstring", f"{label} begins as a fragment: {text.splitlines()[0]!r}")


def sections() -> Iterator[Violation]:
    """Yield what the docstrings of the public functions leave out.

    Public is what `unnoise.__all__` names, with its public methods, and every entry of a registry.

    - An exported function of more than two parameters names each of them under `Args:`, and each that returns anything
      has `Returns:` or `Yields:`, or begins with Return or Yield. (A registered entry is called as the protocol of its
      kind says, so it need not.)
    - A registered entry names each of its options under `Args:`; these are its keyword-only parameters of plain type.
    - A public function that raises `InputError` itself names it under `Raises:`; a property names it anywhere.
    - A public function whose signature has a bare Tensor or array says a shape, e.g. [b, c, h, w]. An alias of types.py
      and a shape of jaxtyping say it by themselves.
    """
    for name, node, options in public():
        text, calls = ast.get_docstring(node) or "", constructor(node)
        given = parameters(calls) if options is None and calls and len(parameters(calls)) > 2 else options or []
        missing = [parameter for parameter in given if parameter not in described(text)]
        if missing and node.name not in DESCRIBED_ELSEWHERE:
            yield Violation(name, node.lineno, "Args", f"{node.name} does not describe {', '.join(missing)}")
        if isinstance(node, Function):
            if (
                options is None
                and returns_something(node)
                and not re.search(r"^(Returns?|Yields?)\b", text, re.MULTILINE)
            ):
                yield Violation(name, node.lineno, "Returns", f"{node.name} has no Returns: or Yields:")
            if unshaped(node) and not re.search(r"\[[\w ,.+*/()^-]*\]", text):
                yield Violation(name, node.lineno, "shape", f"{node.name} takes or gives an array of unknown shape")
        said = r"InputError" if is_property(node) else r"^Raises:\n +InputError:"
        if calls and raises_input_error(calls) and not re.search(said, text, re.MULTILINE):
            yield Violation(name, node.lineno, "Raises", f"{node.name} does not say when it raises InputError")


def public() -> Iterator[tuple[str, ast.ClassDef | Function, list[str] | None]]:
    """Yield (file, definition, options), where an exported definition has None for its options."""
    for name in unnoise.__all__:
        found = definition(getattr(unnoise, name))
        if found:
            yield *found, None
            for method in found[1].body if isinstance(found[1], ast.ClassDef) else ():
                if isinstance(method, Function) and not method.name.startswith("_"):
                    yield found[0], method, None
    for kind in vars(registry).values():
        for name in kind.names() if isinstance(kind, registry.Registry) else ():
            found = definition(kind.entries[name])
            if found:
                yield *found, list(options_of(kind.entries[name]))


def definition(value: object) -> tuple[str, ast.ClassDef | Function] | None:
    """Return the file in src/unnoise and the syntax of a function or class, or None for anything else."""
    module, name = sys.modules.get(getattr(value, "__module__", "")), getattr(value, "__qualname__", "")
    path = Path(inspect.getsourcefile(module) or "") if module else Path()
    if not path.is_relative_to(SOURCE):
        return None
    node = dict(named(tree(path))).get(name)
    return (path.relative_to(SOURCE).as_posix(), node) if node else None


def described(text: str) -> set[str]:
    """Return the parameters that stand before a colon under Args: of a docstring."""
    block = re.search(r"^Args:\n((?: .*\n?|\n)*)", text, re.MULTILINE)
    names = re.findall(r"^ +([\w*, ]+?)(?: \(.*?\))?:", block[1] if block else "", re.MULTILINE)
    return {name.strip(" *") for each in names for name in each.split(",")}


def constructor(node: ast.ClassDef | Function) -> Function | None:
    if isinstance(node, Function):
        return node
    return next((child for child in node.body if isinstance(child, Function) and child.name == "__init__"), None)


def parameters(node: Function) -> list[str]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return [each.arg for each in every if each and each.arg not in ("self", "cls")]


def returns_something(node: Function) -> bool:
    return node.returns is not None and ast.unparse(node.returns) != "None"


def is_property(node: ast.ClassDef | Function) -> bool:
    return any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list)


def unshaped(node: Function) -> bool:
    """Return True if a Tensor or an array stands in the signature outside of a jaxtyping annotation."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    hints = [hint for hint in [*(each.annotation for each in arguments), node.returns] if hint]
    return any(re.search(r"(?<!\[)\b(Tensor|ndarray|NDArray)\b(?!, ['\"])", ast.unparse(hint)) for hint in hints)


def raises_input_error(node: Function) -> bool:
    raised = [each.exc for each in ast.walk(node) if isinstance(each, ast.Raise)]
    return any(isinstance(each, ast.Call) and ast.unparse(each.func) in ("InputError", "unknown") for each in raised)


# Words


def words() -> Iterator[Violation]:
    """Yield the forbidden words in docstrings, comments and strings."""
    for name, path in files().items():
        for line, text in texts(path):
            for pattern, better in FORBIDDEN.items():
                for found in pattern.finditer(text):
                    if (name, text) not in ALLOWED:
                        around = " ".join(text[max(0, found.start() - 30) : found.end() + 30].split())
                        where = line + text[: found.start()].count("\n")
                        yield Violation(name, where, "word", f"{found[0]!r} (write {better}) in: {around}")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every docstring, string and comment."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


# Sizes


def sizes() -> Iterator[Violation]:
    """Yield the files, functions and classes that are too large."""
    for name, path in files().items():
        most = next(lines for start, lines in MOST_LINES.items() if name.startswith(start))
        count = len(path.read_text("utf-8").splitlines())
        if count > most:
            yield Violation(name, 1, "file", f"{count} lines; the most is {most}")
        for label, node in named(tree(path)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if isinstance(node, Function) and lines > LONGEST_FUNCTION and (name, label) not in LONG_FUNCTIONS:
                yield Violation(
                    name, node.lineno, "function", f"{label}: {lines} lines; the most is {LONGEST_FUNCTION}"
                )
            if isinstance(node, ast.ClassDef) and len(attributes(node)) > MOST_ATTRIBUTES.get(label, 1000):
                says = f"{label}: {len(attributes(node))} attributes; the most is {MOST_ATTRIBUTES[label]}"
                yield Violation(name, node.lineno, "attributes", says)


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the names assigned on self in any method, and the annotated fields of the class."""
    fields = {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    return fields | {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and ast.unparse(each.value) == "self"
    }


# The tests


RULES = (fragments, sections, words, sizes)


def violations() -> list[Violation]:
    return sorted(violation for rule in RULES for violation in rule())


def test_the_source_keeps_the_rules():
    lines = [f"{each.path}:{each.line}: [{each.rule}] {each.says}" for each in violations()]
    assert not lines, "\n" + "\n".join(lines)


def test_no_exception_is_kept_in_vain():
    every = {(name, text) for name, path in files().items() for _, text in texts(path)}
    assert set(ALLOWED) <= every
    assert {(name, label) for name, path in files().items() for label, _ in named(tree(path))} >= LONG_FUNCTIONS


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/**/*.py")), ids=lambda path: path.name)
def test_no_test_patches_a_method_of_the_trainer(path):
    """A test that must replace a part of the trainer asks for another design of the trainer."""
    methods = {node.name for node in ast.walk(tree(SOURCE / "training" / "trainer.py")) if isinstance(node, Function)}
    for node in ast.walk(tree(path)):
        for owner, name in patched(node):
            mine = re.search(r"(\bTrainer|(?<!training\.)\btrainer)$", owner) and name in methods
            assert not mine, f"{path.name}:{node.lineno} patches {owner}.{name}"


def patched(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (owner, attribute) of every attribute that this statement or call replaces."""
    if isinstance(node, ast.Call) and re.search(r"(setattr|delattr|patch|patch\.\w+)$", ast.unparse(node.func)):
        whole = ".".join(
            str(each.value) if isinstance(each, ast.Constant) else ast.unparse(each) for each in node.args[:2]
        )
        for end in re.finditer(r"\.(\w+)", whole):
            yield whole[: end.start()], end[1]
    for target in node.targets if isinstance(node, ast.Assign) else ():
        if isinstance(target, ast.Attribute):
            yield ast.unparse(target.value), target.attr


BAD = '''"""Of its weights."""

class Trainer:
    """Keep the picture."""

    a: int

    def __init__(self):
        """So many in all."""
        self.b, self.c = 1, "goes on"  # but for one
'''


def test_the_rules_find_what_they_forbid(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    monkeypatch.setitem(MOST_ATTRIBUTES, "Trainer", 2)
    (tmp_path / "bad.py").write_text(BAD)
    (tmp_path / "long.py").write_text("def long():\n" + "    pass\n" * 330)
    assert [each.line for each in fragments()] == [1, 9]
    assert sorted(each.says.split("'")[1] for each in words()) == ["So many", "but for", "goes on", "picture"]
    assert sorted((each.path, each.rule) for each in sizes()) == [
        ("bad.py", "attributes"),
        ("long.py", "file"),
        ("long.py", "function"),
    ]


@pytest.mark.parametrize(
    ("docstring", "names"),
    [
        ("Do it.", set()),
        ("Do it.\n\nArgs:\n    x: An image.\n        Of any size: small.\n    a, b (int): Two.\n", {"x", "a", "b"}),
    ],
)
def test_described_parameters_are_those_under_args(docstring, names):
    assert names <= described(docstring)
    assert bool(names) == bool(described(docstring))


def test_patches_of_the_trainer_are_found():
    for code in (
        "monkeypatch.setattr(Trainer, 'step', f)",
        "patch('unnoise.training.trainer.Trainer.step')",
        "trainer.step = f",
    ):
        found = [pair for node in ast.walk(ast.parse(code)) for pair in patched(node)]
        assert any(owner.endswith(("Trainer", "trainer")) and name == "step" for owner, name in found)


if __name__ == "__main__":
    for each in violations():
        print(f"{each.path}:{each.line}: [{each.rule}] {each.says}")
