"""The page at `/` as tests use it: what a reader can do and see, and ways to break the network under it."""

from __future__ import annotations

from playwright.async_api import BrowserContext, Locator, Page, expect

#: How a WebSocket can fail, as scripts that run before the page's own; none of them touches parley.js.
BROKEN_WEBSOCKETS = {
    "constructor throws": "WebSocket = class { constructor() { throw new Error('blocked by policy'); } };",
    # The server answers the upgrade with 404.
    "upgrade refused": """
        const Real = WebSocket;
        WebSocket = class extends Real {
          constructor(url, protocols) { super(url.replace("/ws?", "/no-such-thing?"), protocols); }
        };
    """,
    # As behind a proxy that accepts the upgrade and then passes nothing on. Nothing is sent, nothing is told.
    "black hole": """
        WebSocket = class {
          constructor() { setTimeout(() => this.onopen?.({})); }
          send() {}
          close() {}
        };
    """,
}


def counted(last: int) -> str:
    """What the offline agent answers to `count to <last>`, or has answered so far."""
    return " ".join(str(number) for number in range(1, last + 1))


async def break_websockets(context: BrowserContext, how: str) -> None:
    """Every page of this context finds WebSocket broken in this way."""
    await context.add_init_script(BROKEN_WEBSOCKETS[how])


class Console:
    """A page that shows the console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.messages = page.get_by_test_id("message")
        self.answers = page.locator('[data-testid="message"][data-role="assistant"]')
        self.questions = page.locator('[data-testid="message"][data-role="user"]')
        self.waiting = page.get_by_test_id("waiting")
        self.composer = page.get_by_test_id("composer")
        self.stop = page.get_by_test_id("stop")
        self.state = page.get_by_test_id("state")
        self.transport = page.get_by_test_id("transport")
        self.notice = page.get_by_test_id("notice")
        self.agent = page.get_by_test_id("agent")
        self.search = page.get_by_test_id("search")
        self.sessions = page.get_by_test_id("session")
        self.log = page.get_by_test_id("log")
        self.lines = page.get_by_test_id("log-line")

    async def open(self, url: str) -> Console:
        """Load the page and wait until it has caught up with its session."""
        await self.page.goto(url)
        await self.connected()
        return self

    async def connected(self) -> None:
        """Wait until the page has caught up with its session."""
        await expect(self.state).to_have_attribute("data-state", "open")

    async def session_id(self) -> str:
        """The id that the page shows."""
        return await self.page.get_by_test_id("session-id").inner_text()

    async def say(self, text: str) -> None:
        """Write and press Enter."""
        await self.composer.fill(text)
        await self.composer.press("Enter")

    def text(self, message: Locator) -> Locator:
        """The text of a message, without who said it and when."""
        return message.get_by_test_id("message-text")

    async def answered(self, text: str, *, answers: int = 1) -> None:
        """Wait for the last answer to be complete, and there to be so many of them."""
        await expect(self.answers).to_have_count(answers)
        await expect(self.answers.last).to_have_attribute("data-done", "true")
        # Not `to_have_text`, which is forgiving about white space.
        assert await self.text(self.answers.last).text_content() == text

    async def writing(self, fragment: str) -> None:
        """Wait until the answer being written holds this."""
        await expect(self.text(self.answers.last)).to_contain_text(fragment)
        await expect(self.answers.last).to_have_attribute("data-done", "false")

    async def complete(self, *, answers: int = 1) -> None:
        """Wait for so many answers, the last of them complete."""
        await expect(self.answers).to_have_count(answers)
        await expect(self.answers.last).to_have_attribute("data-done", "true")
        await expect(self.stop).to_be_hidden()

    async def markup(self, message: Locator) -> str:
        """What a message's text has become, as HTML."""
        found: str = await self.text(message).evaluate("node => node.innerHTML")
        return found

    async def focused(self) -> str:
        """The id, the test id, or else the tag of what has the focus."""
        found: str = await self.page.evaluate(
            "(({ activeElement: e }) => e.id || e.dataset.testid || e.tagName.toLowerCase())(document)"
        )
        return found

    async def copied(self, text: str) -> None:
        """Wait until the clipboard holds this; the page needs leave to read it."""
        same = "async text => (await navigator.clipboard.readText()) === text"
        await self.page.wait_for_function(same, arg=text)

    async def watch_lengths(self) -> None:
        """From now on note every length that the text of an answer has on the page."""
        await self.page.evaluate(
            """() => {
                globalThis.lengths = [];
                new MutationObserver(() => {
                  const text = document.querySelector('[data-role="assistant"] [data-testid="message-text"]');
                  const length = text ? text.textContent.length : 0;
                  if (length !== lengths.at(-1)) lengths.push(length);
                }).observe(document.body, { subtree: true, childList: true, characterData: true });
            }"""
        )

    async def growing(self, steps: int) -> None:
        """Wait until the text has had so many lengths."""
        await self.page.wait_for_function("steps => lengths.length >= steps", arg=steps)

    async def lengths(self) -> list[int]:
        """What was noted."""
        noted: list[int] = await self.page.evaluate("lengths")
        return noted
