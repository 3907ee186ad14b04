"""The files for browsers."""

from __future__ import annotations

import re

import pytest

from tests.rest.test_sessions import refused
from tests.support.server import RunningServer


@pytest.mark.parametrize(
    ("path", "content_type", "word"),
    [("/", "text/html", "<!doctype html>"), ("/parley.js", "text/javascript", "export function connect")],
)
async def test_a_file_is_served_with_a_policy_and_asked_for_again(
    server: RunningServer, path: str, content_type: str, word: str
) -> None:
    async with server.client.get(path) as response:
        body = await response.text()
        assert response.status == 200
        assert (response.content_type, response.charset) == (content_type, "utf-8")
        assert word in body
        policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        tag = response.headers["ETag"]
    for given, status in ((tag, 304), (f'"x", {tag}', 304), ("*", 304), ('"other"', 200)):
        async with server.client.get(path, headers={"If-None-Match": given}) as response:
            assert response.status == status
            assert response.headers["ETag"] == tag
            assert (await response.read() == b"") is (status == 304)
    async with server.client.head(path) as response:
        assert (response.status, response.content_length) == (200, len(body.encode()))


async def test_the_page_keeps_to_its_own_policy(server: RunningServer) -> None:
    """What it names is served here, and nothing in it is inline."""
    async with server.client.get("/") as response:
        page = await response.text()
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\son[a-z]+=|\sstyle=|javascript:", page)
    for name in re.findall(r"""(?:src|href)="([^"#]+)\"""", page):
        async with server.client.get(name if name.startswith("/") else f"/{name}") as response:
            assert (name, response.status) == (name, 200)


@pytest.mark.parametrize(
    "path", ["/routes.py", "/README.md", "/__init__.py", "/index.html", "/..%2fapp.py", "/__pycache__/"]
)
async def test_nothing_else_of_the_folder_is_served(server: RunningServer, path: str) -> None:
    assert (await refused(server, "GET", path))[0] == 404
