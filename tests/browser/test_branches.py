"""Going on from the middle: a session is never changed, another one begins as its copy."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.console import Console
from tests.browser.workshop import Workshop


async def _elsewhere(page: Page, console: Console, former: str) -> None:
    """Wait until another session is on the page."""
    await page.wait_for_function("former => !location.hash.includes(former)", arg=former)
    await console.connected()


async def _talked(page: Page, workshop: Workshop) -> tuple[Console, str]:
    console = await Console(page).open(workshop.url)
    await console.say("one")
    await console.complete()
    await console.say("two")
    await console.complete(answers=2)
    return console, await console.session_id()


@pytest.mark.feature("E03", "A08")
async def test_a_session_is_branched_at_a_message(page: Page, workshop: Workshop) -> None:
    console, former = await _talked(page, workshop)
    await console.answers.first.get_by_test_id("fork").click()
    await _elsewhere(page, console, former)
    await expect(console.messages.get_by_test_id("message-text")).to_have_text(["one", "You said: one"])
    await console.say("three")
    await console.complete(answers=2)
    await page.go_back()
    await expect(console.questions.get_by_test_id("message-text")).to_have_text(["one", "two"])


@pytest.mark.feature("E03", "A08")
async def test_the_last_turn_is_tried_again(page: Page, workshop: Workshop) -> None:
    console, former = await _talked(page, workshop)
    await expect(console.answers.first.get_by_test_id("retry-turn")).to_be_hidden()
    await console.answers.last.get_by_test_id("retry-turn").click()
    await _elsewhere(page, console, former)
    await console.complete(answers=2)
    await expect(console.questions.get_by_test_id("message-text")).to_have_text(["one", "two"])


@pytest.mark.feature("E03", "A08")
async def test_a_message_is_said_otherwise(page: Page, workshop: Workshop) -> None:
    console, former = await _talked(page, workshop)
    await console.questions.last.get_by_test_id("edit-message").click()
    editor = page.get_by_test_id("message-editor")
    await expect(editor).to_be_focused()
    await expect(editor).to_have_value("two")
    await expect(page.get_by_test_id("send-message-edit")).to_be_disabled()
    await page.keyboard.press("Escape")
    await expect(editor).to_have_count(0)
    await expect(console.questions.last.get_by_test_id("edit-message")).to_be_focused()
    await page.keyboard.press("Enter")
    await editor.fill("three")
    await page.keyboard.press("Enter")
    await _elsewhere(page, console, former)
    await console.complete(answers=2)
    await expect(console.questions.get_by_test_id("message-text")).to_have_text(["one", "three"])
    await expect(console.text(console.answers.last)).to_have_text("You said: three")
