"""Several people on one session: what each of them can do, and what all of them see."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, expect

from server.config import AuthSettings, TokenSettings
from tests.browser.console import Console
from tests.browser.workshop import Workshop, call
from tests.support.browser import PATIENCE
from tests.support.server import MakeServer

TOKENS = {name: f"a-token-of-{name}-for-the-browser" for name in ("anna", "olga")}


@pytest.fixture
async def shared(make_server: MakeServer, unused_tcp_port: int) -> Workshop:
    """A workshop that knows two people."""
    auth = AuthSettings(tokens=tuple(TokenSettings(user=name, token=token) for name, token in TOKENS.items()))
    workshop = Workshop(make_server, unused_tcp_port, auth=auth)
    await workshop.start()
    return workshop


@pytest.fixture
async def theirs(browser: Browser) -> AsyncIterator[Page]:
    """A page in another person's browser."""
    context = await browser.new_context()
    context.set_default_timeout(PATIENCE)
    yield await context.new_page()
    await context.close()


async def _enter(page: Page, url: str, name: str) -> Console:
    await page.goto(url)
    await page.get_by_test_id("token-input").fill(TOKENS[name])
    await page.get_by_test_id("token-submit").click()
    console = Console(page)
    await console.connected()
    return console


@pytest.mark.feature("E03", "R01", "T09")
async def test_who_is_here_to_read_cannot_write_or_decide(page: Page, theirs: Page, shared: Workshop) -> None:
    anna = await _enter(page, shared.url, "anna")
    session = await anna.session_id()
    headers = {"Authorization": f"Bearer {TOKENS['anna']}"}
    members = f"/sessions/{session}/members/olga"
    async with shared.server.client.put(members, json={"role": "observer"}, headers=headers) as response:
        assert response.status in (200, 201, 204), await response.text()
    olga = await _enter(theirs, f"{shared.url}#s={session}", "olga")
    await expect(olga.composer).to_be_disabled()
    await expect(olga.composer).to_have_attribute("placeholder", "You are here to read")
    await anna.say(call("write_file", path="a", content=""))
    question = theirs.get_by_test_id("approval")
    await expect(question).to_contain_text("others decide")
    await expect(question.locator("button")).to_have_count(0)
    await theirs.get_by_test_id("session-toggle").click()
    people = theirs.get_by_test_id("person")
    await expect(people).to_have_count(2)
    await expect(people.filter(has_text="this tab")).to_contain_text("observer")
    await page.get_by_test_id("reject").click()
    await page.get_by_test_id("send-reject").click()
    card = theirs.get_by_test_id("call")
    await expect(card).to_have_attribute("data-state", "rejected")
    await card.locator("summary").first.click()
    await expect(card.get_by_test_id("decision")).to_contain_text("Rejected by anna, from ")
