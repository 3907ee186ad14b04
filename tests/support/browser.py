"""Browser tests: a real chromium of the system, driven by playwright.

Tests that use the fixtures `browser` or `page` need one. On a developer's machine without it they are left out, and
the summary names them and says how to get it; where `CI` is set they fail instead, so that they cannot rot unseen.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MACOS: Final = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
_FIXTURES: Final = frozenset({"browser", "browser_context", "page"})
#: What a browser on a busy machine may take for one thing, in milliseconds.
PATIENCE: Final = 30_000
#: Seconds for a whole test with one; less than what ends the run (`faulthandler_timeout`).
_TIMEOUT: Final = 110
_LEFT_OUT: Final = pytest.StashKey[list[str]]()
HOW_TO_GET: Final = (
    "install chromium (Debian, Ubuntu: apt-get install chromium; macOS: brew install --cask chromium), "
    "or name any Chromium or Chrome in PARLEY_CHROMIUM"
)


def find_chromium() -> Path | None:
    """Return the browser to drive: PARLEY_CHROMIUM if set, else the first one found, else None."""
    if chosen := os.environ.get("PARLEY_CHROMIUM"):
        found = shutil.which(chosen)
        return Path(found) if found else None
    candidates = [shutil.which(name) for name in _NAMES]
    if sys.platform == "darwin":
        candidates.extend(path for path in _MACOS if Path(path).exists())
    return next((Path(path) for path in candidates if path), None)


def launch_arguments() -> list[str]:
    """Return flags for a browser that talks to the test's server and to nobody else."""
    arguments = [
        "--headless=new",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-sync",
        "--disable-dev-shm-usage",  # containers have a small /dev/shm
        "--remote-debugging-port=0",
        # What playwright asks for when it starts a browser itself: pages that nobody looks at are not slowed down, and
        # pictures are the same everywhere.
        "--disable-background-timer-throttling",
        "--disable-backgrounding-occluded-windows",
        "--disable-renderer-backgrounding",
        "--disable-ipc-flooding-protection",
        "--disable-popup-blocking",
        "--disable-back-forward-cache",
        "--disable-extensions",
        "--disable-features=Translate,MediaRouter,DialMediaRouteProvider,OptimizationHints,HttpsUpgrades",
        "--force-color-profile=srgb",
        "--hide-scrollbars",
        "--mute-audio",
        "--password-store=basic",
        "--use-mock-keychain",
        "--no-default-browser-check",
        "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
        # Whatever a page asks for beyond this machine is not even looked up.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE [::1]",
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # chromium's sandbox refuses to start as root
    return arguments


def in_ci() -> bool:
    """Tell whether leaving tests out would be a lie."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give browser tests time, and leave them out where there is no browser and nobody relies on them."""
    needing = [item for item in items if _FIXTURES.intersection(getattr(item, "fixturenames", ()))]
    for item in needing:
        item.add_marker(pytest.mark.timeout(_TIMEOUT))
    if config.option.collectonly or in_ci() or find_chromium() is not None:
        return
    if needing:
        config.hook.pytest_deselected(items=needing)
        config.stash[_LEFT_OUT] = [item.nodeid for item in needing]
        items[:] = [item for item in items if item not in needing]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the browser tests that were left out, and how to have them run."""
    left_out = config.stash.get(_LEFT_OUT, [])
    if left_out:
        terminalreporter.section("browser tests left out: no chromium", yellow=True)
        for nodeid in left_out:
            terminalreporter.write_line(nodeid)
        terminalreporter.write_line(f"To run them, {HOW_TO_GET}.")


class Chromium:
    """The one browser of a run: to start it for every test takes longer than most tests.

    Each test has a context of its own (cookies, storage, cache), and a connection of its own, as both belong to the
    test's loop. A browser that a test has brought down is started again for the next one.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process: subprocess.Popen[str] | None = None
        self._drain: threading.Thread | None = None
        self._endpoint = ""

    def endpoint(self) -> str:
        """Where it listens; started if it does not run."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._start()
        return self._endpoint

    def _start(self) -> None:
        executable = find_chromium()
        if executable is None:
            pytest.fail(f"browser tests must run here and there is no browser: {HOW_TO_GET}")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        self._process = process = subprocess.Popen(
            [str(executable), *launch_arguments(), f"--user-data-dir={self._home / 'profile'}", "about:blank"],
            env=environment | {"HOME": str(self._home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                self._endpoint = found[1]
                break
        else:
            pytest.fail("chromium did not start:\n" + "".join(said))
        # What it complains of later fills no pipe.
        self._drain = threading.Thread(target=process.stderr.read, daemon=True)
        self._drain.start()

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait()
        if self._drain is not None:
            self._drain.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = self._drain = None


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """The browser that all tests of a run share, with a fresh profile and a home where it may leave what it likes."""
    chromium = Chromium(tmp_path_factory.mktemp("browser-home"))
    yield chromium
    chromium.stop()


@pytest.fixture
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    """The browser, over a connection of the test's own; what the test opens in it goes with the test."""
    from playwright.async_api import async_playwright, expect  # a quarter of a second that other tests need not pay

    expect.set_options(timeout=PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium.endpoint())
        yield browser
        await browser.close()


@pytest.fixture
async def browser_context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser context (cookies, storage, pages) with patience."""
    context = await browser.new_context()
    context.set_default_timeout(PATIENCE)
    yield context
    await context.close()


@pytest.fixture
async def page(browser_context: BrowserContext) -> AsyncIterator[Page]:
    """An empty page. The test fails if a script of the page raised and nobody caught it."""
    page = await browser_context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(f"{error.message}\n{error.stack}"))
    yield page
    await page.close()
    assert not errors, "uncaught in the page:\n" + "\n".join(errors)
