"""Plugins: Python files of your own (`--plugin FILE.py`) and installed packages that register their own entries."""

import sys
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType

from unnoise.errors import InputError
from unnoise.files import user_path

GROUP = "unnoise.plugins"  # the entry-point group of installed plugins

origins: dict[str, str] = {}  # module, or top-level package -> the file or distribution of the plugin
loaded = set[str]()  # installed plugins that have been loaded


def load_file(path: str) -> ModuleType:
    """Import a Python file, which registers its entries, as a module named like the file.

    Raises:
        InputError: There is no such file, its name belongs to another module, or it fails.
    """
    file = user_path(path).resolve()
    name = file.stem
    if file.suffix != ".py" or not file.is_file():
        raise InputError(f"--plugin takes a Python file, and {path} is none")
    there = sys.modules.get(name)
    if there is not None and getattr(there, "__file__", None) == str(file):
        return there
    if there is not None and name not in sys.stdlib_module_names:
        raise InputError(f"--plugin {path}: a module named {name} is in use already; rename the file")
    other = find_spec(name) if there is None and name.isidentifier() else None
    if name in sys.stdlib_module_names or (other is not None and other.origin != str(file)):
        raise InputError(f"--plugin {path}: another module has the name {name}; rename the file")
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"the plugin {path} cannot be loaded: {describe(error)}") from error
    origins[name] = file.name
    return module


@cache
def installed() -> EntryPoints:
    """Return the installed plugins, which are looked up once."""
    return entry_points(group=GROUP)


def load_installed() -> None:
    """Load every installed plugin once.

    Raises:
        InputError: A plugin fails; the message names the plugin and its distribution.
    """
    for entry in installed():
        distribution = entry.dist.name if entry.dist else entry.module
        key = f"{distribution}:{entry.name}"
        if key in loaded:
            continue
        loaded.add(key)  # before it looks something up itself
        try:
            entry.load()
        except Exception as error:
            loaded.discard(key)
            raise InputError(
                f"the plugin {entry.name} of the package {distribution} cannot be loaded: {describe(error)}; update "
                f"or uninstall it"
            ) from error
        origins[entry.module.partition(".")[0]] = distribution


def origin(module: str) -> str:
    """Return the file or distribution of the plugin that a module belongs to, or "" if it belongs to none."""
    return origins.get(module, origins.get(module.partition(".")[0], ""))


def describe(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
