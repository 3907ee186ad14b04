"""The OpenAPI document as one plain page: no script, and nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

__all__ = ["page"]

_STYLE: Final = """\
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 18%,transparent);
--soft:color-mix(in srgb,currentColor 6%,transparent)}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:2rem 1.25rem 6rem}
h1{margin:0}h2{margin:3rem 0 .5rem;border-bottom:1px solid var(--line)}
code,pre{font:14px/1.45 ui-monospace,monospace}
details{border:1px solid var(--line);border-radius:.5rem;margin:.5rem 0;padding:.5rem .75rem}
summary{cursor:pointer}summary b{display:inline-block;min-width:4rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
td,th{text-align:left;vertical-align:top;padding:.2rem .75rem .2rem 0;border-top:1px solid var(--line)}
pre{overflow:auto;background:var(--soft);padding:.75rem;border-radius:.5rem}
"""

_CODE: Final = re.compile(r"`([^`]+)`")


def page(document: Mapping[str, Any]) -> str:
    """The page."""
    return "".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
    yield f"<meta name=viewport content='width=device-width,initial-scale=1'><style>{_STYLE}</style>"
    yield f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>{_text(info['description'])}"
    yield "<p>For programs: <a href=/openapi.json>/openapi.json</a>, <a href=/asyncapi.json>/asyncapi.json</a>.</p>"
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>{_text(tag.get('description', ''))}"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(method, path, operation)
    yield "<h2>Types</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>"
        yield f"{_text(schema.get('description', ''))}{_fields(schema)}</details>"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> "
    yield f"{_inline(operation['summary'])}</summary>"
    yield _text(operation.get("description", ""))
    rows = [
        f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}{', required' if one['required'] else ''}"
        f"<td>{_type(one['schema'])}<td>{_inline(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    ]
    if rows:
        yield f"<table><tr><th>parameter<th>in<th>type<th>{''.join(rows)}</table>"
    if "requestBody" in operation:
        media, first = next(iter(operation["requestBody"]["content"].items()))
        yield f"<p>Body (<code>{escape(media)}</code>): {_type(first['schema'])}</p>"
    yield "<table><tr><th>status<th>body<th>"
    for status, response in operation["responses"].items():
        bodies = [
            f"<code>{escape(media)}</code> {_type(_item(content['schema']))}"
            for media, content in response.get("content", {}).items()
        ]
        yield f"<tr><td>{status}<td>{'<br>'.join(bodies)}<td>{_inline(response['description'])}"
    yield "</table></details>"


def _item(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a body; of an event stream, that of what its messages say."""
    item: Mapping[str, Any] = schema.get("properties", {}).get("data", {}).get("contentSchema", schema)
    return item


def _fields(schema: Mapping[str, Any]) -> str:
    if "properties" not in schema:
        return f"<p>{_type(schema)}</p>"
    required = schema.get("required", ())
    rows = [
        f"<tr><td><code>{escape(name)}</code>{'' if name in required else '?'}<td>{_type(field)}"
        f"<td>{_inline(field.get('description', ''))}"
        for name, field in schema["properties"].items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words; what is a component, as a link to it."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(one) for one in schema[key])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"[{_type(schema.get('items', {}))}]"
    return escape(str(schema.get("format") or schema.get("type", "any JSON")))


def _inline(text: str) -> str:
    return _CODE.sub(lambda found: f"<code>{found[1]}</code>", escape(text))


def _text(text: str) -> str:
    """Paragraphs of plain text, with `code` in them; a table stays as it was written."""
    return "".join(
        f"<pre>{escape(part)}</pre>" if part.startswith("|") else f"<p>{_inline(part)}</p>"
        for part in text.strip().split("\n\n")
        if part
    )
