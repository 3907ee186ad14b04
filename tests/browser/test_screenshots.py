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

from protocol.ids import format_timestamp
from storage.ids import new_id
from tests.browser.console import Console
from tests.browser.palette import as_palette
from tests.browser.scenes import Scene
from tests.browser.seeding import past, told
from tests.browser.site import Site

PICTURES: Final = Path(__file__).parents[2] / "docs"
SIZE: Final[ViewportSize] = {"width": 1280, "height": 800}
MOST_BYTES: Final = 150_000
NOW: Final = datetime(2026, 3, 12, 10, 24, tzinfo=UTC)

QUESTION = "Greet whoever is named on the command line."

BEFORE = """import sys

def main() -> None:
    print("Hello")

main()
"""

AFTER = """import sys

def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "you"
    print(f"Hello, {name}")

main()
"""

OTHERS: Final = (
    (timedelta(minutes=38), "Review the migration before Friday"),
    (timedelta(hours=2), "Why does this query read the whole table?"),
    (timedelta(days=1, hours=1), "Draft the release notes"),
    (timedelta(days=1, hours=5), "A smaller image for the container"),
    (timedelta(days=3), "Explain leases to a newcomer"),
    (timedelta(days=4), "Names for the retry policy"),
)
RULES: Final = (
    ("execute_command", b'{"command":"python -m pytest *"}', "allow"),
    ("write_file", b'{"path":"docs/*"}', "allow"),
    ("delete_file", None, "deny"),
)


_RULE = """
INSERT INTO approval_rules (rule_id, owner, scope, tool, arguments, effect, created_at, created_by)
VALUES ($1, 'local', 'user', $2, $3, $4, $5, 'local')
"""


def _conversation() -> Scene:
    """A file was read, and is to be written: somebody has to decide."""
    scene = Scene("coder")
    scene.asks(QUESTION)
    (read,) = scene.says("I look at the program first.", ("read_file", {"path": "greet.py"}))
    scene.runs(read, "vscode")
    scene.returns(read, BEFORE, took=84)
    (write,) = scene.says(
        "`sys` is imported already, so **two lines** will do:", ("write_file", {"path": "greet.py", "content": AFTER})
    )
    expires = format_timestamp(NOW + timedelta(minutes=9, seconds=42))
    scene.needs_approval(write, expires_at=expires, reason="It changes a file on your machine.")
    return scene


async def _scene(browser: Browser, site: Site, scheme: Literal["light", "dark"]) -> Page:
    """A page that shows the same whenever it is opened."""
    for ago, title in reversed(OTHERS):
        await past(site.server, ["…", "…"], title=title, when=NOW - ago)
    start = NOW - timedelta(seconds=20)
    session = await told(site.server, _conversation().events, title="Greet by name", when=start, agent_type="coder")
    async with site.server.services.db.pool.acquire() as connection:
        for tool, arguments, effect in RULES:
            await connection.execute(_RULE, new_id(), tool, arguments, effect, NOW - timedelta(days=2))
    context = await browser.new_context(
        viewport=SIZE, color_scheme=scheme, locale="en-GB", timezone_id="UTC", reduced_motion="reduce"
    )
    page = await context.new_page()
    await page.clock.set_fixed_time(NOW)
    await Console(page).open(f"{site.url}#s={session}")
    await expect(page.get_by_test_id("approve")).to_be_visible()
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
            await page.get_by_test_id("decisions-toggle").click()
            await expect(page.get_by_test_id("rule")).to_have_count(len(RULES))
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
