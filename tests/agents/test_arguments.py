"""Whether arguments fit a schema that somebody else wrote, in bounded time whatever it says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.agents.arguments import hash_of, problem
from server.agents.client_tools import CLIENT_TOOLS
from server.agents.patterns import effort
from server.agents.schemas import schema_problem

SEARCH = CLIENT_TOOLS["search_in_code"].parameters


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"query": "x"}, None),
        ({"query": "x", "max_results": 1000, "regex": True, "file_pattern": None}, None),
        ({}, "the arguments: 'query' is missing"),
        ({"query": 5}, "query: expected string, got 5"),
        ({"query": ""}, "query: '' breaks the rule minLength 1"),
        ({"query": "x", "max_results": 1001}, "max_results: 1001 breaks the rule maximum 1000"),
        ({"query": "x", "path": None}, "path: expected string, got null"),
        ({"query": {"a": 1}}, "query: expected string, got an object"),
        ({"query": "x", "regexp": True}, "the arguments: there is no 'regexp'; there are: case_sensitive, "),
        ([], "the arguments: expected object, got a list"),
        ("x" * 1000, f"the arguments: expected object, got '{'x' * 60}'..."),
    ],
)
def test_the_field_and_the_rule_are_named(arguments: Any, told: str | None) -> None:
    found = problem(SEARCH, arguments)
    assert found == told if told is None else found is not None and found.startswith(told)


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        (
            {"items": {"properties": {"a": {"enum": ["x", 1]}}}},
            [{"a": "x"}, {"a": 2}],
            "[1].a: expected 'x' or 1, got 2",
        ),
        ({"const": True}, False, "the arguments: expected true, got false"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, "1 has none of the forms"),
        ({"type": ["string", "null"]}, 1, "expected string or null, got 1"),
        ({"pattern": "^[a-z]+$"}, "A", "does not match the pattern '^[a-z]+$'"),
        ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2, "a": 1}], "has an item twice"),
        ({"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": False}, {"x1": "a"}, None),
        ({"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": False}, {"x1": 1}, "x1: expected"),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"y": 1}, "there is no 'y'"),
        ({"additionalProperties": {"type": "string"}}, {"y": 1}, "y: expected string, got 1"),
        (
            {"$defs": {"a": {"type": "string"}}, "properties": {"p": {"$ref": "#/$defs/a"}}},
            {"p": 1},
            "p: expected string",
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "definitions": {"a": {"type": "string"}},
                "properties": {"p": {"$ref": "#/definitions/a"}},
            },
            {"p": 1},
            "p: expected string",
        ),
        ({"$schema": "https://example.org/own", "type": "object"}, {}, None),
    ],
)
def test_schemas_of_all_kinds(schema: dict[str, Any], value: Any, told: str | None) -> None:
    found = problem(schema, value)
    assert found is None if told is None else found is not None and told in found


DIALECT = "https://json-schema.org/draft/2020-12/schema"


def doubling(depth: int) -> dict[str, Any]:
    """A small schema that takes 2**depth steps."""
    links = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(depth)}
    return {"$defs": {**links, f"a{depth}": {}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        ({"$ref": "#"}, {}, "cannot be used (RecursionError)"),
        (doubling(60), {}, "takes too long"),
        ({"properties": {"a": {"$id": "x", "$schema": DIALECT, **doubling(60)}}}, {"a": {}}, "takes too long"),
        ({"items": {"type": "integer"}}, list(range(100_000)), "takes too long"),
        ({"type": 7}, {}, "cannot be used"),
        ({"properties": 7}, {}, "cannot be used"),
        ({"pattern": "(a+)+$"}, "a" * 60 + "b", None),
        ({"pattern": "(a|aa)*$"}, "a" * 60 + "b", None),
        ({"pattern": r"^(\w+\s?)*$"}, "a" * 60 + "!", None),
        ({"pattern": "a*a*a*a*a*a*b"}, "a" * 100_000, None),
        ({"pattern": "("}, "a", None),
        ({"pattern": "a" * 10_000}, "b", None),
        ({"patternProperties": {"(x+x+)+y": {}}, "additionalProperties": False}, {"x" * 60: 1}, None),
        ({"unevaluatedProperties": False, "patternProperties": {"(x+x+)+y": {}}}, {"x" * 60: 1}, None),
        ({"uniqueItems": True}, [{"a": number} for number in range(100_000)], None),
    ],
)
def test_hostile_schemas_and_values_come_to_an_end(schema: dict[str, Any], value: Any, told: str | None) -> None:
    """Each of these would take from seconds to for ever; the test's own bound is the judge."""
    found = problem(schema, value)
    assert found is None if told is None else found is not None and told in found
    assert found is None or (len(found) <= 300 and "\n" not in found)


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("urllib.request.urlopen", connect)
    for reference in ("http://127.0.0.1:9/x", "https://example.org/schema.json", "file:///etc/passwd"):
        found = problem({"properties": {"x": {"$ref": reference}}}, {"x": 1})
        assert found == f"the tool's schema refers to {reference!r}, which is not in it"


def test_values_may_nest_as_deep_as_they_like() -> None:
    value: dict[str, Any] = {}
    for _ in range(5000):
        value = {"a": value}
    found = problem({"$defs": {"n": {"properties": {"a": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}, value)
    assert found is not None
    assert problem({"type": "object"}, value) is None


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({}, None),
        ({"type": "object", "properties": {"pattern": {"type": "string"}}}, None),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"p": {"type": "string"}}}, None),
        ({"type": "string"}, "its type is not `object`"),
        ({"type": ["object", "null"]}, "its type is not `object`"),
        ({"properties": 7}, "properties: expected object, got 7"),
        ({"properties": {"x": {"type": "text"}}}, "properties.x.type: 'text' has none of the forms"),
        ({"required": "x"}, "required: expected array, got 'x'"),
        ({"description": "x" * 70_000}, "it has more than 65536 bytes"),
        ({"properties": {f"p{number}": {} for number in range(5000)}}, "it is too large to be checked"),
    ],
)
def test_a_schema_itself_is_looked_at(schema: dict[str, Any], told: str | None) -> None:
    found = schema_problem(schema)
    assert found is None if told is None else found is not None and told in found


def test_the_standard_tools_have_schemas_that_are_right() -> None:
    assert [name for name, spec in CLIENT_TOOLS.items() if schema_problem(spec.parameters)] == []


@pytest.mark.parametrize(
    ("pattern", "most"),
    [("^abc$", 200), ("^[a-z]+$", 20_000), ("[a-z]+", 20_000), (r"^\d{4}-\d{2}$", 200), ("^(foo|bar)$", 1000)],
)
def test_ordinary_expressions_take_little(pattern: str, most: int) -> None:
    assert effort(pattern, 100) <= most


@pytest.mark.parametrize("pattern", ["(a+)+", "(a*)*b", "(a|aa)*", r"(a)\1*", "(", "(?:(?:a?){20}){20}"])
def test_expressions_that_explode_are_known(pattern: str) -> None:
    assert effort(pattern, 100) > 10**9


@given(st.from_regex(r"[ab]{1,2}[*+?]?([ab|]{1,2}[*+?])?", fullmatch=True), st.text("ab", max_size=12))
def test_what_is_tried_is_tried_as_python_does(pattern: str, text: str) -> None:
    try:
        expected = re.search(pattern, text) is not None
    except re.error:
        expected = True
    assert (problem({"pattern": pattern}, text) is None) == expected


# --- telling arguments apart


def test_the_hash_is_of_the_value() -> None:
    assert hash_of('{"a": 1, "b": [1, "\\u00e9"]}') == hash_of('{"b":[1,"é"],"a":1}\n')
    assert len(hash_of("{}")) == 32
    different = ['{"a":1}', '{"a":"1"}', '{"a":1.5}', '{"a":[1]}', '{"a":null}', "{}", "", "no json", '{"a":1']
    assert len({hash_of(text) for text in different}) == len(different)


def test_the_hash_of_what_is_no_json() -> None:
    for text in ("[" * 100_000, "\ud800", "{", '{"a": 1} x'):
        assert len(hash_of(text)) == 32
