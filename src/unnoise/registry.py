"""Names, and the one spec string `name:option=value,option=value` that means the same everywhere.

An entry is a function (or class); its options are its own keyword-only parameters of plain type. Registering is
`@sampler` above the function. The registries load the package that holds their entries on first look-up. Wherever a
spec string is taken, the callable itself is taken too: `ddim`, `functools.partial(ddim, eta=0.5)`, or a function of
your own.
"""

import copy
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial, wraps
from importlib import import_module
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from unnoise import plugins
from unnoise.errors import InputError, shorten, unknown
from unnoise.options import Spec, check_value, format_value, options_of, parse_value, short_repr, spec_text

F = TypeVar("F", bound=Callable[..., Any])
MAX_SPEC, MAX_OPTIONS = 10**5, 100  # characters and options of a spec; 1,000 values of a schedule take 20,000


class Registry:
    """All entries of one kind: `sampler`, `schedule`, ...

    most: the largest whole number that an option may be. instances: an object of an entry's class means the same as
    the class with its options, as for networks.
    """

    def __init__(self, kind: str, home: str, most: int = 10**9, *, instances: bool = False) -> None:
        self.kind, self.home, self.most, self.instances = kind, home, most, instances
        self.entries: dict[str, Callable[..., Any]] = {}
        self.facts: dict[str, dict[str, float | bool]] = {}  # declared by an entry
        self.unnamed: WeakValueDictionary[str, Any] = WeakValueDictionary()  # callables that were given unregistered

    def __call__(self, entry: F) -> F:
        """Register a function or class under its own name (as a decorator)."""
        self.entries[entry.__name__.lower()] = entry
        entry.registered_entry = entry  # type: ignore[attr-defined]  # a copy of the attribute on a wrapper is not it
        if self.instances and isinstance(entry, type):
            remember_options(entry)
        return entry

    def declare(self, **facts: float | bool) -> Callable[[F], F]:
        """Register with facts about the entry: `@sampler.declare(order=2, evaluations=1)`."""

        def register(entry: F) -> F:
            self.facts[entry.__name__.lower()] = facts
            return self(entry)

        return register

    def names(self) -> list[str]:
        """Return the names of all entries."""
        import_module(self.home)
        plugins.load_installed()
        return sorted(self.entries)

    def get(self, spec: Spec) -> "partial[Any]":
        """Turn `ddim:eta=0.5` into `partial(ddim, eta=0.5)`; a callable becomes a partial of itself."""
        if not isinstance(spec, str):
            return self.from_callable(spec)
        if len(spec) > MAX_SPEC or spec.count("=") > MAX_OPTIONS:
            raise InputError(f"{self.kind} {short_repr(spec)}... is too long: it has {len(spec):,} characters")
        name, _, rest = spec.partition(":")
        name = name.strip()
        if name in self.names():
            return self.with_options(name, self.entries[name], rest, spec)
        qualname, _, options = rest.partition(":")
        if (own := self.find_unregistered(name, qualname)) is not None:
            return self.with_options(qualname, own, options, spec)
        if is_own(spec):
            raise InputError(
                f"unknown {self.kind} {short_repr(spec)}: it belongs to the Python module {name}; name the file that "
                f"registers it by --plugin FILE.py, or pass the callable itself in Python"
            )
        raise InputError(f"{unknown(self.kind, name, self.entries)}; more can come from --plugin FILE.py")

    def text(self, spec: Spec) -> str:
        """Return the text of a spec or callable that cards, settings and tables keep."""
        if not isinstance(spec, str):
            self.from_callable(spec)  # which is checked, and found again by its text
        return spec_text(spec)

    def named(self, spec: Spec) -> str:
        """Return the text of a spec; raise InputError for a callable without a registered name, which no file holds."""
        text = self.text(spec)
        if text.partition(":")[0].strip() not in self.names():
            raise InputError(
                f"a model file holds the name of its {self.kind}, and {text} has none: put "
                f"@unnoise.registry.{self.kind} above its function"
            )
        return text

    def origin(self, spec: Spec) -> str:
        """Return the plugin that defines the entry of a spec, or "" if it comes from elsewhere."""
        return plugins.origin(self.get(self.text(spec)).func.__module__)

    def settings(self, spec: Spec) -> dict[str, Any]:
        """Return all options of a spec, with the defaults of options that it leaves out."""
        made = self.get(self.text(spec))
        return {key: default for key, (_, default) in options_of(made.func).items()} | made.keywords

    def declared(self, spec: Spec) -> dict[str, float | bool]:
        """Return the facts that the entry of a spec declares; an unregistered callable declares none."""
        function = self.get(self.text(spec)).func
        return next((self.facts.get(name, {}) for name, entry in self.entries.items() if entry is function), {})

    def describe(self) -> list[tuple[str, str, str]]:
        """Return (name, options with defaults, first line of the docstring) of each entry."""
        rows = []
        for name in self.names():
            entry = self.entries[name]
            defaults = ",".join(f"{key}={format_value(default)}" for key, (_, default) in options_of(entry).items())
            facts = "; ".join(f"{key} {format_value(value)}" for key, value in self.facts.get(name, {}).items())
            source = (inspect.getdoc(entry) or "").split("\n")[0]
            rows.append((name, defaults, f"{source} [{facts}]" if facts else source))
        return rows

    def with_options(self, name: str, entry: Callable[..., Any], text: str, spec: str) -> "partial[Any]":
        """Return an entry with the options that the text behind its name gives."""
        allowed, given, shown = options_of(entry), dict[str, Any](), short_repr(spec)
        for pair in filter(None, text.split(",")):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if key not in allowed:
                raise unknown(f"option of {self.kind} {name}", key, allowed)
            if key in given:
                raise InputError(f"{self.kind} {shown}: {key} is given twice; give it once")
            if not equals:
                raise InputError(
                    f"{self.kind} {shown}: write {key}=VALUE, for example {key}={format_value(allowed[key][1])}"
                )
            given[key] = parse_value(value, allowed[key][0], f"{self.kind} {shown}: {key}", allowed[key][1])
        self.check_numbers(given, shown)
        return partial(entry, **given)

    def check_numbers(self, given: Mapping[str, Any], spec: str) -> None:
        """Refuse numbers that are not finite, and whole numbers above the largest that an option may be."""
        for key, value in given.items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(type(number) is int and number > self.most for number in numbers):
                raise InputError(
                    f"{self.kind} {spec}: {key} is at most {self.most}, got {shorten(format_value(value))}"
                )
            if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                raise InputError(f"{self.kind} {spec}: {key} is a finite number, got {format_value(value)}")

    def from_callable(self, given: Callable[..., Any]) -> "partial[Any]":
        """Return a callable as a partial; the options of a registered entry are checked as in a spec."""
        if not callable(given):
            raise InputError(f"{self.kind} takes a name with options or a callable, got {short_repr(given)}")
        if self.instances and is_network(given):
            self.keep_unregistered(type(given))
            return partial(copy_network, given)
        made = partial(given)  # a partial of a partial is one partial
        if made.func not in self.entries.values():
            self.keep_unregistered(made.func)
            return made
        name, allowed = made.func.__name__.lower(), options_of(made.func)
        if made.args:
            raise InputError(f"{self.kind} {name}: give its options by name, as in functools.partial({name}, option=1)")
        for key in made.keywords:
            if key not in allowed:
                raise unknown(f"option of {self.kind} {name}", key, allowed)
        where = f"{self.kind} {name}"
        options = {key: check_value(value, allowed[key][0], f"{where}: {key}") for key, value in made.keywords.items()}
        self.check_numbers(options, name)
        return partial(made.func, **options)

    def keep_unregistered(self, own: Any) -> None:
        """Find a callable again by its text, as long as somebody else keeps it."""
        with suppress(TypeError):  # a few kinds of objects cannot be referred to weakly
            self.unnamed[spec_text(own)] = own

    def find_unregistered(self, module: str, qualname: str) -> Any:
        """Return the callable `module:qualname` if it was given to this registry before, or a class of a network.

        A class is found if its module is imported already; nothing is ever imported. Only a torch.nn.Module counts,
        since the text may come from the file of a stranger.
        """
        if not self.instances:
            return self.unnamed.get(f"{module}:{qualname}")
        found: Any = sys.modules.get(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        is_class = isinstance(found, type) and issubclass(found, import_module("torch").nn.Module)
        return found if is_class else self.unnamed.get(f"{module}:{qualname}")


def is_own(text: str) -> bool:
    """Return True for the text of a callable without a registered name, `module:qualname`."""
    _, colon, rest = text.partition(":")
    return bool(colon) and bool(name := rest.partition(":")[0]) and "=" not in name


def is_network(value: object) -> bool:
    """Return True for an instance of torch.nn.Module; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def copy_network(network: Any, *_sizes: int | None) -> Any:
    """Return a copy of a network that was given as an instance, so that the user's own stays as it is."""
    return copy.deepcopy(network)


def remember_options(entry: Any) -> None:
    """Let each instance of a registered class keep the options it was made with, for its spec."""
    original = entry.__init__

    @wraps(original)
    def init(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.made_with = options

    entry.__init__ = init


schedule = Registry("schedule", "unnoise.diffusion", most=100_000)
spacing = Registry("spacing", "unnoise.diffusion")
target = Registry("target", "unnoise.diffusion")
times = Registry("times", "unnoise.diffusion")
objective = Registry("objective", "unnoise.diffusion")
sampler = Registry("sampler", "unnoise.samplers")
posterior = Registry("posterior sampler", "unnoise.editing.posterior")
edit = Registry("edit", "unnoise.editing.tasks")
backbone = Registry("backbone", "unnoise.backbones", most=4096, instances=True)
distillation = Registry("distillation", "unnoise.distillation.methods")
optimizer = Registry("optimizer", "unnoise.training.optimizers")
features = Registry("features", "unnoise.evaluation.features")
dataset = Registry("data", "unnoise.data")
