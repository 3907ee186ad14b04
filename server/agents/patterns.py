"""Regular expressions that others wrote: what trying one may take, told before it is tried.

Python's engine goes back and tries again, for some expressions more often than there are atoms. What it may take is
estimated from the expression's structure, and too much is refused.
"""

from __future__ import annotations

import math
import re
from importlib import import_module
from typing import Any, Final

__all__ = ["MAX_PATTERN", "compiled", "effort"]

# Nothing public tells what an expression is made of.
ops: Any = import_module("re._constants")
_parser: Any = import_module("re._parser")

MAX_PATTERN: Final = 500
"""Characters of an expression."""

_SINGLE: Final = frozenset({ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN, ops.CATEGORY, ops.AT, ops.RANGE})
_REPEATS: Final = frozenset({ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT})
_AROUND: Final = frozenset({ops.SUBPATTERN, ops.ASSERT, ops.ASSERT_NOT, ops.ATOMIC_GROUP})
_ANCHORS: Final = frozenset({ops.AT_BEGINNING, ops.AT_BEGINNING_STRING})


def compiled(pattern: str) -> re.Pattern[str] | None:
    """The expression, ready to use; None for one that is too long or that Python does not understand."""
    if len(pattern) > MAX_PATTERN:
        return None
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return None


def effort(pattern: str, length: int) -> float:
    """How many steps a search in a text of so many characters may take, at worst; infinity where nobody can tell."""
    try:
        parsed = _parser.parse(pattern)
        starts = 1 if _anchored(parsed) else length + 1
        return starts * _ways(parsed, length) + length
    except (re.error, RecursionError, OverflowError):
        return math.inf


def _anchored(parsed: Any) -> bool:
    return len(parsed) > 0 and parsed[0][0] is ops.AT and parsed[0][1] in _ANCHORS


def _ways(items: Any, length: int) -> float:
    """In how many ways the items may fit a text: the product of their own ways."""
    ways = 1.0
    for op, argument in items:
        ways *= _ways_of(op, argument, length)
    return ways


def _ways_of(op: Any, argument: Any, length: int) -> float:
    if op in _SINGLE:
        ways = 1.0
    elif op in _REPEATS:
        least, most, items = argument
        ways = _ways_of_repeat(least, most, items, length)
    elif op is ops.BRANCH:
        ways = sum(_ways(branch, length) for branch in argument[1])
    elif op in _AROUND:
        ways = _ways(argument if op is ops.ATOMIC_GROUP else argument[-1], length)
    else:
        ways = math.inf
    return ways


def _ways_of_repeat(least: int, most: int, items: Any, length: int) -> float:
    within = _ways(items, length)
    if least == most:
        return float(within**least)
    rounds = min(most, length)
    # Ways within a repetition multiply with each round.
    return rounds + 1 if within == 1 else float(within**rounds) * (rounds + 1)
