"""The pictures of the console in the documents.

`make screenshots` takes them anew, from sessions that are always the same. Otherwise it is only checked that they are
there: fonts differ from machine to machine, and a picture that differs is no mistake.
"""

from __future__ import annotations

import os
import struct
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import pytest
from playwright.async_api import Browser, Page, ViewportSize, expect

from tests.browser.console import Console
from tests.browser.palette import as_palette
from tests.browser.seeding import past
from tests.browser.site import Site

PICTURES: Final = Path(__file__).parents[2] / "docs"
SIZE: Final[ViewportSize] = {"width": 1280, "height": 800}
MOST_BYTES: Final = 150_000
NOW: Final = datetime(2026, 3, 12, 10, 24, tzinfo=UTC)

QUESTION = "My laptop was asleep for an hour. How does the page catch up?"

ANSWER = """It asks for what came after the last **cursor** that it saw:

```js
const session = connect({ session: id, after: cursor });
session.on("message_created", (event) => show(event.payload));
```

What then comes down, in this order, on any transport:

| step | what it is |
|---|---|
| `connected` | who is here, and where the log stands |
| the events since | each *once*, by its number |
| `sync` | you have caught up |
| one merged delta | of a message that is being written |

- [x] a restart of the server changes nothing of it
"""

OTHERS: Final = (
    (timedelta(minutes=38), "Review the migration before Friday"),
    (timedelta(hours=2), "Why does this query read the whole table?"),
    (timedelta(days=1, hours=1), "Draft the release notes"),
    (timedelta(days=1, hours=5), "A smaller image for the container"),
    (timedelta(days=3), "Explain leases to a newcomer"),
    (timedelta(days=4), "Names for the retry policy"),
)


async def _scene(browser: Browser, site: Site, scheme: Literal["light", "dark"]) -> Page:
    """A page that shows the same whenever it is opened."""
    for ago, title in reversed(OTHERS):
        await past(site.server, ["…", "…"], title=title, when=NOW - ago)
    session = await past(site.server, [QUESTION, ANSWER], title="Catching up after sleep", when=NOW, agent_type="coder")
    context = await browser.new_context(
        viewport=SIZE, color_scheme=scheme, locale="en-GB", timezone_id="UTC", reduced_motion="reduce"
    )
    page = await context.new_page()
    await page.clock.set_fixed_time(NOW + timedelta(seconds=20))
    await Console(page).open(f"{site.url}#s={session}")
    await expect(page.locator(".message .table")).to_be_visible()
    await expect(page.get_by_test_id("session")).to_have_count(len(OTHERS) + 1)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_documents_have_a_picture_of_the_console(
    browser: Browser, site: Site, scheme: Literal["light", "dark"]
) -> None:
    picture = PICTURES / f"console-{scheme}.png"
    if os.environ.get("PARLEY_SCREENSHOTS") == "take":
        page = await _scene(browser, site, scheme)
        if scheme == "dark":
            await page.get_by_test_id("agents-toggle").click()
            await page.get_by_test_id("agents-panel").evaluate("node => { node.scrollTop = 0; }")
        await page.mouse.move(2, 2)
        shot = await page.screenshot()
        PICTURES.mkdir(exist_ok=True)
        picture.write_bytes(as_palette(shot))
        await page.context.close()
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == (SIZE["width"], SIZE["height"])
    assert len(content) < MOST_BYTES
    pixels = zlib.decompress(b"".join(_chunks(content, b"IDAT")))
    assert len(set(pixels)) > 50, "the picture shows something"


def _chunks(png: bytes, kind: bytes) -> list[bytes]:
    """The bodies of the chunks of a kind (RFC 2083, section 3.2)."""
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == kind:
            found.append(png[at + 8 : at + 8 + length])
        at += 12 + length
    return found
