"""Large commands are read beside the loop: it keeps turning, and each client's commands keep their order."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import aiohttp
import msgspec
import pytest

from protocol.codec import decode_command
from protocol.commands import Command
from protocol.errors import ErrorCode, ParleyError
from server.channel import decoding as module
from server.channel.decoding import Decoding
from server.channel.settings import ChannelSettings
from tests.channel.clients import PATIENCE, connect
from tests.support.server import RunningServer

SETTINGS = ChannelSettings()
LARGE = "x" * 100_000


def said(id_: str, content: str = LARGE) -> bytes:
    return msgspec.json.encode({"type": "user_message", "id": id_, "content": content})


class Slow:
    """Stands in for reading: notes what is read in which thread, and lets it take as long as the test likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: dict[str, threading.Thread] = {}
        self.may_end = threading.Semaphore(0)
        self.fails = False
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Queue[str] = asyncio.Queue()
        monkeypatch.setattr(module, "decode_command", self._read)

    async def begun(self) -> str:
        """The id of the next large command whose reading has begun."""
        async with asyncio.timeout(PATIENCE):
            return await self._begun.get()

    def _read(self, data: Any, *rest: Any) -> Command:
        command = decode_command(data, *rest)
        assert command.id is not None
        self.threads[command.id] = threading.current_thread()
        if len(data) > len(LARGE):
            self._loop.call_soon_threadsafe(self._begun.put_nowait, command.id)
            assert self.may_end.acquire(timeout=PATIENCE)
            if self.fails:
                raise ParleyError(ErrorCode.INVALID, "as the test wants")
        return command


@pytest.fixture
async def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(monkeypatch)


async def test_what_is_small_is_read_at_once_and_what_is_large_beside_the_loop(slow: Slow) -> None:
    decoding = Decoding()
    await decoding.command(said("small", "hello"), "json", SETTINGS)
    large = asyncio.create_task(decoding.command(said("large"), "json", SETTINGS))
    assert await slow.begun() == "large"
    # The loop is here, while that goes on.
    assert not large.done()
    slow.may_end.release()
    assert (await large).id == "large"
    assert slow.threads["small"] is threading.current_thread()
    assert slow.threads["large"] is not threading.current_thread()


async def test_large_ones_are_read_one_at_a_time_and_who_leaves_gives_up_his_place(slow: Slow) -> None:
    decoding = Decoding()
    tasks = {id_: asyncio.create_task(decoding.command(said(id_), "json", SETTINGS)) for id_ in "abcd"}
    assert await slow.begun() == "a"
    # Its asker leaves, and another one who waits.
    tasks["a"].cancel()
    tasks["b"].cancel()
    await asyncio.wait({tasks["a"], tasks["b"]})
    assert list(slow.threads) == ["a"]
    slow.may_end.release()
    assert await slow.begun() == "c"
    slow.may_end.release(2)
    assert [command.id for command in await asyncio.gather(tasks["c"], tasks["d"])] == ["c", "d"]
    assert list(slow.threads) == ["a", "c", "d"]


async def test_what_is_wrong_with_a_large_one_is_said_as_ever() -> None:
    decoding = Decoding()
    for data in (said("a b"), said("a")[:-1], said("a").replace(b'xx"}', b'\\u0000"}')):
        with pytest.raises(ParleyError) as usual:
            decode_command(data)
        with pytest.raises(ParleyError) as aside:
            await decoding.command(data, "json", SETTINGS)
        assert (aside.value.code, aside.value.message, aside.value.path, aside.value.id) == (
            usual.value.code,
            usual.value.message,
            usual.value.path,
            usual.value.id,
        )
    commands = b"[" + b",".join([said("one"), said("two words"), said("three")]) + b"]"
    one, two, three = await decoding.commands(commands, "json", SETTINGS)
    assert isinstance(two, ParleyError)
    assert (getattr(one, "id", None), two.path, getattr(three, "id", None)) == ("one", "$[1].id", "three")
    with pytest.raises(ParleyError) as refused:
        await decoding.commands(b"[" + commands, "json", SETTINGS)
    assert refused.value.code is ErrorCode.MALFORMED


async def test_what_is_wrong_with_a_command_whose_sender_has_left_is_nobodys_news(
    slow: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    decoding = Decoding()
    task = asyncio.create_task(decoding.command(said("a"), "json", SETTINGS))
    await slow.begun()
    task.cancel()
    await asyncio.wait({task})
    slow.fails = True
    slow.may_end.release()
    assert (await decoding.command(said("small", "hello"), "json", SETTINGS)).id == "small"
    next_one = asyncio.create_task(decoding.command(said("b"), "json", SETTINGS))
    await slow.begun()
    slow.fails = False
    slow.may_end.release()
    await next_one
    gc.collect()
    assert caplog.records == []


async def test_others_are_served_while_a_hostile_command_is_read(server: RunningServer, slow: Slow) -> None:
    session = await server.create_session()
    async with connect(server, session, "ws-json") as hostile, connect(server, session, "ws-json") as other:
        assert isinstance(hostile.socket, aiohttp.ClientWebSocketResponse)  # type: ignore[attr-defined]
        await hostile.socket.send_str(said("large").decode())  # type: ignore[attr-defined]
        await hostile.socket.send_str('{"type":"ping","id":"after-it"}')  # type: ignore[attr-defined]
        assert await slow.begun() == "large"
        assert (await other.send(type="ping", id="meanwhile"))[0] == 200
        assert (await server.command(session, type="ping", id="meanwhile-too"))[0] == 200
        # Also by POST the large one waits for its turn, and nobody for it.
        posted = asyncio.create_task(server.command(session, type="user_message", id="posted", content=LARGE))
        assert (await other.send(type="ping", id="and-now"))[0] == 200
        assert not posted.done()
        slow.may_end.release()
        acks = [hostile.payload(await hostile.until("ack"))["id"] for _ in range(2)]
        assert acks == ["large", "after-it"]
        assert await slow.begun() == "posted"
        slow.may_end.release()
        assert (await posted)[0] == 200
