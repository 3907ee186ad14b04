"""Loading agents and tools that users wrote, without letting their files get in the way of ours.

A file is loaded by its location as a module with a name of its own; ``sys.path`` is not touched. So a user's
``server.py`` shadows nothing, and two files of the same name live side by side. Files beside it are imported
relatively (``from . import helper``), as the module is its own package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

__all__ = ["ENTRY_POINT_GROUP", "AgentLoadError", "FileLoader", "load_entry_points"]

ENTRY_POINT_GROUP = "parley.agents"
"""The entry point group under which installed packages offer agents and tools."""


class AgentLoadError(Exception):
    """A user's agent cannot be loaded; the text names the file, and the line where there is one."""


class FileLoader:
    """Loads what references name; a file that several references name runs once."""

    def __init__(self, base: Path) -> None:
        """Relative paths start at ``base``."""
        self._base = base
        self._modules: dict[Path, ModuleType] = {}

    def load(self, reference: str) -> object:
        """The object that ``path/to/file.py:attribute`` names; raises ``AgentLoadError``."""
        location, separator, attribute = reference.rpartition(":")
        if not separator or not location.endswith(".py") or not attribute.isidentifier():
            raise AgentLoadError(f"{reference!r} is not of the form path/to/file.py:attribute")
        path = (self._base / Path(location).expanduser()).resolve()
        if not path.is_file():
            raise AgentLoadError(f"{path}: there is no such file (named by {reference!r})")
        if path not in self._modules:
            self._modules[path] = _load_file(path)
        try:
            return getattr(self._modules[path], attribute)
        except AttributeError:
            raise AgentLoadError(f"{path}: it defines no {attribute!r}") from None


def load_entry_points() -> list[tuple[str, object]]:
    """What installed packages offer, each with the entry point's name for messages; raises ``AgentLoadError``."""
    return [(f"entry point {point.name!r} ({point.value})", _load(point)) for point in _sorted_entry_points()]


def _sorted_entry_points() -> list[EntryPoint]:
    # By name, so that the order of agents does not hang on the order of installation.
    return sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:
        raise AgentLoadError(f"entry point {point.name!r} ({point.value}): {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> ModuleType:
    name = "parley_user_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    _forget(name)
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)])
    if spec is None or spec.loader is None:
        raise AgentLoadError(f"{path}: Python cannot load it")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and msgspec look their module up by name while the file still runs.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    # A user's file may also call sys.exit; that must not look like our own end.
    except (Exception, SystemExit) as error:
        _forget(name)
        raise AgentLoadError(f"{_place(error, path)}: {type(error).__name__}: {_text(error)}") from error
    return module


def _forget(name: str) -> None:
    for loaded in [other for other in sys.modules if other == name or other.startswith(f"{name}.")]:
        del sys.modules[loaded]


def _place(error: BaseException, path: Path) -> str:
    """``file:line`` of the error: of the syntax error itself, or of the innermost line that the user wrote."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == path.parent]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else str(path)


def _text(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; a file beside this one is imported as 'from . import {error.name}'"
    return str(error)
