"""The page as a whole: themes, keys, sheets on a phone, long sessions, and colours that can be read."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, Page, ViewportSize, expect

from tests.browser.console import Console
from tests.browser.seeding import past
from tests.browser.site import Site

ANSWER = """## Part {n}

Some **prose** with `code`, a [link](https://example.org/) and enough words to fill a line or two of the page.

- one with *emphasis*
- two

| a | b |
|---|---|
| 1 | {n} |

```python
def answer(x):
    return x + {n}  # and so on
```
"""


@pytest.fixture
async def phone(browser: Browser) -> AsyncIterator[Page]:
    """A page on a phone; its sheets are there at once."""
    size: ViewportSize = {"width": 390, "height": 780}
    context = await browser.new_context(viewport=size, has_touch=True, reduced_motion="reduce")
    yield await context.new_page()
    await context.close()


# --- themes


async def _ground(page: Page) -> int:
    """How bright the page is, up to 765."""
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", ground)[:3])


async def test_a_theme_is_chosen_and_remembered(page: Page, site: Site) -> None:
    await page.emulate_media(color_scheme="light")
    console = await Console(page).open(site.url)
    themes = page.get_by_test_id("themes")
    assert await _ground(page) > 600
    await themes.get_by_label("Dark").check(force=True)
    assert await _ground(page) < 200
    # From the very first moment of the next visit, and in other tabs at once.
    await page.add_init_script(
        "new MutationObserver(() => { globalThis.first ??= document.body && document.documentElement.dataset.theme; })"
        ".observe(document, { subtree: true, childList: true })"
    )
    other = await Console(await page.context.new_page()).open(site.url)
    await page.reload()
    await console.connected()
    assert await page.evaluate("globalThis.first") == "dark"
    assert await _ground(page) < 200
    await expect(themes.get_by_label("Dark")).to_be_checked()
    await themes.get_by_label("Dark").press("ArrowLeft")
    await expect(themes.get_by_label("Light")).to_be_checked()
    await expect(other.page.locator("html")).to_have_attribute("data-theme", "light")
    await themes.get_by_label("System").check(force=True)
    await page.emulate_media(color_scheme="dark")
    assert await _ground(page) < 200


#: The contrast of each text with what lies behind it (WCAG 2.2, 1.4.3), where it is less than it should be.
FAINT = """
() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+(?=[\\s,/)%])/g).map(Number);
    return text.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (color) => {
    const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest(":disabled, noscript, .out-of-sight, .skip")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ground = behind(element);
    const [a, b] = [light(over(parse(style.color), ground)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)} ${element.className} ${node.data.slice(0, 30)}`);
  }
  return faint;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everything_can_be_read(page: Page, site: Site, scheme: Literal["light", "dark"]) -> None:
    await page.emulate_media(color_scheme=scheme)
    console = await Console(page).open(site.url)
    assert await page.evaluate(FAINT) == []
    await console.say("show markdown")
    await console.complete()
    await console.say("calculate 1/0 and calculate 2+2")
    await console.complete(answers=3)
    await console.say("fail")
    await expect(console.notice).to_be_visible()
    await console.search.fill("markdown")
    await expect(page.locator("#session-list mark").first).to_be_visible()
    for panel in ("log-toggle", "agents-toggle"):
        await page.get_by_test_id(panel).click()
        assert await page.evaluate(FAINT) == []
    await page.get_by_test_id("help-open").click()
    assert await page.evaluate(FAINT) == []


# --- keys


async def test_keys_lead_everywhere(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    first = await console.session_id()
    await expect(console.composer).to_be_focused()
    # In the message box they are letters.
    await page.keyboard.type("nae?/")
    await expect(console.composer).to_have_value("nae?/")
    await expect(page.get_by_test_id("inspector")).to_be_hidden()
    await console.composer.fill("")
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("scroll")).to_be_focused()
    await page.keyboard.press("?")
    await expect(page.get_by_test_id("help-dialog")).to_contain_text("search the sessions")
    await page.keyboard.press("e")  # not while a dialog is open
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("help-dialog")).to_be_hidden()
    await expect(page.get_by_test_id("inspector")).to_be_hidden()
    for key, panel in (("e", "log-panel"), ("a", "agents-panel")):
        await page.keyboard.press(key)
        await expect(page.get_by_test_id(panel)).to_be_visible()
    await page.keyboard.press("a")
    await expect(page.get_by_test_id("inspector")).to_be_hidden()
    await page.keyboard.press("i")
    await expect(console.composer).to_be_focused()
    # A session in which nothing was said yet is new enough.
    await page.keyboard.press("Escape")
    await page.keyboard.press("n")
    await expect(console.composer).to_be_focused()
    await expect(page.get_by_test_id("session-id")).to_have_text(first)
    await console.say("echo hello")
    await console.complete()
    await page.keyboard.press("Escape")
    await page.keyboard.press("n")
    await expect(page.get_by_test_id("session-id")).not_to_have_text(first)
    await expect(console.composer).to_be_focused()


async def test_single_keys_can_be_switched_off(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await page.get_by_test_id("help-open").click()
    await page.get_by_test_id("single-keys").uncheck()
    await page.get_by_test_id("help-close").click()
    await page.reload()
    await console.connected()
    await page.get_by_test_id("scroll").focus()
    for key in ("e", "/", "?", "n"):
        await page.keyboard.press(key)
    await expect(page.get_by_test_id("scroll")).to_be_focused()
    await expect(page.get_by_test_id("inspector")).to_be_hidden()
    await page.keyboard.press("Control+k")
    await expect(console.search).to_be_focused()


async def test_every_control_has_a_name_and_can_be_reached(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await console.say("show code")
    await console.complete()
    await page.get_by_test_id("log-toggle").click()
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, select, textarea, [tabindex='0']")].filter((e) =>
            e.checkVisibility() && !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length)
        ).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    await page.locator(".skip").focus()
    reached: list[str] = []
    for _ in range(60):
        await page.keyboard.press("Tab")
        reached.append(await console.focused())
        if reached[-1] == "body":
            break
    order = ["new-session", "search", "session", "help-open", "about-open", "log-toggle", "scroll", "composer", "log"]
    assert [place for place in reached if place in order] == order


# --- sheets


@pytest.mark.feature("E03")
async def test_on_a_phone_the_rooms_are_sheets(phone: Page, site: Site) -> None:
    console = await Console(phone).open(site.url)
    sheet = phone.get_by_test_id("sessions-panel")
    await expect(sheet).to_be_hidden()
    for toggle, room, inside in (
        ("sessions-toggle", "sessions-panel", "new-session"),
        ("log-toggle", "inspector", "tab-log"),
        ("agents-toggle", "inspector", "tab-agents"),
    ):
        await phone.get_by_test_id(toggle).click()
        await expect(phone.get_by_test_id(room)).to_be_visible()
        await expect(phone.get_by_test_id(inside)).to_be_focused()
        # The focus goes round in it; `body` is the browser's own part of the round.
        for _ in range(25):
            await phone.keyboard.press("Tab")
            stays = await phone.evaluate(
                "room => document.activeElement === document.body "
                "|| document.querySelector(`[data-testid=${room}]`).contains(document.activeElement)",
                room,
            )
            assert stays, await console.focused()
        await phone.keyboard.press("Escape")
        await expect(phone.get_by_test_id(room)).to_be_hidden()
        await expect(phone.get_by_test_id(toggle)).to_be_focused()
    # Beside a sheet is out of it.
    await phone.get_by_test_id("sessions-toggle").click()
    await phone.mouse.click(380, 400)
    await expect(sheet).to_be_hidden()
    await phone.get_by_test_id("sessions-toggle").click()
    await phone.get_by_test_id("new-session").click()
    await expect(sheet).to_be_hidden()
    await console.connected()


@pytest.mark.parametrize("width", [390, 320])
async def test_nothing_overlaps_on_a_phone(phone: Page, site: Site, width: int) -> None:
    await phone.set_viewport_size({"width": width, "height": 640})
    console = await Console(phone).open(site.url)
    await console.say("show markdown")
    await console.complete()
    await console.say("calculate 6*7")
    await console.complete(answers=3)
    for toggle in ("sessions-toggle", "log-toggle", "agents-toggle", "decisions-toggle", "about-open"):
        await phone.get_by_test_id(toggle).click()
        assert await phone.evaluate(OVERLAPS) == []
        assert await phone.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        await phone.keyboard.press("Escape")
    assert await phone.evaluate(OVERLAPS) == []


#: Controls that lie over each other or beyond the window, of those that a finger can reach.
OVERLAPS = """
() => {
  const seen = (element) => {
    let { left, right, top, bottom } = element.getBoundingClientRect();
    for (let room = element.parentElement; room; room = room.parentElement) {
      if (getComputedStyle(room).overflowY === "visible") continue;
      const clip = room.getBoundingClientRect();
      [top, bottom] = [Math.max(top, clip.top), Math.min(bottom, clip.bottom)];
    }
    return { left, right, top, bottom };
  };
  const all = [...document.querySelectorAll("button, a, input:not([type=radio]), select, textarea")]
    .filter((e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
    .filter((e) => !e.closest("[inert], .skip"))
    .map((e) => [e, seen(e)])
    .filter(([e, box]) => {
      const hit = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
      return hit && box.bottom > box.top && (e.contains(hit) || hit.contains(e));
    });
  const wrong = all.filter(([, box]) => box.left < -0.5 || box.right > innerWidth + 0.5).map(([e]) => e.outerHTML);
  for (const [a, p] of all) {
    for (const [b, q] of all) {
      if (a === b || a.contains(b) || b.contains(a)) continue;
      if (a.closest("li") && a.closest("li") === b.closest("li")) continue; // a row keeps room for its button
      if (a.closest("[popover]") !== b.closest("[popover]")) continue; // what pops up lies over the page
      if (a.matches(".jump") || b.matches(".jump")) continue; // it floats over what is scrolled below it
      const width = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const height = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (width > 1 && height > 1) wrong.push(`${a.outerHTML.slice(0, 80)} over ${b.outerHTML.slice(0, 80)}`);
    }
  }
  return wrong;
}
"""


# --- reading


async def test_who_scrolls_up_is_left_in_peace_and_led_back(page: Page, site: Site) -> None:
    session = await past(site.server, [f"word {n} " * 40 for n in range(30)])
    console = await Console(page).open(f"{site.url}#s={session}")
    scroll, jump = page.get_by_test_id("scroll"), page.get_by_test_id("jump")
    await expect(console.messages.last).to_be_in_viewport()
    await expect(jump).to_be_hidden()
    await console.say("write 3000 words about rivers at 200 per second")
    await console.writing("rivers")
    await scroll.evaluate("node => { node.scrollTop -= 1500; }")
    await expect(jump).to_be_visible()
    await expect(jump).to_have_attribute("data-news", "true")
    # It grows on below, and nothing moves here.
    place = await scroll.evaluate("node => node.scrollTop")
    length = len(await console.text(console.answers.last).text_content() or "")
    await expect(console.text(console.answers.last)).not_to_have_text(re.compile(f"^.{{0,{length + 400}}}$", re.DOTALL))
    assert await scroll.evaluate("node => node.scrollTop") == pytest.approx(place, abs=2)
    site.hurry()
    await console.complete(answers=16)
    await jump.click()
    await expect(jump).to_be_hidden()
    distance = "node => node.scrollHeight - node.scrollTop - node.clientHeight"
    assert await scroll.evaluate(distance) < 50
    # And it follows again.
    await console.say("write 500 words about trees")
    await console.complete(answers=17)
    assert await scroll.evaluate(distance) < 50


@pytest.mark.feature("E03")
async def test_a_long_session_opens_at_its_end_and_dresses_the_rest_meanwhile(page: Page, site: Site) -> None:
    count = 1000
    session = await past(site.server, [ANSWER.format(n=n) if n % 2 else f"question {n}" for n in range(count)])
    # How much of the Markdown was there when the end of the session came to be on the page.
    await page.add_init_script(
        """new MutationObserver(() => {
            if (globalThis.plain === undefined && document.querySelectorAll(".message").length === 1000) {
              globalThis.plain = document.querySelectorAll(".prose.plain").length;
            }
        }).observe(document, { subtree: true, childList: true })"""
    )
    console = await Console(page).open(f"{site.url}#s={session}")
    await expect(console.messages.last).to_be_in_viewport()
    await expect(console.answers.last.locator("table")).to_be_visible()
    assert await page.evaluate("globalThis.plain") > 100
    await expect(page.locator(".prose.plain")).to_have_count(0)
    await expect(console.answers).to_have_count(count // 2)
    assert await page.locator(".prose table").count() == count // 2
    # What was dressed above has moved nothing.
    await expect(console.messages.last).to_be_in_viewport()
    await console.say("echo still quick")
    await console.answered("still quick", answers=count // 2 + 1)
    await expect(console.answers.last).to_be_in_viewport()


async def test_motion_is_left_out_for_those_who_want_none(page: Page, site: Site) -> None:
    await page.emulate_media(reduced_motion="reduce")
    console = await Console(page).open(site.url)
    await console.say("count to 1000 at 20 per second")
    await console.writing("3")
    running: Any = await page.evaluate("document.getAnimations().length")
    assert running == 0
    site.hurry()
    await console.complete()
