"""What is said while a turn is running: it waits, and the queue can be changed; or it interrupts, or steers."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.console import Console
from tests.browser.workshop import Workshop, call


async def _holding(page: Page, workshop: Workshop, *texts: str) -> Console:
    """A console whose turn does not end by itself, and messages that wait."""
    console = await Console(page).open(workshop.url)
    await console.say("hold")
    await console.writing("Holding")
    for number, text in enumerate(texts, 1):
        await console.say(text)
        await expect(console.waiting).to_have_count(number)
        await expect(console.waiting.last.locator(".meta")).to_contain_text("queued")
    return console


async def _order(console: Console, *texts: str) -> None:
    await expect(console.waiting.locator(".text")).to_have_text(list(texts))


@pytest.mark.feature("E03", "A04")
async def test_the_queue_is_put_in_order_by_buttons_keys_and_pointer(page: Page, workshop: Workshop) -> None:
    console = await _holding(page, workshop, "one", "two", "three")
    await expect(console.waiting.first.get_by_test_id("queue-up")).to_be_disabled()
    await console.waiting.nth(2).get_by_test_id("queue-up").click()
    await _order(console, "one", "three", "two")
    # The focus goes along, so that the same key moves it further.
    await expect(console.waiting.nth(1).get_by_test_id("queue-up")).to_be_focused()
    await page.keyboard.press("Alt+ArrowUp")
    await _order(console, "three", "one", "two")
    last = console.waiting.nth(2)
    box = await last.bounding_box()
    assert box is not None
    await console.waiting.nth(0).locator(".text").drag_to(last, target_position={"x": 5, "y": box["height"] - 3})
    await _order(console, "one", "two", "three")
    workshop.release()
    await console.complete(answers=4)
    await expect(console.questions.locator(".text")).to_have_text(["hold", "one", "two", "three"])


@pytest.mark.feature("E03", "A04")
async def test_a_waiting_message_is_taken_back_or_sent_now(page: Page, workshop: Workshop) -> None:
    console = await _holding(page, workshop, "one", "two", "three")
    await console.waiting.nth(0).get_by_test_id("queue-remove").click()
    await _order(console, "two", "three")
    await expect(console.composer).to_have_value("one")
    await console.composer.fill("")
    await console.waiting.nth(1).get_by_test_id("queue-now").click()
    await console.complete(answers=3)
    await expect(console.questions.locator(".text")).to_have_text(["hold", "three", "two"])
    await expect(console.answers.first).to_contain_text("cancelled")


@pytest.mark.feature("E03", "A04")
async def test_a_message_interrupts_the_turn(page: Page, workshop: Workshop) -> None:
    console = await _holding(page, workshop, "later")
    await console.composer.fill("now")
    await console.composer.press("Control+Enter")
    await console.complete(answers=3)
    await expect(console.questions.locator(".text")).to_have_text(["hold", "now", "later"])


@pytest.mark.feature("E03", "A04")
async def test_a_message_steers_the_turn_at_its_next_step(page: Page, workshop: Workshop) -> None:
    console = await Console(page).open(workshop.url)
    await console.say(call("write_file", path="a", content=""))
    await page.get_by_test_id("on-busy").select_option("steer")
    await console.say("and quickly")
    await expect(console.waiting).to_contain_text("goes into the running turn")
    await page.get_by_test_id("respond").click()
    await page.get_by_test_id("feedback").fill("done")
    await page.get_by_test_id("send-respond").click()
    await console.complete(answers=2)
    await expect(console.waiting).to_have_count(0)
    await expect(console.text(console.answers.last)).to_have_text("You said: and quickly")
