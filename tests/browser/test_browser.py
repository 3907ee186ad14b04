"""The browser fixtures themselves: what they reach, and what they do not let pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpServer

if TYPE_CHECKING:
    from playwright.async_api import Page


async def _greet(_: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><title>greeting</title>", content_type="text/html")


async def test_a_page_reaches_the_server_of_its_test(page: Page, aiohttp_server: AiohttpServer) -> None:
    app = web.Application()
    app.router.add_get("/", _greet)
    server = await aiohttp_server(app)
    await page.goto(str(server.make_url("/")))
    assert await page.title() == "greeting"


async def test_a_page_reaches_no_other_address(page: Page) -> None:
    from playwright.async_api import Error

    with pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
        await page.goto("http://192.0.2.1/")
