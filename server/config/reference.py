"""All keys in words: a file to start from, and the tables of the README beside the server's code.

`python -m server.config.reference` writes the tables into the README, between its markers.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect as types

from server.config.keys import Key, Section, sections, words
from server.config.shown import as_toml

__all__ = ["fill", "template"]

_WIDTH: Final = 100
_HEAD: Final = """\
# The configuration of Parley: every key, with what it is by default.
# A key counts once the # right before it is gone. Paths are relative to this file's folder.
# Environment variables beat this file, and flags beat both; `parley config` shows what is in force and from where.
"""
_MARKED: Final = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def template() -> str:
    """A file with every key, documented and commented out: as it stands it configures nothing."""
    return _HEAD + "".join(f"\n\n{_section(section)}" for section in sections())


def fill(text: str) -> str:
    """The text with every `<!-- table: name -->` ... `<!-- end -->` filled; raises KeyError for an unknown name."""
    made = {"configuration": _tables}
    return _MARKED.sub(lambda match: f"{match[1]}{made[match['name']]()}{match[3]}", text)


# --- the file


def _section(section: Section) -> str:
    # A header of a table that there may be many of would make one.
    mark = "#" if "*" in section.name or "[]" in section.name else ""
    return "\n".join([*_remark(section.text), mark + section.header, *map(_key, section.keys)]) + "\n"


def _key(key: Key) -> str:
    remark = [*_remark(key.text), *([f"# Or {key.variable} in the environment."] if key.variable else [])]
    return "\n".join(["", *remark, f"#{key.leaf} = {as_toml(_value(key))}"])


def _value(key: Key) -> Any:
    """What stands there: the default, or an example, or the empty value of the type."""
    if key.default is not msgspec.NODEFAULT and key.default is not None:
        return key.default
    return _empty(key.type) if key.example is None else key.example


def _empty(info: types.Type) -> Any:
    match info:
        case types.Metadata(type=inner):
            return _empty(inner)
        case types.UnionType(types=kinds):
            return _empty(next(kind for kind in kinds if not isinstance(kind, types.NoneType)))
        case types.LiteralType(values=values):
            return values[0]
        case types.IntType() | types.FloatType():
            return 0
        case types.VarTupleType():
            return []
        case _:
            return ""


def _remark(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


# --- the tables


def _tables() -> str:
    return "\n".join("".join(_lines(section)) for section in sections() if section.keys)


def _lines(section: Section) -> Iterator[str]:
    yield f"`{section.header}`: {section.text}\n\n"
    yield "| key | | default | |\n| --- | --- | --- | --- |\n"
    for key in section.keys:
        variable = f" `{key.variable}`" if key.variable else ""
        cells = [f"`{key.leaf}`", words(key.type), _default(key), key.text + variable]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _default(key: Key) -> str:
    if key.default is msgspec.NODEFAULT:
        return "required"
    if key.default is None:
        return ""
    text = as_toml(key.default)
    return f"`{text}`" if len(text) <= 40 else "a text"


if __name__ == "__main__":
    readme = Path(__file__).parents[1] / "README.md"
    readme.write_text(fill(readme.read_text("utf-8")), "utf-8")
