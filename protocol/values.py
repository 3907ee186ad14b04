"""The values that every part of the system can keep: those of JSON, of MessagePack and of PostgreSQL alike.

Text without NUL (PostgreSQL has none) and without lone surrogates (UTF-8 has none), integers of 64 bits (MessagePack
has no more), finite numbers and string keys (JSON has no others), and nesting that no reader's stack runs out on.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from typing import Any, Final

from protocol.errors import ErrorCode, ParleyError

__all__ = ["MAX_CONTAINERS", "MAX_INTEGER", "MIN_INTEGER", "canonical", "check_value", "clean_text", "fit_integers"]

MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1

#: Arrays and objects in one value; what is not flat has its price for whoever reads it.
MAX_CONTAINERS: Final = 20_000

_UNKEEPABLE: Final = re.compile("[\x00\ud800-\udfff]")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LONGEST_KEY_IN_PATH: Final = 64
_LARGEST_DOUBLE: Final = int(sys.float_info.max)


def check_value(root: object, path: str, max_nesting: int) -> None:
    """Raise ParleyError naming the place and the rule if a decoded value holds anything that cannot be kept.

    `path` is where the value itself stands. Without recursion, as the value may be nested deeper than our own stack.
    """
    if not _is_plain(root, path, max_nesting):
        _look_closely(root, path, max_nesting)


def _is_plain(root: object, path: str, max_nesting: int) -> bool:
    """Whether nothing needs a closer look; a level at a time and without paths, as most values never need one.

    Raises ParleyError(TOO_LARGE) for more than MAX_CONTAINERS arrays and objects: some hundred thousand empty ones fit
    into a command, and to look at each with its path would hold up everybody else for a second.
    """
    level: list[dict[Any, Any] | list[Any]] = []
    if not _take_plain([root], level):
        return False
    containers = 0
    for _ in range(max_nesting):
        containers += len(level)
        if containers > MAX_CONTAINERS:
            raise ParleyError(
                ErrorCode.TOO_LARGE, f"at most {MAX_CONTAINERS} arrays and objects are allowed", path=path
            )
        following: list[dict[Any, Any] | list[Any]] = []
        for container in level:
            if isinstance(container, dict):
                if not (_take_plain(container, None) and _take_plain(container.values(), following)):
                    return False
            elif not _take_plain(container, following):
                return False
        if not following:
            return True
        level = following
    return False


def _take_plain(values: Iterable[Any], containers: list[dict[Any, Any] | list[Any]] | None) -> bool:
    """Collect the arrays and objects among the values; whether all others can be kept. None: only texts can."""
    for value in values:
        kind = type(value)
        if kind is str:
            if (not value.isascii() or "\0" in value) and _UNKEEPABLE.search(value) is not None:
                return False
        elif containers is None:
            return False
        elif kind is dict or kind is list:
            containers.append(value)
        elif kind is int:
            if not MIN_INTEGER <= value <= MAX_INTEGER:
                return False
        elif kind is float:
            if not math.isfinite(value):
                return False
        elif value is not None and kind is not bool:
            return False
    return True


def _look_closely(root: object, path: str, max_nesting: int) -> None:
    """Raise what is wrong with the value, if anything is, with the path to it."""
    stack: list[tuple[object, str, int]] = [(root, path, 0)]
    while stack:
        value, place, depth = stack.pop()
        if not isinstance(value, dict | list):
            _check_scalar(value, place)
            continue
        if depth >= max_nesting:
            raise ParleyError(ErrorCode.TOO_LARGE, f"at most {max_nesting} levels of nesting are allowed", path=place)
        for key, item in _entries(value, place):
            kind = type(item)
            # The common harmless cases first: a command may hold a hundred thousand of them.
            if item is None or kind is bool or (kind is int and MIN_INTEGER <= item <= MAX_INTEGER):
                continue
            if kind is str and item.isascii() and "\0" not in item:
                continue
            stack.append((item, place + _step(key), depth + 1))


def _entries(container: dict[Any, Any] | list[Any], path: str) -> Iterable[tuple[str | int, Any]]:
    if isinstance(container, list):
        return enumerate(container)
    for key in container:
        if not isinstance(key, str):
            raise ParleyError(ErrorCode.MALFORMED, f"keys are strings, not {type(key).__name__}", path=path)
        if not key.isascii() or "\0" in key:
            _check_scalar(key, path)
    return container.items()


def _check_scalar(value: object, path: str) -> None:
    if isinstance(value, str):
        found = _UNKEEPABLE.search(value)
        if found is not None:
            what = "a NUL character" if found[0] == "\0" else "a lone surrogate, or a byte that is not UTF-8,"
            raise ParleyError(ErrorCode.INVALID, f"{what} cannot be kept", path=path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ParleyError(ErrorCode.INVALID, "a number must be finite", path=path)
    elif isinstance(value, int):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise ParleyError(ErrorCode.INVALID, "an integer has at most 64 bits", path=path)
    elif value is not None:
        raise ParleyError(ErrorCode.MALFORMED, f"only JSON values are allowed, not {type(value).__name__}", path=path)


def _step(key: str | int) -> str:
    """One step of a path, short whatever the sender made of it."""
    if isinstance(key, int):
        return f"[{key}]"
    if _PLAIN_KEY.fullmatch(key):
        return f".{key}"
    # ASCII only, so that a path can always be encoded, also when the key itself cannot.
    return f"[{json.dumps(key[:_LONGEST_KEY_IN_PATH])}]"


def clean_text(text: str) -> str:
    """The text with every NUL and every lone surrogate replaced by U+FFFD.

    For text that cannot be refused because nobody is there to correct it: a model's, a tool's.
    """
    return _UNKEEPABLE.sub("\ufffd", text)


def fit_integers(value: Any) -> Any:
    """The value with integers beyond 64 bits as floating-point numbers, which is how JavaScript reads them anyway."""
    if isinstance(value, dict):
        return {key: fit_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fit_integers(item) for item in value]
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return float(max(-_LARGEST_DOUBLE, min(value, _LARGEST_DOUBLE)))
    return value


def canonical(value: Any) -> Any:
    """The value with one form for each number: an integer where it is one (`1.0` and `1` are equal, `-0.0` is `0`)."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and MIN_INTEGER <= value <= MAX_INTEGER:
        return int(value)
    return value
