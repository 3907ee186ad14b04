"""A page with nothing but the browser's own EventSource, as the thread routes are made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.site import Site

if TYPE_CHECKING:
    from playwright.async_api import Page

_LISTEN = """() => {
    window.heard = [];
    window.connected = 0;
    window.errors = [];
    window.source = new EventSource("/agents/offline/sse?thread_id=mine");
    source.addEventListener("connected", () => { window.connected += 1; });
    source.onmessage = (event) => { window.heard.push(JSON.parse(event.data)); };
    source.onerror = () => { window.errors.push(source.readyState); };
}"""

_SAY = """(text) => fetch("/agents/offline/messages", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ thread_id: "mine", message: text }),
}).then((response) => response.json())"""


@pytest.mark.feature("S34", "S35", "S36")
async def test_an_event_source_hears_a_thread_and_comes_back_by_itself(page: Page, site: Site) -> None:
    site.hurry()
    # Any address of the server: the page is of its origin.
    await page.goto(site.url + "health")
    await page.evaluate(_LISTEN)
    await page.wait_for_function("connected === 1")
    thanks = await page.evaluate(_SAY, "hello")
    assert thanks == {"status": "success", "message": "Message sent to agent."}
    await page.wait_for_function("heard.length === 1")
    assert await page.evaluate("Object.keys(heard[0])") == ["agent_id", "thread_id", "message"]

    await site.stop()
    # CONNECTING: the browser tries again, after the delay that the server named as it went.
    await page.wait_for_function("errors.length > 0 && source.readyState === EventSource.CONNECTING")
    await site.start()
    site.hurry()
    await page.wait_for_function("connected === 2")
    await page.evaluate(_SAY, "and again")
    await page.wait_for_function("heard.length === 2")
    # Nothing was heard twice, as the browser says where it was.
    assert await page.evaluate("heard.every((one) => one.thread_id === 'mine')")
    await page.evaluate("source.close()")


@pytest.mark.feature("S36")
async def test_an_event_source_stops_when_its_thread_is_deleted(page: Page, site: Site) -> None:
    site.hurry()
    await page.goto(site.url + "health")
    await page.evaluate(_LISTEN)
    await page.wait_for_function("connected === 1")
    thread = await site.server.services.sessions.thread("local", "offline", "mine")
    assert thread is not None
    async with site.server.client.delete(f"/sessions/{thread.session_id}") as response:
        assert response.status == 204
    # It comes back once more, and is answered 204: there is nothing to come back to.
    await page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert await page.evaluate("connected") == 1
