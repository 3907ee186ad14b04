"""Beside the conversation: who can answer, and the events behind what is shown."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.console import Console
from tests.browser.site import Site


@pytest.mark.feature("E03", "S19", "A05")
async def test_agents_are_described_and_chosen(browser_context: BrowserContext, page: Page, site: Site) -> None:
    first = await Console(page).open(site.url)
    second = await Console(await browser_context.new_page()).open(page.url)
    for console in (first, second):
        await console.composer.press("Escape")
        await console.page.keyboard.press("a")
        await expect(console.page.get_by_test_id("agents-panel")).to_be_visible()
    cards = page.get_by_test_id("agent-card")
    await expect(cards).to_have_count(7)
    current = page.locator('[data-testid="agent-card"][aria-pressed="true"]')
    await expect(current).to_contain_text("Offline")
    await expect(current).to_contain_text("answers here")
    await expect(current).to_contain_text("all tools")
    await expect(cards.filter(has_text="Architect")).to_contain_text("certain files only")
    # By keyboard, and the focus stays where it is.
    await cards.filter(has_text="Coder").focus()
    await page.keyboard.press("Enter")
    for console in (first, second):
        chosen = console.page.locator('[data-testid="agent-card"][aria-pressed="true"]')
        await expect(chosen).to_contain_text("Writes and changes code")
        await expect(chosen.locator(".chip").first).to_have_text("read_file")
        await expect(console.agent).to_have_value("coder")
    await expect(cards.filter(has_text="Coder")).to_be_focused()
    # The choice beside the message box says the same.
    await second.agent.select_option("debug")
    await expect(current).to_contain_text("Debug")


async def test_tabs_go_by_arrow_keys(page: Page, site: Site) -> None:
    await Console(page).open(site.url)
    await page.get_by_test_id("log-toggle").click()
    await page.get_by_test_id("tab-log").focus()
    await page.keyboard.press("ArrowLeft")
    await expect(page.get_by_test_id("tab-audit")).to_be_focused()
    await page.keyboard.press("Home")
    await expect(page.get_by_test_id("tab-decisions")).to_be_focused()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_test_id("tab-agents")).to_be_focused()
    await expect(page.get_by_test_id("agents-panel")).to_be_visible()
    await expect(page.get_by_test_id("agents-toggle")).to_have_attribute("aria-expanded", "true")
    await expect(page.get_by_test_id("log-toggle")).to_have_attribute("aria-expanded", "false")
    await page.keyboard.press("Tab")
    await expect(page.get_by_test_id("inspector-close")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("inspector")).to_be_hidden()


@pytest.mark.feature("E03")
async def test_events_are_filtered_opened_and_copied(browser_context: BrowserContext, page: Page, site: Site) -> None:
    await browser_context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
    console = await Console(page).open(site.url)
    await console.say("echo <b>needle</b>")
    await console.complete()
    await page.get_by_test_id("log-toggle").click()
    kinds = page.locator("#log-kinds")

    async def types() -> list[str]:
        found: list[str] = await console.lines.evaluate_all("lines => lines.map((line) => line.dataset.type)")
        return found

    await kinds.get_by_text("Durable").click()
    await expect(console.lines).to_have_count(4)
    assert await types() == ["message_created", "task_started", "message_created", "task_completed"]
    await expect(page.get_by_test_id("log-count")).to_contain_text("4 of ")
    await kinds.get_by_text("Deltas").click()
    await expect(console.lines.first).to_have_attribute("data-type", "message_delta")
    await kinds.get_by_text("Control").click()
    await expect(console.lines.first).to_have_attribute("data-type", "connected")
    assert "message_created" not in await types()
    await kinds.get_by_text("All").click()
    await page.get_by_test_id("log-filter").fill("NEEDLE</b>")
    # The question, the pieces of the answer, and the answer.
    await expect(console.lines.last).to_have_attribute("data-type", "message_created")
    assert set(await types()) <= {"message_created", "message_delta"}
    await page.get_by_test_id("log-filter").fill("task_comp")
    await expect(console.lines).to_have_count(1)

    await console.lines.locator("summary").focus()
    await page.keyboard.press("Enter")
    payload = page.get_by_test_id("log-payload")
    text = await payload.inner_text()
    event = json.loads(text)
    assert event["event_type"] == "task_completed"
    assert event["payload"]["status"] == "completed"
    await page.get_by_test_id("log-copy").click()
    await console.copied(text)


async def test_a_paused_log_stands_still_and_misses_nothing(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await page.get_by_test_id("log-toggle").click()
    await console.say("echo one")
    await console.complete()
    await expect(console.lines.filter(has_text="task_completed")).to_have_count(1)
    pause = page.get_by_test_id("log-pause")
    await pause.click()
    await expect(pause).to_have_text("Resume")
    before = await console.log.inner_text()
    await console.say("echo two")
    await console.complete(answers=2)
    await expect(page.get_by_test_id("log-count")).to_contain_text("since the pause")
    assert await console.log.inner_text() == before
    await pause.click()
    await expect(console.lines.filter(has_text="task_completed")).to_have_count(2)
    await page.get_by_test_id("log-clear").click()
    await expect(console.lines).to_have_count(0)


async def test_the_log_stays_small_however_long_the_page_is_open(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await page.evaluate(
        """async () => {
            const { desk } = await import("/console/desk.js");
            for (let seq = 1; seq <= 5000; seq += 1) {
              const event = { event_type: "message_created", seq, payload: { content: "x".repeat(2000) } };
              desk.dispatchEvent(new CustomEvent("event", { detail: event }));
            }
        }"""
    )
    await page.get_by_test_id("log-toggle").click()
    await expect(console.lines).to_have_count(300)
    # A heartbeat may have come after it.
    await expect(console.lines.locator(".seq", has_text="5000")).to_have_count(1)
    await expect(page.get_by_test_id("log-count")).to_contain_text("older ones let go")
