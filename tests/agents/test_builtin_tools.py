from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.agents.builtin_tools import BUILTIN_TOOLS, calculate, clock, evaluate, text_statistics
from server.agents.tools import ToolError
from tests.agents.support import tool_context


@pytest.mark.parametrize(
    ("expression", "value"),
    [("6*7", 42), ("2 ^ 10", 1024), ("-(1 + 2) * 3", -9), ("7 // 2 + 7 % 2", 4), ("1/4", 0.25), ("2**-1", 0.5)],
)
def test_arithmetic(expression: str, value: float) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("9**9**9", "too large"),
        ("(" * 60 + "1" + ")" * 60 + "**99999", "too large"),
        ("10**400*10**400*10**400*10**400", "too large"),
        ("1e999", "too large"),
        ("1e300*1e300", "too large"),
        ("10.0**999", "too large"),
        ("1/0", "division by zero"),
        ("0**-1", "division by zero"),
        ("(-1)**0.5", "not a real number"),
        ("1+", "not an arithmetic expression"),
        ("()", "only numbers"),
        ("e", "only numbers"),
        ("__import__('os')", "only numbers"),
        ("1 if 1 else 2", "only numbers"),
        ("'a'*3", "only numbers"),
        ("1_000", "only numbers"),
        ("1;2", "only numbers"),
        ("1" * 501, "longer than"),
        ("-" * 400 + "1", "nested deeper"),
    ],
)
def test_what_cannot_be_calculated_says_why(expression: str, complaint: str) -> None:
    with pytest.raises(ToolError, match=complaint):
        evaluate(expression)


@given(st.text(alphabet="0123456789.eE+-*/%()^ ", max_size=500))
def test_no_expression_does_anything_but_calculate_or_refuse(expression: str) -> None:
    try:
        value = evaluate(expression)
    except ToolError:
        return
    assert isinstance(value, float) or abs(value).bit_length() <= 4096


async def test_large_integers_come_as_text_so_that_no_digit_is_lost() -> None:
    assert await calculate.call('{"expression": "2**53"}', tool_context()) == 2**53
    assert await calculate.call('{"expression": "2**53+1"}', tool_context()) == str(2**53 + 1)


async def test_the_clock_tells_the_injected_time() -> None:
    assert await clock.call("", tool_context()) == {
        "time": "2026-01-02T03:04:05+00:00",
        "weekday": "Friday",
        "timezone": "UTC",
    }


@pytest.mark.parametrize("zone", ["Nowhere/Never", "/etc/passwd", "../x", "Europe", ""])
async def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ToolError, match="no time zone"):
        await clock.call(json.dumps({"timezone": zone}), tool_context())


async def test_text_statistics() -> None:
    everything = await text_statistics.call('{"text": "a b\\nc"}', tool_context())
    assert everything == {"words": 3, "characters": 5, "lines": 2}
    assert await text_statistics.call('{"text": "a b", "count": "words"}', tool_context()) == {"words": 2}


def test_the_built_in_tools_change_nothing() -> None:
    assert all(tool.spec.read_only and tool.spec.executor == "server" for tool in BUILTIN_TOOLS)
