"""Names, and the one spec string `name:option=value,option=value` that means the same everywhere.

An entry is a function (or class); its options are its own keyword-only parameters of plain type. Registering is
`@sampler` above the function. The registries load the package that holds their entries on first look-up.
"""

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

from unnoise.errors import InputError, unknown
from unnoise.options import format_value, options_of, parse_value

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """All entries of one kind: `sampler`, `schedule`, ..."""

    def __init__(self, kind: str, home: str, most: int = 10**9) -> None:
        self.kind, self.home, self.most = kind, home, most  # the largest whole number that an option may be
        self.entries: dict[str, Callable[..., Any]] = {}
        self.facts: dict[str, dict[str, int | bool]] = {}  # what an entry declares of itself

    def __call__(self, entry: F) -> F:
        """Register a function or class under its own name (as a decorator)."""
        self.entries[entry.__name__.lower()] = entry
        return entry

    def declare(self, **facts: int | bool) -> Callable[[F], F]:
        """Register with what is known of the entry: `@sampler.declare(order=2, evaluations=1)`."""

        def register(entry: F) -> F:
            self.facts[entry.__name__.lower()] = facts
            return self(entry)

        return register

    def names(self) -> list[str]:
        import_module(self.home)
        return sorted(self.entries)

    def get(self, spec: str) -> "partial[Any]":
        """Turn `ddim:eta=0.5` into `partial(ddim, eta=0.5)`."""
        name, _, rest = spec.partition(":")
        name = name.strip()
        if name not in self.names():
            raise unknown(self.kind, name, self.entries)
        entry = self.entries[name]
        allowed = options_of(entry)
        given: dict[str, Any] = {}
        for pair in filter(None, rest.split(",")):
            key, equals, text = (part.strip() for part in pair.partition("="))
            if key not in allowed:
                raise unknown(f"option of {self.kind} {name}", key, allowed)
            if key in given:
                raise InputError(f"{self.kind} {spec!r}: {key} is given twice; give it once")
            if not equals:
                raise InputError(
                    f"{self.kind} {spec!r}: write {key}=VALUE, for example {key}={format_value(allowed[key][1])}"
                )
            given[key] = parse_value(text, allowed[key][0], f"{self.kind} {spec!r}: {key}", allowed[key][1])
            numbers = given[key] if isinstance(given[key], tuple) else (given[key],)
            if any(type(number) is int and number > self.most for number in numbers):
                raise InputError(f"{self.kind} {spec!r}: {key} is at most {self.most}, got {text}")
        return partial(entry, **given)

    def settings(self, spec: str) -> dict[str, Any]:
        """All options of a spec, with the defaults of those it leaves out."""
        made = self.get(spec)
        return {key: default for key, (_, default) in options_of(made.func).items()} | made.keywords

    def declared(self, spec: str) -> dict[str, int | bool]:
        """What the entry of a spec declares of itself."""
        return self.facts.get(self.get(spec).func.__name__.lower(), {})

    def describe(self) -> list[tuple[str, str, str]]:
        """(name, options with defaults, first line of the docstring) of each entry."""
        rows = []
        for name in self.names():
            entry = self.entries[name]
            defaults = ",".join(f"{key}={format_value(default)}" for key, (_, default) in options_of(entry).items())
            facts = "; ".join(f"{key} {format_value(value)}" for key, value in self.facts.get(name, {}).items())
            source = (inspect.getdoc(entry) or "").split("\n")[0]
            rows.append((name, defaults, f"{source} [{facts}]" if facts else source))
        return rows


schedule = Registry("schedule", "unnoise.diffusion", most=100_000)
spacing = Registry("spacing", "unnoise.diffusion")
target = Registry("target", "unnoise.diffusion")
times = Registry("times", "unnoise.diffusion")
objective = Registry("objective", "unnoise.diffusion")
sampler = Registry("sampler", "unnoise.samplers")
posterior = Registry("posterior sampler", "unnoise.editing.posterior")
edit = Registry("edit", "unnoise.editing.tasks")
backbone = Registry("backbone", "unnoise.backbones", most=4096)
optimizer = Registry("optimizer", "unnoise.training.optimizers")
features = Registry("features", "unnoise.evaluation.features")
dataset = Registry("data", "unnoise.data")
