"""Small server tools that are always there; harmless, so that tool calls can be tried without any set-up."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from datetime import UTC
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta

from server.agents.interface import ToolContext
from server.agents.tools import ToolError, tool

__all__ = ["BUILTIN_TOOLS", "calculate", "clock", "evaluate", "text_statistics"]

Number = int | float

_MAX_EXPRESSION = 500
_MAX_DEPTH = 50
# Checked before Python's parser sees the text, as it warns about odd words and strings.
_CHARACTERS = re.compile(r"[0-9eE.+\-*/%()^\s]+")
_MAX_BITS: Final = 4096
"""Size of the largest integer that arithmetic may reach: about 1,200 digits."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression: numbers, parentheses and ``+ - * / // % **`` (also written ``^``).

    Size and depth are bounded before anything is computed, so no expression takes noticeable time or memory. Raises
    ``ToolError`` that says what is wrong with the expression.
    """
    if len(expression) > _MAX_EXPRESSION:
        raise ToolError(f"the expression is longer than {_MAX_EXPRESSION} characters")
    if not _CHARACTERS.fullmatch(expression):
        raise ToolError("only numbers, parentheses and + - * / // % ** can be calculated with")
    try:
        tree = ast.parse(expression.strip().replace("^", "**"), mode="eval")
        return _value(tree.body, 0)
    except ToolError:
        raise
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError(f"{expression!r} is not an arithmetic expression") from None
    except OverflowError:
        raise ToolError("the result is too large") from None


def _value(node: ast.expr, depth: int) -> Number:
    if depth > _MAX_DEPTH:
        raise ToolError(f"the expression is nested deeper than {_MAX_DEPTH} levels")
    match node:
        case ast.Constant(value=bool()):
            raise ToolError("only numbers can be calculated with")
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _bounded(_UNARY[type(op)](_value(operand, depth + 1)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            first, second = _value(left, depth + 1), _value(right, depth + 1)
            if isinstance(op, ast.Pow):
                _refuse_large_power(first, second)
            return _bounded(_BINARY[type(op)](first, second))
        case _:
            raise ToolError("only numbers, parentheses and + - * / // % ** can be calculated with")


def _refuse_large_power(base: Number, exponent: Number) -> None:
    """Refuse a power by the size that its result would have, before it is computed."""
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _MAX_BITS:
        raise ToolError("the result is too large")


def _bounded(value: Any) -> Number:
    if isinstance(value, complex):
        raise ToolError("the result is not a real number")
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ToolError("the result is too large")
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError("the result is too large")
    number: Number = value
    return number


@tool(read_only=True)
def calculate(expression: Annotated[str, Meta(min_length=1, max_length=_MAX_EXPRESSION)]) -> Number | str:
    """Calculate an arithmetic expression such as (2 + 3) * 4 ** 2; integers are exact."""
    value = evaluate(expression)
    # Beyond 2**53 a JSON number would be rounded by many readers.
    return str(value) if isinstance(value, int) and abs(value) > 2**53 else value


@tool(read_only=True)
def clock(
    context: ToolContext,
    timezone: Annotated[str, Meta(max_length=64, description="IANA name, such as Europe/Paris.")] = "UTC",
) -> dict[str, str]:
    """Tell the current date, time and weekday in a time zone."""
    try:
        # UTC needs no time zone database, which small systems lack.
        local = context.now().astimezone(UTC if timezone == "UTC" else ZoneInfo(timezone))
    # ZoneInfo reports unknown names, absolute paths and names of folders with an exception of its own each.
    except (KeyError, ValueError, OSError):
        raise ToolError(f"there is no time zone {timezone!r}; use an IANA name such as Europe/Paris") from None
    return {"time": local.isoformat(timespec="seconds"), "weekday": f"{local:%A}", "timezone": timezone}


@tool(read_only=True)
def text_statistics(text: str, count: Literal["all", "words", "characters", "lines"] = "all") -> dict[str, int]:
    """Count the words, characters and lines of a text."""
    numbers = {"words": len(text.split()), "characters": len(text), "lines": len(text.splitlines())}
    return numbers if count == "all" else {count: numbers[count]}


BUILTIN_TOOLS = (clock, calculate, text_statistics)
"""The server tools that every registry has."""
