"""The list of sessions: found by what was said in them, walked through by keyboard, deleted with one question."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.console import Console
from tests.browser.seeding import past
from tests.browser.site import Site


@pytest.fixture
async def rivers(site: Site) -> dict[str, str]:
    """Sessions about rivers, the newest last."""
    return {
        "seine": await past(site.server, ["About the Seine", "It flows through Paris, and it is 777 km long."]),
        "loire": await past(site.server, ["Which is the longest?", "The **Loire** is the longest river of France."]),
        "castles": await past(
            site.server, ["Castles, please", "Many stand on the Loire."], title="Castles of the Loire"
        ),
    }


@pytest.mark.feature("E03", "S20")
async def test_a_session_is_found_by_what_was_said_in_it(page: Page, site: Site, rivers: dict[str, str]) -> None:
    console = await Console(page).open(f"{site.url}#s={rivers['seine']}")
    await expect(console.sessions).to_have_count(3)
    await expect(console.sessions.first).to_have_text(re.compile("Castles of the Loire.*2 messages"))
    await page.keyboard.press("Escape")
    await page.locator("body").press("/")
    await expect(console.search).to_be_focused()
    await console.search.press_sequentially("loire")
    await expect(console.sessions).to_have_count(2)
    await expect(page.get_by_test_id("search-status")).to_have_text("2 sessions found")
    by_title, by_text = console.sessions.first, console.sessions.last
    await expect(by_title.locator("mark")).to_have_text(["Loire"])
    await expect(by_text.get_by_test_id("excerpt")).to_have_text("The **Loire** is the longest river of France.")
    await expect(by_text.get_by_test_id("excerpt").locator("mark")).to_have_text(["Loire"])
    # Down to the second one and in: there the message comes into view.
    await console.search.press("ArrowDown")
    await expect(by_title).to_be_focused()
    await by_title.press("ArrowDown")
    await by_text.press("Enter")
    await expect(page.get_by_test_id("session-id")).to_have_text(rivers["loire"])
    await expect(console.answers).to_have_class(re.compile("revealed"))
    await expect(by_text).to_have_attribute("aria-current", "true")
    # Up again, and Escape empties the box before it does anything else.
    await by_text.press("ArrowUp")
    await by_title.press("ArrowUp")
    await expect(console.search).to_be_focused()
    await console.search.press("Escape")
    await expect(console.search).to_have_value("")
    await expect(console.sessions).to_have_count(3)


async def test_enter_takes_the_first_that_is_found(page: Page, site: Site, rivers: dict[str, str]) -> None:
    console = await Console(page).open(f"{site.url}#s={rivers['loire']}")
    await console.composer.press("Control+k")
    await expect(console.search).to_be_focused()
    await console.search.fill("PARIS")
    await console.search.press("Enter")
    await expect(page.get_by_test_id("session-id")).to_have_text(rivers["seine"])


async def test_a_search_is_text_and_may_find_nothing(page: Page, site: Site, rivers: dict[str, str]) -> None:
    console = await Console(page).open(f"{site.url}#s={rivers['loire']}")
    for text in ("%", "<img src=x onerror=alert(1)>", "Rhône"):
        await console.search.fill(text)
        await expect(page.get_by_test_id("no-sessions")).to_have_text(f"Nothing found for “{text}”.")
        await expect(console.sessions).to_have_count(0)
    await console.search.fill("   ")
    await expect(console.sessions).to_have_count(3)


async def test_older_sessions_are_a_button_away(page: Page, site: Site) -> None:
    made = [await site.server.create_session(title=f"Number {number}") for number in range(45)]
    console = await Console(page).open(f"{site.url}#s={made[-1]}")
    more = page.get_by_test_id("more-sessions")
    await expect(console.sessions).to_have_count(20)
    await expect(more).to_have_text("Show 20 more of 25")
    await more.click()
    await expect(console.sessions).to_have_count(40)
    await expect(console.sessions.nth(20)).to_be_focused()
    await more.click()
    await expect(console.sessions).to_have_count(45)
    await expect(more).to_be_hidden()
    await expect(console.sessions.last.locator(".name")).to_have_text("Number 0")


async def test_a_session_has_a_title_and_a_time(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await expect(page.get_by_test_id("title")).to_have_text("New session")
    await console.say("echo what a day")
    await console.answered("what a day")
    await expect(page.get_by_test_id("title")).to_have_text("echo what a day")
    await expect(page).to_have_title("echo what a day · Parley")
    await expect(console.sessions.first).to_have_text(re.compile(r"^echo what a day.*now · 2 messages$"))
    await expect(page.locator("#session-list h2")).to_have_text(["Today"])


@pytest.mark.feature("E03", "S20")
async def test_a_deleted_session_is_gone_for_everybody(
    browser_context: BrowserContext, page: Page, site: Site, rivers: dict[str, str]
) -> None:
    first = await Console(page).open(f"{site.url}#s={rivers['loire']}")
    second = await Console(await browser_context.new_page()).open(f"{site.url}#s={rivers['loire']}")
    entry = first.page.locator("#session-list li", has=first.page.locator(f'[data-session-id="{rivers["loire"]}"]'))
    await entry.hover()
    await entry.get_by_test_id("delete-session").click()
    # A question first, and the harmless answer is the one at hand.
    await expect(page.get_by_test_id("delete-name")).to_have_text("Which is the longest?")
    await expect(page.get_by_test_id("delete-cancel")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("delete-dialog")).to_be_hidden()
    await expect(first.sessions).to_have_count(3)
    await entry.get_by_test_id("delete-session").click()
    await page.get_by_test_id("delete-confirm").click()
    # Here the next one lies on the desk, and there it is said.
    await expect(page.get_by_test_id("session-id")).to_have_text(rivers["castles"])
    await first.connected()
    await expect(first.sessions).to_have_count(2)
    await expect(first.notice).to_be_hidden()
    await expect(second.notice).to_contain_text("This session was deleted.")
    await expect(second.sessions).to_have_count(2)
    await expect(second.composer).to_be_disabled()
    await second.page.get_by_role("button", name="New session").last.click()
    await second.connected()
    await second.say("echo on we go")
    await second.answered("on we go")


async def test_a_session_is_deleted_by_keyboard(page: Page, site: Site, rivers: dict[str, str]) -> None:
    console = await Console(page).open(f"{site.url}#s={rivers['castles']}")
    await console.search.press("ArrowDown")
    await console.sessions.first.press("ArrowDown")
    await console.sessions.nth(1).press("Delete")
    await expect(page.get_by_test_id("delete-name")).to_have_text("Which is the longest?")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(console.sessions).to_have_count(2)
    await expect(page.get_by_test_id("session-id")).to_have_text(rivers["castles"])


async def test_the_current_session_is_deleted_from_its_title(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    only = await console.session_id()
    await page.get_by_test_id("about-open").click()
    await page.get_by_test_id("delete-current").click()
    await page.get_by_test_id("delete-confirm").click()
    await expect(page.get_by_test_id("session-id")).not_to_have_text(only)
    await console.connected()
    await expect(console.sessions).to_have_count(1)


async def test_a_draft_waits_in_its_session(page: Page, site: Site, rivers: dict[str, str]) -> None:
    console = await Console(page).open(f"{site.url}#s={rivers['seine']}")
    await console.composer.fill("half a thou")
    await console.sessions.first.click()
    await expect(page.get_by_test_id("session-id")).to_have_text(rivers["castles"])
    await expect(console.composer).to_have_value("")
    await page.go_back()
    await expect(console.composer).to_have_value("half a thou")
    await page.reload()
    await expect(console.composer).to_have_value("half a thou")
    await console.say("echo sent")
    await console.complete(answers=2)
    await page.reload()
    await console.connected()
    await expect(console.composer).to_have_value("")
