"""JSON Schemas (2020-12, as OpenAPI 3.1 and AsyncAPI 3 take them) of the types that the server reads and writes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from server.rest.openapi.routes import JsonType

__all__ = ["JsonSchema", "Schemas", "without_null"]

JsonSchema: TypeAlias = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/{name}"


def _given(name: str) -> JsonSchema:
    """The field is there, and has a value."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


#: What a decision needs, and what it excludes.
_DECISION: Final[JsonSchema] = {
    "allOf": [
        {
            "if": {"properties": {"decision": {"const": "edit"}}},
            "then": _given("modified_arguments"),
            "else": {"not": _given("modified_arguments")},
        },
        {
            "if": {"properties": {"decision": {"const": "respond"}}},
            "then": {"required": ["feedback"], "properties": {"feedback": {"type": "string", "minLength": 1}}},
        },
        {
            "if": {"properties": {"decision": {"enum": ["edit", "respond"]}}},
            "then": {"not": _given("remember")},
        },
    ]
}
_RESULT: Final[JsonSchema] = {"not": {"allOf": [_given("result"), _given("error")]}}

#: Rules that bind several fields, by the name of the type: what its `__post_init__` refuses, as JSON Schema says it.
_RULES: Final[Mapping[str, JsonSchema]] = {
    "ToolResult": _RESULT,
    "ToolResultMessage": _RESULT,
    "HitlDecision": _DECISION,
    "HitlDecisionMessage": _DECISION,
    "DecisionBody": _DECISION,
    "ForkBody": {
        # At most one of them.
        "not": {
            "anyOf": [
                {"allOf": [_given("seq"), _given("cursor")]},
                {"allOf": [_given("seq"), _given("message_id")]},
                {"allOf": [_given("cursor"), _given("message_id")]},
            ]
        }
    },
    "QueueUpdate": {
        "oneOf": [_given("order"), _given("remove")],
        "properties": {"order": {"uniqueItems": True}},
    },
}


#: Types whose tag may be left out, as there is no other that could be meant.
_UNTAGGED: Final = frozenset({"TextPart"})


class Schemas:
    """The schemas of one document. Each type has one name in it; two types of one name are a mistake."""

    def __init__(self) -> None:
        self.components: dict[str, JsonSchema] = {}

    def of(self, kind: JsonType) -> JsonSchema:
        """The schema of a type; of a tuple of types, that of any of them. Structs become references to components."""
        if isinstance(kind, tuple):
            return {"anyOf": [self.of(one) for one in kind]}
        (schema,), components = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
        for name, component in components.items():
            self.add(name, _tidy(component))
        tidy: JsonSchema = _tidy(schema)
        return tidy

    def fields(self, kind: type[Struct]) -> JsonSchema:
        """The schema of a struct that is no component itself, as its fields are parameters."""
        (schema,), components = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
        own = components.pop(schema["$ref"].rpartition("/")[2])
        for name, component in components.items():
            self.add(name, _tidy(component))
        tidy: JsonSchema = _tidy(own)
        return tidy

    def add(self, name: str, schema: JsonSchema) -> JsonSchema:
        """Add a component that was made by hand; the reference to it."""
        known = self.components.setdefault(name, schema)
        if known != schema:
            raise ValueError(f"two types of the document are called {name}")
        return {"$ref": _REFERENCE.format(name=name)}

    def bind(self) -> None:
        """Add the rules that bind several fields to the types that are here."""
        for name in _UNTAGGED & self.components.keys():
            required = [field for field in self.components[name]["required"] if field != "type"]
            self.components[name] = {**self.components[name], "required": required}
        for name, rule in _RULES.items():
            if name in self.components:
                self.components[name] = {**self.components[name], "allOf": [rule]}


def without_null(schema: JsonSchema) -> JsonSchema:
    """The schema of something that is left out rather than null, such as a parameter."""
    kept = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    if "anyOf" not in kept:
        return kept
    choices = [choice for choice in kept.pop("anyOf") if choice != {"type": "null"}]
    return {**kept, **choices[0]} if len(choices) == 1 else {**kept, "anyOf": choices}


def _tidy(value: Any) -> Any:
    """Descriptions without the indentation of docstrings, and no titles that repeat a component's name."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidy = {key: _tidy(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = inspect.cleandoc(tidy["description"])
    return tidy
