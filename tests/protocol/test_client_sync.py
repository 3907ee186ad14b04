"""The client for code without a loop, in threads of their own: the server runs in the test's loop."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest

from protocol.client import AgentFailed, Chunk, Received, SyncClient, Timings, connect_sync
from protocol.client.portal import Portal
from protocol.errors import ErrorCode, ParleyError
from server.agents.interface import AgentContext, agent
from tests.protocol.support import WAYS, Script, connected, serving, sync
from tests.support.server import MakeServer, RunningServer

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "parley-client"] == []


async def apart(work: Callable[..., T], *arguments: Any) -> T:
    """Do it in a thread of its own."""
    return await asyncio.to_thread(work, *arguments)


@pytest.mark.feature("E02")
@ways
async def test_a_conversation_without_a_loop(server: RunningServer, way: Any) -> None:
    def talk() -> None:
        with connect_sync(server.url, **way, client_id="me") as session:
            assert (session.client_id, session.state) == ("me", session.status.state)
            assert session.connected is not None
            ack = session.say("hello")
            seen = []
            for event in session:
                seen.append(event)
                if event.event_type == "task_completed":
                    break
            assert session.cursor == seen[-1].cursor
            assert (session.state, session.transport) == ("open", way["transport"])
            assert ack.message_id is not None
            assert session.ask("count to 20").text == " ".join(map(str, range(1, 21)))
            chunks = session.stream("count to 30")
            assert "".join(chunk.text for chunk in chunks) == " ".join(map(str, range(1, 31)))
            assert chunks.so_far.done
            assert chunks.wait() is chunks.so_far
            assert 0 <= session.ping() < 60
            session.switch_agent("coder")
            assert session.history(limit=1).current_agent == "coder"
            assert [message.role for message in session.messages()] == ["user", "assistant"] * 3

    await apart(talk)


async def test_exceptions_come_as_they_are(server: RunningServer, unused_tcp_port: int) -> None:
    def talk() -> None:
        with connect_sync(server.url) as session:
            with pytest.raises(AgentFailed) as failed:
                session.ask("fail late")
            assert "last one before" in failed.value.answer.text
            with pytest.raises(AgentFailed):
                list(session.stream("fail late"))
            with pytest.raises(ParleyError) as unknown:
                session.switch_agent("nobody")
            assert unknown.value.code is ErrorCode.UNKNOWN_AGENT
            with pytest.raises(ParleyError):
                session.cancel()
        with pytest.raises(ParleyError) as missing, connect_sync(server.url, "not-there"):
            pass
        assert missing.value.code is ErrorCode.NOT_FOUND
        nobody = connect_sync(f"http://127.0.0.1:{unused_tcp_port}", "x", timings=Timings(opening=0.05))
        with pytest.raises(ConnectionError, match="nothing listens"), nobody:
            pass

    await apart(talk)


class Stage:
    """A server with an agent that says a word and waits for its cue, which may come from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.server: RunningServer
        self._loop = loop
        self._cue = asyncio.Event()

        @agent(type="slow")
        async def slow(context: AgentContext) -> AsyncGenerator[str, None]:
            yield "One "
            await self._cue.wait()
            yield "two."

        self.agent = slow

    def cue(self) -> None:
        self._loop.call_soon_threadsafe(self._cue.set)


@pytest.fixture
async def stage(make_server: MakeServer) -> Stage:
    made = Stage(asyncio.get_running_loop())
    made.server = await make_server(made.agent)
    return made


def first_text(chunks: Iterator[Chunk]) -> str:
    return next(chunk.text for chunk in chunks if chunk.text)


async def test_waiting_has_an_end_and_can_be_gone_on_with(stage: Stage) -> None:
    def talk() -> None:
        with connect_sync(stage.server.url) as session:
            chunks = session.stream("count", timeout=0.2)
            assert first_text(chunks) == "One "
            with pytest.raises(TimeoutError):
                next(chunks)
            with pytest.raises(TimeoutError):
                chunks.wait(0.05)
            with pytest.raises(TimeoutError):
                session.ask("more", timeout=0.05)
            events = session.events(timeout=0.2)
            with pytest.raises(TimeoutError):
                list(events)
            stage.cue()
            assert chunks.wait().text == "One two."
            assert any(event.event_type == "task_completed" for event in islice(events, 50))

    await apart(talk)


async def test_an_answer_is_stopped_from_another_thread(stage: Stage) -> None:
    def talk() -> None:
        with connect_sync(stage.server.url) as session:
            chunks = session.stream("count")
            first_text(chunks)
            stopping = threading.Thread(target=chunks.cancel)
            stopping.start()
            with pytest.raises(AgentFailed) as caught:
                list(chunks)
            assert caught.value.status == "cancelled"
            stopping.join()

    await apart(talk)


async def test_several_threads_speak_and_listen(server: RunningServer) -> None:
    def talk() -> None:
        with connect_sync(server.url) as session:
            heard: list[list[str]] = [[], []]

            def listen(events: Iterator[Received], into: list[str]) -> None:
                for event in events:
                    if event.event_type == "message_created":
                        into.append(event.text)
                    if len(into) == 16:
                        return

            def speak(number: int) -> None:
                for word in ("a", "b"):
                    session.say(f"echo {word}{number}")

            iterations = [iter(session) for _ in heard]
            threads = [threading.Thread(target=listen, args=both) for both in zip(iterations, heard, strict=True)]
            threads += [threading.Thread(target=speak, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            words = {f"{word}{number}" for word in "ab" for number in range(4)}
            for into in heard:
                assert {text for text in into if not text.startswith("echo")} == words

    await apart(talk)


async def test_closing_from_another_thread_ends_what_waits(stage: Stage) -> None:
    def talk() -> None:
        session = connect_sync(stage.server.url)
        with session:
            events, chunks = iter(session), session.stream("count")
            first_text(chunks)
            ended: list[str] = []
            waits = threading.Event()

            def listen() -> None:
                for event in events:
                    if event.event_type == "message_delta":
                        waits.set()
                ended.append("events")

            def read() -> None:
                with pytest.raises(ConnectionError, match="closed"):
                    list(chunks)
                ended.append("chunks")

            threads = [threading.Thread(target=work) for work in (listen, read)]
            for thread in threads:
                thread.start()
            assert waits.wait(30)
            session.close()
            for thread in threads:
                thread.join(30)
            assert sorted(ended) == ["chunks", "events"]
        session.close()
        assert session.state == "closed"
        assert list(session) == []
        with pytest.raises(ConnectionError, match="the client was closed"):
            session.say("too late")
        with pytest.raises(RuntimeError, match="used once"):
            session.__enter__()

    await apart(talk)


async def test_it_has_to_be_connected() -> None:
    session = connect_sync("http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match="not connected"):
        session.say("hello")
    session.close()


async def test_in_its_own_thread_it_says_so_instead_of_waiting_for_ever() -> None:
    sessions: list[SyncClient] = []
    caught: list[BaseException] = []

    def token() -> str:
        if sessions[0].state == "open":
            try:
                sessions[0].ping()
            except RuntimeError as error:
                caught.append(error)
        return "t"

    def talk(url: str) -> None:
        sessions.append(connect_sync(url, "x", token=token, transport="sse"))
        with sessions[0] as session:
            for event in session:
                if event.event_type == "sync":
                    break
            session.say("hello")

    script = Script([connected(), sync()])
    async with serving(script.handle) as url:
        await apart(talk, url)
    assert [str(error) for error in caught] == [
        "this is the client's own thread, which cannot wait for itself; use `connect` there"
    ]


async def test_it_works_in_a_thread_that_has_a_loop_of_its_own(server: RunningServer) -> None:
    """As in a notebook."""

    async def cell() -> str:
        with connect_sync(server.url) as session:
            return session.ask("echo hello").text

    assert await apart(lambda: asyncio.run(cell())) == "hello"


def functions(frame: FrameType | None) -> set[str]:
    """What a thread is in."""
    names = set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_a_portal_cancels_what_nobody_waits_for_any_more() -> None:
    portal = Portal("parley-client")
    portal.start()
    cancelled = threading.Event()
    waiting = threading.Event()

    async def for_ever() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        waiting.wait(30)
        while "result" not in functions(sys._current_frames()[main]):
            time.sleep(0)
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            portal.run(for_ever())
    finally:
        signal.signal(signal.SIGINT, before)
        interrupting.join()
    assert cancelled.wait(30)
    portal.stop()
    portal.stop()


SCRIPT = """\
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
sys.path.insert(0, sys.argv[2])
from parley import connect_sync

try:
    with connect_sync(sys.argv[1]) as session:
        for event in session:
            if event.event_type == "sync":
                print("ready", flush=True)
except KeyboardInterrupt:
    print("interrupted", session.state, threading.active_count())
"""


async def test_control_c_ends_it(server: RunningServer) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", SCRIPT, server.url, str(ROOT)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (out.decode(), errors.decode(), process.returncode) == ("interrupted closed 1\n", "", 0)


async def test_leaving_takes_no_time(server: RunningServer) -> None:
    def talk() -> float:
        with connect_sync(server.url) as session:
            session.ask("hello")
            began = time.monotonic()
        return time.monotonic() - began

    assert await apart(talk) < 5
