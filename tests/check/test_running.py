"""Checks end in bounded time, and none spoils another."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from server.check import CHECKS, Check, Finding, run
from server.check.findings import ok
from server.check.running import Context, Findings, in_thread
from tests.check.support import context, found, said


def check(name: str, find: object, *needs: str) -> Check:
    return Check(name, f"about {name}", frozenset(needs), find)  # type: ignore[arg-type] # functions of the tests


async def fine(_context: Context) -> Findings:
    yield ok("fine")


async def hanging(_context: Context) -> Findings:
    yield ok("so far")
    await asyncio.get_running_loop().create_future()


async def broken(_context: Context) -> Findings:
    yield ok("so far")
    raise ZeroDivisionError("postgresql://ada:s3cret@db/x?key=s3cret")


async def test_one_that_hangs_and_one_that_breaks_spoil_no_other() -> None:
    checks = [check("hanging", hanging), check("broken", broken), check("fine", fine)]
    results = await run(checks, context(patience=0.01, grace=0))
    assert [result.check.name for result in results] == ["hanging", "broken", "fine"]
    first, second, third = (result.findings for result in results)
    assert first == [
        ok("so far"),
        Finding("error", "this took longer than 0.01 s", "something hangs: a disk, a network?"),
    ]
    assert second[0] == ok("so far")
    assert second[1].what.startswith("the check itself failed: ZeroDivisionError: ")
    assert "s3cret" not in second[1].what
    assert third == [ok("fine")]


async def test_a_blocked_thread_is_left_behind() -> None:
    let_go = threading.Event()

    async def blocked(_context: Context) -> Findings:
        yield ok(str(await in_thread(let_go.wait)))

    try:
        (result,) = await run([check("blocked", blocked)], context(patience=0.01, grace=0))
        assert said(result.findings) != []
        # Nobody waits for it at the end of the process either.
        assert {thread.daemon for thread in threading.enumerate() if thread.name == "check"} == {True}
    finally:
        let_go.set()


async def test_what_a_thread_returns_and_raises_comes_back() -> None:
    assert await in_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_a_check_is_not_run_on_a_section_that_has_mistakes() -> None:
    checks = [check("one", fine, "server", "log"), check("other", fine, "database")]
    one, other = await run(checks, context(server__port=-1))
    assert [finding.what for finding in one.findings] == ["not looked at, as [server] has mistakes"]
    assert other.findings == [ok("fine")]
    # Of a file that cannot be read nobody knows what it says.
    one, other = await run(checks, context(Path("/nowhere/parley.toml")))
    assert {finding.level for finding in (*one.findings, *other.findings)} == {"note"}


def test_checks_have_names_of_their_own_and_need_sections_that_there_are() -> None:
    assert len({each.name for each in CHECKS}) == len(CHECKS)
    for each in CHECKS:
        assert each.about
        assert all(hasattr(context().config, section) for section in each.needs)


@pytest.mark.parametrize("name", [each.name for each in CHECKS if each.name not in {"agents", "listener"}])
def test_every_check_says_something_of_what_nobody_has_configured(name: str, tmp_path: object) -> None:
    assert found(name, context(database__data_dir=str(tmp_path)))
