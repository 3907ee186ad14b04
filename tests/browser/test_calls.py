"""Tool calls on the page: how far they are, what people decide about them, who runs them."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from storage.ids import new_id
from tests.browser.console import Console
from tests.browser.scenes import Scene
from tests.browser.seeding import told
from tests.browser.site import Site
from tests.browser.test_page import FAINT, OVERLAPS
from tests.browser.workshop import Editor, Workshop, call

WRITE: dict[str, Any] = {
    "name": "write_file",
    "description": "Writes a file",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string", "minLength": 1}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
}
READ: dict[str, Any] = {"name": "read_file", "parameters": {"type": "object"}, "read_only": True, "instead": "old\n"}


def card(page: Page, name: str) -> Locator:
    """The card of the last call of a tool."""
    return page.get_by_test_id("call").filter(has=page.locator(f'.call-name:text-is("{name}")')).last


async def _at_work(
    page: Page, context: BrowserContext, workshop: Workshop, *tools: dict[str, Any]
) -> tuple[Console, Editor]:
    """A console and an editor on the same session."""
    console = await Console(page).open(workshop.url)
    editor = Editor(await context.new_page())
    await editor.open(workshop.url, await console.session_id(), *tools)
    await page.bring_to_front()
    return console, editor


@pytest.mark.feature("E02", "E03", "A02", "A03", "T01", "T09", "S25", "S27")
@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_call_is_approved_here_and_run_there(
    browser_context: BrowserContext, page: Page, workshop: Workshop, transport: str
) -> None:
    console = await Console(page).open(workshop.url)
    editor = Editor(await browser_context.new_page())
    await editor.open(workshop.url, await console.session_id(), WRITE, transport=transport)
    await page.bring_to_front()
    await console.say(call("write_file", path="a.txt", content="one\ntwo\n"))
    write = card(page, "write_file")
    await expect(write).to_have_attribute("data-state", "approval")
    await expect(page.get_by_test_id("asked")).to_be_visible()
    await expect(page.get_by_test_id("decisions-badge")).to_have_text("1")
    assert await editor.page.evaluate("calls.length") == 0, "nothing runs before it is decided"
    await write.get_by_test_id("approve").click()
    await expect(write).to_have_attribute("data-state", "running")
    await expect(write).to_contain_text("Running at editor")
    assert (await editor.called())[0]["given"] == {"path": "a.txt", "content": "one\ntwo\n"}
    await editor.progress(fraction=0.5, message="half of it")
    await expect(write.locator("progress")).to_have_attribute("value", "0.5")
    await expect(write).to_contain_text("half of it")
    await editor.answer({"bytes": 8})
    await expect(write).to_have_attribute("data-state", "done")
    await console.complete(answers=2)
    await write.locator("summary").first.click()
    await expect(write.get_by_test_id("diff")).to_contain_text("two")
    await expect(write.get_by_test_id("decision")).to_contain_text("Approved by local, from this tab")
    await expect(write.locator("pre").last).to_contain_text('"bytes": 8')
    await expect(console.text(console.answers.last)).to_contain_text("Done:")
    await expect(page.get_by_test_id("asked")).to_be_hidden()
    await expect(page.get_by_test_id("decisions-badge")).to_be_hidden()


@pytest.mark.feature("E03", "A03")
async def test_regression_17_edited_arguments_are_checked_and_are_those_that_run(
    browser_context: BrowserContext, page: Page, workshop: Workshop
) -> None:
    console, editor = await _at_work(page, browser_context, workshop, WRITE)
    await console.say(call("write_file", path="a.txt", content="one\n"))
    write = card(page, "write_file")
    await write.get_by_test_id("edit").click()
    send = write.get_by_test_id("send-edit")
    path = write.locator('[data-field="path"]')
    await expect(path).to_be_focused()
    await expect(send).to_be_disabled()
    await path.fill("")
    await expect(write.get_by_test_id("editor-problems")).to_have_text("path must not be empty")
    await expect(path).to_have_attribute("aria-invalid", "true")
    await expect(send).to_be_disabled()
    await path.fill("b.txt")
    await expect(write.get_by_test_id("diff").last).to_contain_text("b.txt")
    # The same as JSON, where it can be made wrong in other ways.
    await write.get_by_text("JSON", exact=True).click()
    json = write.get_by_test_id("editor-json")
    assert '"b.txt"' in await json.input_value()
    await json.fill('{"path": "b.txt"')
    await expect(write.get_by_test_id("editor-problems")).to_contain_text("is no JSON")
    await expect(send).to_be_disabled()
    await json.fill('{"path": "b.txt", "content": 5}')
    await expect(write.get_by_test_id("editor-problems")).to_contain_text("content must be a text")
    await json.fill('{"path": "b.txt", "content": "two\\n"}')
    await send.click()
    assert (await editor.called())[0]["given"] == {"path": "b.txt", "content": "two\n"}
    await editor.answer("ok")
    await expect(write).to_have_attribute("data-state", "done")
    await write.locator("summary").first.click()
    await expect(write).to_contain_text("What a person changed")
    await expect(write.get_by_test_id("decision")).to_contain_text("Approved with changes")


@pytest.mark.feature("E03", "A03")
async def test_a_call_is_rejected_with_a_reason_or_answered_instead(
    browser_context: BrowserContext, page: Page, workshop: Workshop
) -> None:
    console, editor = await _at_work(page, browser_context, workshop, WRITE)
    await console.say("\n".join([call("write_file", path=name, content="") for name in ("a", "b")]))
    cards = page.get_by_test_id("call")
    await expect(page.locator("#asked-text")).to_have_text("2 tool calls wait for decisions.")
    first, second = cards.nth(0), cards.nth(1)
    # By keyboard: from outside of the message box to the question, and back out of it.
    await page.get_by_test_id("scroll").focus()
    await page.keyboard.press("w")
    await expect(first.get_by_test_id("approve")).to_be_focused()
    await first.get_by_test_id("reject").focus()
    await page.keyboard.press("Enter")
    await expect(first.get_by_test_id("feedback")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(first.get_by_test_id("approve")).to_be_focused()
    await first.get_by_test_id("reject").click()
    await first.get_by_test_id("feedback").fill("not there")
    await page.keyboard.press("Control+Enter")
    await expect(first).to_have_attribute("data-state", "rejected")
    await second.get_by_test_id("respond").click()
    await expect(second.get_by_test_id("send-respond")).to_be_disabled()
    await second.get_by_test_id("feedback").fill("it is there already")
    await second.get_by_test_id("send-respond").click()
    await console.complete(answers=2)
    await expect(console.text(console.answers.last)).to_contain_text("not there")
    await expect(console.text(console.answers.last)).to_contain_text("it is there already")
    await first.locator("summary").first.click()
    await expect(first.get_by_test_id("decision")).to_contain_text("Rejected by local, from this tab: not there")
    assert await editor.page.evaluate("calls.length") == 0


@pytest.mark.feature("E03", "A03")
async def test_the_first_decision_wins_and_everybody_sees_whose_it_was(
    browser_context: BrowserContext, page: Page, workshop: Workshop
) -> None:
    console = await Console(page).open(workshop.url)
    other = await Console(await browser_context.new_page()).open(page.url)
    await console.say(call("write_file", path="a", content=""))
    question = card(page, "write_file")
    await expect(question.get_by_test_id("approve")).to_be_visible()
    theirs = card(other.page, "write_file")
    await theirs.get_by_test_id("reject").click()
    await theirs.get_by_test_id("send-reject").click()
    await expect(question).to_have_attribute("data-state", "rejected")
    await expect(question.get_by_test_id("approval")).to_have_count(0)
    await question.locator("summary").first.click()
    await expect(question.get_by_test_id("decision")).to_contain_text("Rejected by local, from ")
    await expect(question.get_by_test_id("decision")).not_to_contain_text("this tab")


@pytest.mark.feature("E03", "A03", "S30")
async def test_always_becomes_a_rule_that_is_listed_and_revoked(
    browser_context: BrowserContext, page: Page, workshop: Workshop
) -> None:
    console, _ = await _at_work(page, browser_context, workshop, {**WRITE, "instead": "written"})
    await console.say(call("write_file", path="docs/a.md", content="x"))
    write = card(page, "write_file")
    await write.get_by_test_id("remember").select_option("session")
    await write.locator('[data-pattern="path"]').fill("docs/*")
    await write.locator('[data-pattern="content"]').fill("")
    await write.get_by_test_id("approve").click()
    await console.complete(answers=2)
    await console.say(call("write_file", path="docs/b.md", content="y"))
    await console.complete(answers=4)
    await expect(page.get_by_test_id("approval")).to_have_count(0)
    await page.get_by_test_id("decisions-toggle").click()
    rule = page.get_by_test_id("rule")
    await expect(rule).to_contain_text(re.compile("Always allow write_file.*in this session"))
    await expect(rule.locator(".chip")).to_have_text("path: docs/*")
    await rule.get_by_test_id("revoke").click()
    await expect(rule).to_have_count(0)
    await console.say(call("write_file", path="docs/c.md", content="z"))
    await expect(page.get_by_test_id("approval")).to_have_count(1)


@pytest.mark.feature("E03", "A03")
async def test_the_inbox_shows_what_waits_elsewhere(page: Page, workshop: Workshop) -> None:
    console = await Console(page).open(workshop.url)
    await console.say(call("write_file", path="far", content=""))
    await expect(card(page, "write_file")).to_have_attribute("data-state", "approval")
    first = page.url
    await page.get_by_test_id("new-session").click()
    await expect(console.messages).to_have_count(0)
    await console.connected()
    await expect(page.get_by_test_id("decisions-badge")).to_have_text("1")
    await page.get_by_test_id("decisions-toggle").click()
    entry = page.get_by_test_id("inbox-entry")
    await expect(entry).to_contain_text("write_file far")
    await entry.locator("a").click()
    await expect(card(page, "write_file").get_by_test_id("approve")).to_be_focused()
    assert page.url.startswith(first)


@pytest.mark.feature("E03", "R02")
async def test_the_audit_says_who_decided_what(browser_context: BrowserContext, page: Page, workshop: Workshop) -> None:
    console, _ = await _at_work(page, browser_context, workshop, {**WRITE, "instead": "written"})
    await console.say(call("write_file", path="a", content="agent's"))
    write = card(page, "write_file")
    await write.get_by_test_id("edit").click()
    await write.locator('[data-field="content"]').fill("mine")
    await write.get_by_test_id("send-edit").click()
    await console.complete(answers=2)
    await console.composer.press("Escape")
    await page.keyboard.press("u")
    entry = page.get_by_test_id("audit-entry").filter(has_text="write_file").first
    await expect(entry).to_contain_text("local changed write_file")
    await entry.locator("summary").click()
    await expect(entry).to_contain_text("agent's")
    await expect(entry.get_by_test_id("diff")).to_contain_text("mine")
    await expect(page.get_by_test_id("metrics-table")).to_contain_text("write_file")
    await expect(page.locator(".chart rect")).to_have_count(1)


@pytest.mark.feature("E02", "T09", "A02")
async def test_a_call_waits_for_a_client_and_may_be_done_by_hand(
    browser_context: BrowserContext, page: Page, workshop: Workshop
) -> None:
    console = await Console(page).open(workshop.url)
    await console.say("\n".join([call("read_file", path="a"), call("read_file", path="b")]))
    cards = page.get_by_test_id("call")
    await expect(cards.nth(0)).to_contain_text("Waits for a client")
    hand = cards.nth(0).get_by_test_id("hand")
    await hand.locator("summary").click()
    await hand.get_by_test_id("hand-result").fill("by hand")
    await hand.get_by_test_id("hand-send").click()
    await expect(cards.nth(0)).to_have_attribute("data-state", "done")
    # And the other one is taken by a client that comes.
    editor = Editor(await browser_context.new_page())
    await editor.open(workshop.url, await console.session_id(), READ)
    await page.bring_to_front()
    await console.complete(answers=2)
    await expect(console.text(console.answers.last)).to_contain_text("by hand")
    await expect(console.text(console.answers.last)).to_contain_text("old")
    await page.get_by_test_id("session-toggle").click()
    person = page.locator('[data-testid="person"][data-client-id="editor"]')
    await expect(person).to_contain_text("read_file")
    await expect(page.get_by_test_id("people-count")).to_have_text("2")
    await editor.leave()
    await expect(person).to_have_count(0)


@pytest.mark.feature("E02", "A02")
async def test_a_page_that_is_loaded_again_answers_from_what_was_done(
    browser_context: BrowserContext, page: Page, workshop: Workshop
) -> None:
    console = await Console(page).open(workshop.url)
    session = await console.session_id()
    editor = Editor(await browser_context.new_page())
    tool = {"name": "save", "parameters": {"type": "object"}}
    await editor.open(workshop.url, session, tool, remember="tab", clientId=None)
    await console.say(call("save", what="all"))
    save = card(page, "save")
    await save.get_by_test_id("approve").click()
    await editor.called()
    await editor.page.reload()
    await editor.open(workshop.url, session, tool, remember="tab", clientId=None)
    await console.complete(answers=2)
    await expect(console.text(console.answers.last)).to_contain_text("was reloaded while save ran")
    assert await editor.page.evaluate("calls.length") == 0, "it did not run twice"


@pytest.mark.feature("E03", "A05")
async def test_other_agents_stand_under_the_call_that_asked_them(page: Page, workshop: Workshop) -> None:
    console = await Console(page).open(workshop.url)
    await console.say(call("ask_agent", agent_type="helper", task=call("write_file", path="deep", content="")))
    asked = page.locator('#messages > li > .calls > [data-testid="call"]')
    thread = asked.locator("> .thread")
    await expect(thread).to_contain_text("Task")
    # What the other agent wants to do reaches the person.
    await expect(page.get_by_test_id("asked")).to_be_visible()
    await page.get_by_test_id("scroll").focus()
    await page.keyboard.press("w")
    await expect(thread.get_by_test_id("approve")).to_be_focused()
    await thread.get_by_test_id("respond").click()
    await thread.get_by_test_id("feedback").fill("no need")
    await thread.get_by_test_id("send-respond").click()
    await expect(asked.first).to_have_attribute("data-state", "done")
    await expect(thread.get_by_test_id("message-text").last).to_contain_text("Done: no need")
    await expect(page.locator('#messages > [data-role="assistant"]')).to_have_count(2)
    await expect(page.locator('#messages > [data-role="assistant"]').last).to_contain_text("Done: Done: no need")


@pytest.mark.feature("E03", "A05", "S04")
async def test_a_handover_stands_where_it_happened(page: Page, workshop: Workshop) -> None:
    console = await Console(page).open(workshop.url)
    await console.say(call("handoff", agent_type="helper", reason="it knows more"))
    await console.complete(answers=2)
    handover = page.get_by_test_id("handover")
    await expect(handover).to_contain_text("worker handed over to helper: it knows more")
    await expect(console.answers.last).to_contain_text("Helper")
    await expect(console.agent).to_have_value("helper")
    await page.get_by_test_id("session-toggle").click()
    await expect(page.get_by_test_id("switches")).to_contain_text("worker → helper")
    await expect(page.get_by_test_id("switches")).to_contain_text("handed over by the agent")


@pytest.mark.feature("E03", "A07")
async def test_what_a_turn_took_is_said(page: Page, workshop: Workshop) -> None:
    console = await Console(page).open(workshop.url)
    await console.say("hello")
    await console.complete()
    await expect(console.answers.last.get_by_test_id("took")).to_contain_text("110 tokens")
    await page.get_by_test_id("session-toggle").click()
    usage = page.get_by_test_id("usage")
    await expect(usage.locator("div", has_text="Tokens in")).to_contain_text("100")
    await expect(page.get_by_test_id("turn")).to_contain_text("Worker")


# --- what is hard to bring about


async def test_a_question_that_will_expire_says_when_and_what_became_of_it(page: Page, site: Site) -> None:
    scene = Scene()
    scene.asks("write")
    writes = scene.says("", *[("write_file", {"path": name, "content": ""}) for name in "abcd"])
    scene.needs_approval(writes[0], expires_at="2026-03-12T10:30:00.000Z")
    scene.needs_approval(writes[1], expires_at="2026-03-12T10:25:30.000Z")
    scene.needs_approval(writes[2])
    scene.resolved(writes[2], "reject", cause="expiry", user=None, client_id=None)
    scene.returns(writes[2], error="nobody decided in time")
    scene.needs_approval(writes[3])
    scene.resolved(writes[3], "approve", cause="rule", rule="session write_file", user=None, client_id=None)
    scene.runs(writes[3])
    scene.returns(writes[3], error="the disk is full")
    session = await told(site.server, scene.events, agent_type="coder")
    await page.clock.install(time="2026-03-12T10:25:00Z")
    await Console(page).open(f"{site.url}#s={session}")
    cards = page.get_by_test_id("call")
    countdowns = cards.get_by_test_id("countdown")
    # The clock goes on from there, and the page may take its time.
    await expect(countdowns.nth(0)).to_have_text(re.compile(r"expires in [45]:\d\d"))
    await expect(countdowns.nth(1)).to_have_class("countdown urgent")
    await page.clock.fast_forward(31_000)
    await expect(countdowns.nth(1)).to_have_text("expired")
    await expect(cards.nth(2)).to_have_attribute("data-state", "expired")
    await expect(cards.nth(3)).to_have_attribute("data-state", "failed")
    for number, words in ((2, "Nobody decided in time"), (3, "Approved by a rule: session write_file")):
        await cards.nth(number).locator("summary").click()
        await expect(cards.nth(number).get_by_test_id("decision")).to_contain_text(words)


async def test_what_is_being_written_about_a_call_outlives_events(page: Page, site: Site) -> None:
    scene = Scene()
    scene.asks("write")
    (write,) = scene.says("", ("write_file", {"path": "a", "content": "x"}))
    scene.needs_approval(write)
    session = await told(site.server, scene.events, agent_type="coder")
    await Console(page).open(f"{site.url}#s={session}")
    await page.get_by_test_id("edit").click()
    field = page.locator('[data-field="content"]')
    await field.fill("half a sen")
    await page.evaluate(
        """async () => {
            const { desk } = await import("/console/desk.js");
            const call = [...desk.conversation.calls.values()].at(-1);
            const apply = (event_type, payload) => desk.conversation.apply({ event_type, payload, timestamp: "" });
            apply("approval_timeout_warning", { call_id: call.call_id, expires_at: "2030-01-01T00:00:00.000Z" });
            apply("presence_changed", { change: "joined", client: { client_id: "b", tools: [] }, clients: 2 });
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        }"""
    )
    await expect(page.get_by_test_id("countdown")).to_contain_text("expires in")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("half a sen")


# --- for everybody


def _crowded() -> Scene:
    """A card of each kind."""
    scene = Scene()
    scene.asks("Do it.")
    names = ["approval", "approve", "reject", "run", "fail", "wait"]
    calls = scene.says("Yes.", *[("write_file", {"path": name, "content": f"{name}\n" * 3}) for name in names])
    for number in (0, 1, 2):
        scene.needs_approval(calls[number], expires_at="2000-01-01T00:00:00.000Z" if number == 0 else None)
    scene.resolved(calls[1], "edit", arguments={"path": "elsewhere", "content": "other\n"}, feedback="there")
    scene.returns(calls[1], {"bytes": 5})
    scene.resolved(calls[2], "reject", feedback="no")
    scene.returns(calls[2], error="rejected")
    scene.runs(calls[3], "editor")
    scene.runs(calls[4])
    scene.returns(calls[4], error="the disk is full")
    scene.tell("agent_switched", from_agent="coder", to_agent="ask", reason="it knows", cause="agent")
    scene.tell("queue_changed", change="added", message_id=str(new_id()), content="And then?", on_busy="steer")
    return scene


@pytest.mark.feature("E03")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_calls_and_questions_can_be_read_and_touched(
    browser: Browser, site: Site, scheme: Literal["light", "dark"], width: int
) -> None:
    session = await told(site.server, _crowded().events, agent_type="coder")
    context = await browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    page = await context.new_page()
    await Console(page).open(f"{site.url}#s={session}")
    cards = page.get_by_test_id("call")
    await expect(cards).to_have_count(6)
    for number in range(1, 6):
        await cards.nth(number).locator("summary").first.click()
    await page.get_by_test_id("remember").select_option("user")
    assert await page.evaluate(FAINT) == []
    await page.get_by_test_id("edit").click()
    await page.locator('[data-field="path"]').fill("")
    await expect(page.get_by_test_id("editor-problems")).not_to_be_empty()
    assert await page.evaluate(FAINT) == []
    await page.get_by_test_id("scroll").evaluate("node => { node.scrollTop = 0; }")
    for _ in range(6):
        assert await page.evaluate(OVERLAPS) == []
        await page.get_by_test_id("scroll").evaluate("node => node.scrollBy(0, 500)")
    await page.get_by_test_id("decisions-toggle").click()
    for tab in ("decisions", "session", "audit"):
        await page.get_by_test_id(f"tab-{tab}").click()
        assert await page.evaluate(FAINT) == []
        assert await page.evaluate(OVERLAPS) == []
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    await context.close()
