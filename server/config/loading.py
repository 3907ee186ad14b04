"""From file, environment and command line to one configuration that knows where each of its values is from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from server.agents.model.settings import OPENAI_URL
from server.config.checking import check
from server.config.environment import CONFIG_VARIABLE, borrow_from_openai, read_variables
from server.config.lines import find_lines
from server.config.problems import ConfigError, Problem
from server.config.sections import Config, Sections
from server.config.sources import FLAG, Given, Source

__all__ = ["CONFIG_NAME", "Reading", "load", "read"]

CONFIG_NAME: Final = "parley.toml"

#: The sections of which there may be many: `[[policies]]`.
_ARRAYS: Final = frozenset(name for name in Sections.__struct_fields__ if isinstance(getattr(Sections(), name), tuple))
_DATA_DIR: Final = "database.data_dir"

_Layer = Mapping[str, tuple[Any, Source]]


class Reading(NamedTuple):
    """What was read: the configuration, as far as it is right, and all that is wrong with it."""

    config: Config
    problems: tuple[Problem, ...]


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
    default_data_dir: Path | None = None,
) -> Config:
    """Read and check the configuration.

    `flags` are values by dotted key (`{"server.port": 9000}`), None standing for a flag that was not given. `file` is
    what `--config` named. `default_data_dir` is where `parley.toml` is looked for when nothing names a data directory.
    Raises ConfigError with all that is wrong.
    """
    reading = read(flags, environ=environ, file=file, default_data_dir=default_data_dir)
    if reading.problems:
        raise ConfigError(*reading.problems)
    return reading.config


def read(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
    default_data_dir: Path | None = None,
) -> Reading:
    """The same without raising: what is wrong is left out of the configuration and told beside it."""
    given = Given()
    on_the_line: _Layer = {key: (value, FLAG) for key, value in (flags or {}).items() if value is not None}
    variables, problems = read_variables(environ)
    path = file or _named_file(environ)
    if path is None:
        path, mistakes = _file_in_data_dir((on_the_line, variables), default_data_dir)
        problems += mistakes
    if path is not None:
        problems += _read_file(given, path)
    for layer in (variables, on_the_line):
        _lay_over(given, layer)
    borrow_from_openai(given, environ, OPENAI_URL)
    sections, refused = check(given)
    fields = {name: getattr(sections, name) for name in Sections.__struct_fields__}
    return Reading(Config(**fields, file=path, sources=given.sources()), (*problems, *refused))


def _lay_over(given: Given, layer: _Layer) -> None:
    if _DATA_DIR in layer and "database.url" not in layer:
        # Whoever names a data directory means the database in there, whatever URL a farther source has.
        given.drop("database", "url")
    for key, (value, source) in layer.items():
        section, _, name = key.partition(".")
        given.put(section, name, value, source)


def _named_file(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def _file_in_data_dir(layers: Iterable[_Layer], default: Path | None) -> tuple[Path | None, list[Problem]]:
    """The file in the data directory that is named nearest, if there is one."""
    named = (layer[_DATA_DIR] for layer in layers if _DATA_DIR in layer)
    value, source = next(named, (default, None))
    if not value:
        return None, []
    try:
        path = Path(str(value)).expanduser() / CONFIG_NAME
        return (path if path.is_file() else None), []
    except (OSError, RuntimeError) as error:
        # Closed to this user, or in the home of somebody whom nobody knows. Where nobody has named it, it may be so.
        reason = f"{error.strerror}: {value}" if isinstance(error, OSError) else f"{value} is nobody's home"
        return None, [] if source is None else [Problem(_DATA_DIR, reason, source)]


def _read_file(given: Given, path: Path) -> list[Problem]:
    try:
        # Some editors begin a file with a mark that says it is UTF-8.
        text = path.read_text("utf-8-sig")
        values = tomllib.loads(text)
    except OSError as error:
        return [Problem(str(path), error.strerror or str(error))]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return [Problem(str(path), str(error))]
    lines = find_lines(text)
    problems = []
    for name in [name for name in Sections.__struct_fields__ if name in values]:
        wanted = "an array of tables" if name in _ARRAYS else "a table"
        if not _is_section(values[name], array=name in _ARRAYS):
            problems.append(Problem(name, f"expected {wanted}", Source("file", str(path), lines.get((name,)))))
            del values[name]
    given.put_file(values, str(path), lines)
    return problems


def _is_section(value: Any, *, array: bool) -> bool:
    if array:
        return isinstance(value, list) and all(isinstance(item, dict) for item in value)
    return isinstance(value, dict)
