"""The page at `/` against the real server: what it shows, and that neither transport nor reload changes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, WebSocketRoute, expect

from tests.browser.console import BROKEN_WEBSOCKETS, Console, break_websockets, counted
from tests.browser.site import Site

SCREENSHOTS = Path(__file__).parent / "screenshots"

TRANSPORTS = pytest.mark.parametrize("websocket", ["works", *BROKEN_WEBSOCKETS])


async def _prepare(context: BrowserContext, websocket: str) -> str:
    """Break WebSocket as asked; returns what the page will call its transport."""
    if websocket == "works":
        return "websocket"
    await break_websockets(context, websocket)
    return "sse"


@pytest.mark.feature("T01", "A01", "E02")
@TRANSPORTS
async def test_regression_23_an_answer_grows_as_it_is_written(
    browser_context: BrowserContext, page: Page, site: Site, websocket: str
) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if "Security Policy" in message.text else None)
    transport = await _prepare(browser_context, websocket)
    console = await Console(page).open(site.url)
    await expect(console.transport).to_have_attribute("data-transport", transport)
    await console.watch_lengths()
    await console.say("count to 1000 at 40 per second")
    await console.growing(8)
    await console.writing(counted(10))
    site.hurry()
    await console.answered(counted(1000))
    lengths = await console.lengths()
    assert lengths == sorted(lengths), "the text never shrinks"
    assert not complaints


@pytest.mark.feature("T02", "E02")
@pytest.mark.parametrize("websocket", ["works", "constructor throws"])
async def test_regression_06_a_reload_in_the_middle_shows_the_whole_answer_once(
    browser_context: BrowserContext, page: Page, site: Site, websocket: str
) -> None:
    await _prepare(browser_context, websocket)
    console = await Console(page).open(site.url)
    await console.say("count to 1000 at 40 per second")
    await console.writing(" 15 ")
    await page.reload()
    await console.writing(counted(15))
    site.hurry()
    await console.answered(counted(1000))
    await expect(console.questions).to_have_count(1)
    await page.reload()
    await console.answered(counted(1000))


@pytest.mark.feature("T01", "T02", "E02")
async def test_regression_28_the_transport_changes_in_the_middle_of_an_answer(page: Page, site: Site) -> None:
    cuts = 0

    def cut_after_some_text(client: WebSocketRoute) -> None:
        server = client.connect_to_server()
        heard = 0

        async def pass_on(message: str | bytes) -> None:
            nonlocal heard, cuts
            client.send(message)
            heard += str(message).count("message_delta")
            if heard >= 5:
                heard, cuts = -1_000_000, cuts + 1
                await client.close(code=1001, reason="proxy")

        server.on_message(pass_on)

    await page.route_web_socket(re.compile("/ws"), cut_after_some_text)
    console = await Console(page).open(site.url)
    await expect(console.transport).to_have_attribute("data-transport", "websocket")
    await console.watch_lengths()
    await console.say("count to 1000 at 30 per second")
    await expect(console.transport).to_have_attribute("data-transport", "sse")
    await console.connected()
    await console.writing(counted(10))
    site.hurry()
    await console.answered(counted(1000))
    await expect(console.questions).to_have_count(1)
    lengths = await console.lengths()
    assert lengths == sorted(lengths)
    assert cuts == 3


@pytest.mark.feature("T02", "E02")
async def test_a_second_tab_shows_the_same(browser_context: BrowserContext, page: Page, site: Site) -> None:
    first = await Console(page).open(site.url)
    await first.say("count to 1000 at 40 per second")
    await first.writing(" 5 ")
    second = await Console(await browser_context.new_page()).open(page.url)
    assert await second.session_id() == await first.session_id()
    await second.writing(counted(5))
    site.hurry()
    for console in (first, second):
        await console.answered(counted(1000))
    await second.say("echo back")
    await first.answered("back", answers=2)
    await second.answered("back", answers=2)


@pytest.mark.feature("T02", "E02")
@pytest.mark.parametrize("websocket", ["works", "constructor throws"])
async def test_regression_06_a_server_that_restarts_doubles_nothing(
    browser_context: BrowserContext, page: Page, site: Site, websocket: str
) -> None:
    await _prepare(browser_context, websocket)
    console = await Console(page).open(site.url)
    await console.say("echo before")
    await console.answered("before")
    await site.stop()
    await expect(console.state).to_have_attribute("data-state", "reconnecting")
    await console.say("echo after")  # kept until somebody takes it
    await expect(console.waiting).to_have_count(1)
    await site.start()
    await console.connected()
    await console.answered("after", answers=2)
    await expect(console.questions).to_have_count(2)
    await expect(console.waiting).to_have_count(0)


@pytest.mark.feature("A04", "E02")
@pytest.mark.parametrize("by", ["button", "Escape"])
async def test_a_running_answer_can_be_stopped(page: Page, site: Site, by: Literal["button", "Escape"]) -> None:
    console = await Console(page).open(site.url)
    await expect(console.stop).to_be_hidden()
    await console.say("count to 2000 at 40 per second")
    await console.writing(" 5 ")
    if by == "button":
        await console.stop.click()
    else:
        await page.keyboard.press("Escape")
    await expect(console.answers).to_have_attribute("data-done", "true")
    await expect(console.answers).to_contain_text("cancelled")
    await expect(console.stop).to_be_hidden()
    text = await console.text(console.answers).text_content()
    assert text
    assert counted(2000).startswith(text)
    await console.say("echo still here")
    await console.answered("still here", answers=2)


@pytest.mark.feature("A04")
async def test_a_message_sent_meanwhile_waits_for_its_turn(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await console.say("count to 1000 at 30 per second")
    await console.writing(" 5 ")
    await console.say("echo second")
    await expect(console.waiting).to_have_text(re.compile("echo second"))
    await expect(page.get_by_test_id("queue-length")).to_have_text("1")
    site.hurry()
    await console.answered("second", answers=2)
    await expect(console.waiting).to_have_count(0)
    assert await console.text(console.answers.first).text_content() == counted(1000)


@pytest.mark.parametrize(
    "hostile",
    [
        '<img src=x onerror="globalThis.broken=1">',
        "<script>globalThis.broken=1</script>",
        '</div><svg onload="globalThis.broken=1">',
    ],
)
async def test_a_script_in_a_message_is_text(page: Page, site: Site, hostile: str) -> None:
    console = await Console(page).open(site.url)
    await console.say(f"echo {hostile}")
    await console.answered(hostile)
    assert await console.text(console.questions).text_content() == f"echo {hostile}"
    assert await page.locator("#messages .text :is(img, script, svg)").count() == 0
    assert await page.evaluate("globalThis.broken") is None
    # Also where events and sessions are listed.
    await page.get_by_test_id("log-toggle").click()
    await expect(page.get_by_test_id("log")).to_contain_text("echo <")
    assert await page.locator("#log :is(img, script, svg)").count() == 0


async def test_enter_sends_and_shift_enter_breaks_the_line(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await console.composer.type("echo one")
    await console.composer.press("Shift+Enter")
    await console.composer.type("  two")
    await expect(console.questions).to_have_count(0)
    await console.composer.press("Enter")
    # A person's text is shown as it was written, an agent's is Markdown, in which a line break is one all the same.
    assert await console.text(console.questions).inner_text() == "echo one\n  two"
    await console.answered("onetwo")
    assert await console.text(console.answers).inner_text() == "one\ntwo"
    await expect(console.composer).to_have_value("")


@pytest.mark.feature("A05")
async def test_the_agent_is_chosen_for_everybody_on_the_session(
    browser_context: BrowserContext, page: Page, site: Site
) -> None:
    first = await Console(page).open(site.url)
    second = await Console(await browser_context.new_page()).open(page.url)
    await first.agent.select_option("coder")
    await expect(second.agent).to_have_value("coder")
    await second.say("echo hello")
    await expect(first.answers.locator(".who")).to_have_text(re.compile("coder", re.IGNORECASE))


async def test_sessions_are_made_listed_and_come_back_to(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    first = await console.session_id()
    await console.say("echo in the first")
    await console.answered("in the first")
    await page.get_by_test_id("new-session").click()
    await expect(page.get_by_test_id("session-id")).not_to_have_text(first)
    await console.connected()
    second = await console.session_id()
    await expect(console.messages).to_have_count(0)
    await expect(page.locator(f'[data-session-id="{first}"]')).to_be_visible()
    await expect(page.locator(f'[data-session-id="{second}"][aria-current="true"]')).to_be_visible()
    await page.locator(f'[data-session-id="{first}"]').click()
    await console.answered("in the first")
    await console.open(site.url)
    assert await console.session_id() == first, "the page comes back to the session of the last visit"
    await expect(page.get_by_test_id("command-tail")).to_have_text(f"parley tail {first} --url {site.url.rstrip('/')}")


async def test_the_log_shows_the_events_behind_the_page(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await page.get_by_test_id("log-toggle").click()
    await console.say("count to 30 at 60 per second")
    await console.answered(counted(30))
    lines = page.get_by_test_id("log-line")
    await expect(lines.filter(has_text="task_completed")).to_have_count(1)
    types = await lines.evaluate_all("lines => lines.map((line) => line.dataset.type)")
    assert types[:2] == ["connected", "sync"]
    durable = [kind for kind in types if kind in {"message_created", "task_started", "task_completed"}]
    assert durable == ["message_created", "task_started", "message_created", "task_completed"]
    assert "message_delta" in types
    numbers = await lines.locator(".seq").all_inner_texts()
    assert [number for number in numbers if number] == [str(n + 1) for n in range(len([n for n in numbers if n]))]
    await expect(page.get_by_test_id("announcer")).to_have_text(counted(30))


async def test_a_session_that_is_gone_is_said_to_be(page: Page, site: Site) -> None:
    console = Console(page)
    await page.goto(f"{site.url}#s=00000000-0000-7000-8000-000000000000")
    await expect(console.state).to_have_attribute("data-state", "closed")
    await expect(console.notice).to_contain_text("no such session")


@pytest.mark.feature("R01", "E03")
@pytest.mark.parametrize("websocket", ["works", "constructor throws"])
async def test_regression_10_with_a_token_streams_are_read_by_fetch_or_websocket(
    browser_context: BrowserContext, page: Page, guarded_site: Site, websocket: str
) -> None:
    transport = await _prepare(browser_context, websocket)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("websocket", lambda socket: addresses.append(socket.url))
    console = Console(page)
    await page.goto(guarded_site.url)
    for token in ("not-this-one-at-all", guarded_site.token):
        await page.get_by_test_id("token-input").fill(token)
        await page.get_by_test_id("token-submit").click()
    await console.connected()
    await expect(console.transport).to_have_attribute("data-transport", transport)
    many_bytes = "😀 文字 ünï " * 300
    await console.say(f"echo {many_bytes}end")
    await console.answered(f"{many_bytes}end")
    assert not [address for address in addresses if guarded_site.token in address]
    # No script can read what the browser remembers of it.
    kept = await page.evaluate("JSON.stringify([{ ...sessionStorage }, { ...localStorage }, document.cookie])")
    assert guarded_site.token not in kept
    await page.reload()
    await console.answered(f"{many_bytes}end")
    await page.get_by_test_id("about-open").click()
    await expect(page.get_by_test_id("user")).to_have_text("reader")
    await page.get_by_test_id("sign-out").click()
    await expect(page.get_by_test_id("token-dialog")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 780)], ids=["desk", "phone"])
async def test_the_page_fits_its_window(
    browser: Browser, site: Site, scheme: Literal["light", "dark"], width: int, height: int
) -> None:
    context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
    page = await context.new_page()
    console = await Console(page).open(site.url)
    await console.say("show markdown")
    await expect(console.answers).to_have_attribute("data-done", "true")
    await console.say("count to 2000 at 60 per second")
    await console.writing(" 40 ")
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    for control in (console.composer, console.stop, page.get_by_test_id("send")):
        await expect(control).to_be_in_viewport(ratio=1)
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in re.findall(r"\d+", ground)[:3])
    assert (brightness > 384) == (scheme == "light")
    await page.screenshot(path=SCREENSHOTS / f"{scheme}-{width}.png")
    await context.close()


@pytest.mark.feature("R01", "E03")
async def test_a_browser_that_keeps_no_cookies_keeps_the_token_in_its_tab(
    browser_context: BrowserContext, page: Page, guarded_site: Site
) -> None:
    async def without_cookies(route: Route) -> None:
        if route.request.method == "POST":
            await route.fulfill(json={"user_id": "reader", "kind": "login", "scope": "all", "expires_at": None})
        else:
            await route.continue_()

    await browser_context.route("**/auth/login", without_cookies)
    console = Console(page)
    await page.goto(guarded_site.url)
    await page.get_by_test_id("token-input").fill(guarded_site.token)
    await page.get_by_test_id("token-submit").click()
    await console.connected()
    await page.reload()
    await console.connected()
    await expect(page.get_by_test_id("token-dialog")).to_be_hidden()
    assert guarded_site.token in await page.evaluate("JSON.stringify({ ...sessionStorage })")


@pytest.mark.feature("T01", "E02", "S36")
async def test_regression_39_many_tabs_without_websockets_hang_nothing(
    browser_context: BrowserContext, page: Page, site: Site
) -> None:
    await break_websockets(browser_context, "constructor throws")
    consoles = [await Console(page).open(site.url)]
    consoles += [await Console(await browser_context.new_page()).open(page.url) for _ in range(3)]
    waiting = Console(await browser_context.new_page())
    await waiting.page.goto(page.url)
    await expect(waiting.state).to_have_attribute("title", re.compile("other tabs hold all event streams"))
    # There is a connection left for what the others ask and say.
    await consoles[1].say("echo hello")
    for console in consoles:
        await console.answered("hello")
    await expect(waiting.sessions).to_have_count(1)
    await consoles[2].page.close()
    await waiting.answered("hello")
