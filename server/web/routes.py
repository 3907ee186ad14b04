"""Serves the files of this folder: `index.html` at `/`, every other under its own name.

They are read once, when the application is made, so that an upgrade of the package under a running server cannot mix
versions. Each has a strong ETag and is asked for again every time (`no-cache`): a page is never older than its server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import hdrs, web

from server.rest.openapi import Answer, Routes

__all__ = ["add_routes"]

#: What is served, by the end of its name; anything else in the folder (code, notes) is not.
_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ts": "text/plain",
    ".woff2": "font/woff2",
}
_CHARSETS: Final = ("text/", "application/json", "image/svg")

#: Scripts, styles and connections of our own origin only, nothing inline, no image from elsewhere, no page that frames
#: ours. Trusted types without any policy: a script that tried to turn text into markup would be stopped by the browser.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def add_routes(app: web.Application) -> None:
    """Add a public route a file."""
    routes = Routes("Console", "The files of the web console.")
    for path, file in _files(files("server") / "web", "/"):
        _add(routes, path, file)
    routes.add_to(app)


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith(("_", ".")):
            continue
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif _type(entry.name) is not None:
            yield prefix + ("" if entry.name == "index.html" else entry.name), entry


def _type(name: str) -> str | None:
    return _TYPES.get("." + name.rpartition(".")[2])


def _add(routes: Routes, path: str, file: Traversable) -> None:
    content = file.read_bytes()
    content_type = _type(file.name) or "application/octet-stream"
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {
        hdrs.ETAG: etag,
        hdrs.CACHE_CONTROL: "no-cache",
        "Content-Security-Policy": _POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
    }

    async def serve(request: web.Request) -> web.Response:
        """Serve a file of the web console."""
        if any(tag.value in {etag.strip('"'), "*"} for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=content,
            headers=headers,
            content_type=content_type,
            charset="utf-8" if content_type.startswith(_CHARSETS) else None,
        )

    whole = Answer(about=file.name, content={content_type: None}, headers=(hdrs.ETAG,))
    unchanged = Answer(status=304, about="You have it already", headers=(hdrs.ETAG,))
    routes.get(path, answers=(whole, unchanged), public=True)(serve)
