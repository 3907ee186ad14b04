"""The parts of the Python client that need no network."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.client_reqrep import ConnectionKey

from protocol.client import Backoff, Events, Server, Timings, connect, connect_sync
from protocol.client.choice import Choice, Memory
from protocol.client.feed import Feed, Received
from protocol.client.http import path_of
from protocol.client.place import Place
from protocol.client.settings import Transport
from protocol.client.trouble import ViolationError, closed, judge, reason_of, refusal
from protocol.envelope import decode_event
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Disconnect
from tests.protocol.support import ANSWER, delta, durable, encoded, said

# --- pauses


def test_regression_27_pauses_grow_and_never_shrink_below_the_advice() -> None:
    backoff = Backoff(shortest=0.5, longest=20)
    limits = [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert all(0 <= backoff.next() <= limit for limit in limits)
    assert 7 <= backoff.next(at_least=7) <= 27
    for _ in range(10_000):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.5
    draws = {Backoff().next() for _ in range(50)}
    assert len(draws) > 40


# --- the place in the log


@pytest.mark.parametrize(
    ("after", "event", "standing"),
    [
        (None, "e.7", "next"),
        ("e.6", "e.7", "next"),
        ("6", "e.7", "next"),
        ("e.7", "e.7", "repeated"),
        ("e.9", "e.7", "repeated"),
        ("e.5", "e.7", "gap"),
        ("5", "e.7", "gap"),
        ("f.6", "e.7", "gap"),
    ],
)
def test_a_place_takes_each_event_once_and_in_order(after: str | None, event: str, standing: str) -> None:
    place = Place(after)
    assert place.take(event) == standing
    if standing == "next":
        assert place.cursor == "e.7"
        assert place.take(event) == "repeated"
        assert place.take("e.8") == "next"


def test_a_place_learns_where_it_is_and_moves_when_told() -> None:
    place = Place()
    cursors = [place.cursor]
    assert place.reaches("e.100")
    place.begin("e.4")
    assert (place.reaches("e.4"), place.reaches("e.5")) == (True, False)
    cursors.append(place.cursor)
    place.move("f.9")
    assert place.take("f.10") == "next"
    cursors.append(place.cursor)
    bare = Place("2")
    cursors.append(bare.cursor)
    bare.begin("e.2")
    cursors.append(bare.cursor)
    assert cursors == [None, "e.4", "f.10", "2", "e.2"]
    with pytest.raises(ParleyError):
        place.take("not a cursor")


# --- the choice of a transport


class Hands:
    """A clock whose hands the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def choice(memory: Memory, fixed: Transport | None = None) -> Choice:
    return Choice(fixed, "http://here", 300.0, memory)


def test_a_network_without_websocket_is_remembered_and_asked_again() -> None:
    hands = Hands()
    memory = Memory(hands)
    one = choice(memory)
    assert one.pick() == "ws"
    assert one.failed("ws", "opening")
    assert one.pick() == "sse"
    assert choice(memory).pick() == "ws"  # nothing is known before SSE has worked
    one.worked("sse")
    assert choice(memory).pick() == "sse"
    one.ended()
    assert one.pick() == "sse"
    hands.now += 301
    one.ended()
    assert (one.pick(), choice(memory).pick()) == ("ws", "ws")
    one.worked("ws")
    assert memory.blocked_until("http://here") == 0


def test_while_neither_works_they_take_turns() -> None:
    one = choice(Memory(Hands()))
    picked = []
    for _ in range(3):
        picked.append(one.pick())
        assert one.failed("ws", "opening")
        picked.append(one.pick())
        assert not one.failed("sse", "opening")
    assert picked == ["ws", "sse"] * 3


def test_regression_28_a_websocket_that_is_cut_again_and_again_is_given_up() -> None:
    one = choice(Memory(Hands()))
    assert [one.failed("ws", "syncing") for _ in range(2)] == [False, True]
    two = choice(Memory(Hands()))
    two.worked("ws")
    assert [two.failed("ws", "opening") for _ in range(3)] == [False, False, True]
    three = choice(Memory(Hands()))
    three.worked("ws")
    assert not three.failed("ws", "live")
    assert not three.failed("ws", "live")
    three.proved()
    assert not three.failed("ws", "live")


@pytest.mark.parametrize("fixed", ["ws", "sse", "ndjson"])
def test_what_is_fixed_stays(fixed: Transport) -> None:
    memory = Memory(Hands())
    one = choice(memory, fixed)
    for _ in range(9):
        assert not one.failed(one.pick(), "opening")
    one.worked(fixed)
    one.ended()
    assert (one.pick(), choice(memory).pick()) == (fixed, "ws")


def test_the_memory_is_bounded() -> None:
    memory = Memory(Hands())
    for number in range(1000):
        memory.blocked(f"http://host-{number}", 2000.0)
    assert (memory.blocked_until("http://host-0"), memory.blocked_until("http://host-999")) == (0.0, 2000.0)
    assert len(memory._until) == 256


# --- what an end means


@pytest.mark.feature("T04")
@pytest.mark.parametrize(
    ("code", "reason", "final", "explained"),
    [
        (0, "", False, False),
        (1000, "", False, False),
        (1001, "", False, False),
        (1002, "", True, True),
        (1006, "", False, False),
        (1007, "", True, True),
        (1009, "", True, True),
        (1011, "", False, False),
        (3000, "", False, False),
        (4000, '{"code": "shutdown", "retry_after_ms": 1500}', False, True),
        (4001, "not JSON", False, True),
        (4002, "", False, True),
        (4003, "", False, True),
        (4004, "", False, True),
        (4099, "", False, False),
        (4500, "", True, True),
        (4502, "", True, True),
        (4999, "", True, True),
    ],
)
def test_close_codes_say_whether_to_come_back(code: int, reason: str, final: bool, explained: bool) -> None:
    verdict = judge(closed(code, reason), None)
    assert (verdict.final, verdict.explained) == (final, explained)
    assert verdict.wait == (1.5 if code == 4000 else None)
    assert str(code) in str(verdict.error) or code == 0


@pytest.mark.feature("T04")
def test_the_last_word_counts_more_than_the_end() -> None:
    lost = ConnectionError("cut")
    back = judge(lost, Disconnect(code="shutdown", reason="bye", reconnect=True, retry_after_ms=2000))
    assert (back.final, back.wait) == (False, 2.0)
    away = judge(lost, Disconnect(code="from_the_future", reason="never again", reconnect=False))
    assert away.final
    assert "never again" in str(away.error)
    ages = judge(lost, Disconnect(code="shutdown", reason="", reconnect=True, retry_after_ms=10**15))
    assert ages.wait == 3600.0
    assert not judge(ViolationError("?"), None).final


def test_refusals_are_told_in_the_servers_words_where_there_are_some() -> None:
    problem = ParleyError(ErrorCode.INVALID, "the rule", path="$.x", retry_after=3).to_problem()
    error = refusal(422, "application/problem+json", msgspec.json.encode(problem))
    assert (error.code, error.message, error.path, error.retry_after) == (ErrorCode.INVALID, "the rule", "$.x", 3)
    for body in (b"", b"[]", b"\xff", b"{}", b'{"code": 1}'):
        assert refusal(404, "application/problem+json", body).code is ErrorCode.NOT_FOUND
    assert refusal(503, "text/html", b"<h1>away</h1>").code is ErrorCode.UNAVAILABLE
    assert refusal(429, "", b"").code is ErrorCode.RATE_LIMITED
    assert "https://there" in str(refusal(301, "", b"", "https://there"))


def connector_error(error: OSError) -> aiohttp.ClientConnectorError:
    key = ConnectionKey(
        "example.org", 8080, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
    )
    return aiohttp.ClientConnectorError(key, error)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (connector_error(ConnectionRefusedError(errno.ECONNREFUSED, "x")), "nothing listens on port 8080"),
        (connector_error(socket.gaierror(-2, "x")), "there is no host named example.org"),
        (aiohttp.ServerDisconnectedError(), "it closed the connection without an answer"),
        (TimeoutError(), "nothing came within 10 s"),
        (None, "nothing came within 10 s"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "[Errno 101] Network is unreachable"),
        (ConnectionError(), "ConnectionError"),
    ],
)
def test_failures_are_told_in_words(error: Exception | None, words: str) -> None:
    assert reason_of(error, 10.0) == words


# --- addresses and names


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("ftp://example.org", "begin with http:// or https://"),
        ("example.org", "begin with http:// or https://"),
        ("localhost:8080", "begin with http:// or https://"),
        ("ws://example.org", "begin with http:// or https://"),
        ("", "begin with http:// or https://"),
        ("http://", "name a host"),
        ("http:///path", "name a host"),
        ("http://example.org:99999", "Port out of range"),
        ("http://example.org:x", "Port could not be cast"),
        ("http://[::1", "Invalid IPv6"),
        ("http://example.org/?a=b", "end before ?"),
        ("http://example.org/#there", "end before ?"),
    ],
)
def test_an_unusable_address_is_named_with_the_rule(url: str, rule: str) -> None:
    for make in (connect, connect_sync, Server):
        with pytest.raises(ValueError, match=r"is no server's address") as caught:
            make(url)
        assert rule in str(caught.value)
        assert repr(url) in str(caught.value)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="give a token instead") as caught:
        connect("http://ada:lovelace@example.org")
    assert "lovelace" not in str(caught.value)


@pytest.mark.parametrize("given", [{"after": "yesterday"}, {"client_id": "no spaces"}, {"after": "a.b.c"}])
def test_unusable_names_are_refused_at_once(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValueError, match=f"^{name}: "):
        connect("http://127.0.0.1", **given)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 129, "../x"])
def test_what_can_be_no_name_names_no_session(name: str) -> None:
    with pytest.raises(ParleyError, match="there is no session"):
        path_of(name)
    assert path_of("..", "history") == "/sessions/../history"


# --- the feed


def received(frame: dict[str, Any]) -> Received:
    envelope = decode_event(encoded(frame))
    return Received(envelope, envelope.decode(), encoded(frame))


def seqs(events: Events) -> list[int | None]:
    return [event.envelope.seq for event in events._given]


async def test_nothing_is_lost_between_two_iterations() -> None:
    feed = Feed(Timings(), None)
    for number in range(1, 5):
        await feed.put(received(durable(number)))
    assert (await anext(feed.listen())).envelope.seq == 1
    async for event in feed.listen():
        assert event.envelope.seq == 2
        break
    assert feed.cursor == "e.2"
    rest = feed.listen()
    feed.end()
    assert [event.envelope.seq async for event in rest] == [3, 4]


async def test_a_feed_is_bounded_by_number_and_by_bytes() -> None:
    for timings in (Timings(waiting_events=2), Timings(waiting_bytes=1)):
        feed = Feed(timings, None)
        while not feed.full:
            await feed.put(received(durable(1)))
        putting = asyncio.create_task(feed.put(received(durable(2))))
        await asyncio.sleep(0)
        assert not putting.done()
        await anext(feed.listen())
        await putting


async def test_an_iteration_that_lags_goes_without_deltas_and_is_given_up_in_the_end() -> None:
    feed = Feed(Timings(waiting_events=10), None)
    lagging, reading = feed.listen(), feed.listen()

    async def pass_on(frame: dict[str, Any]) -> None:
        await feed.put(received(frame))
        await anext(reading)

    for number in range(1, 6):
        await pass_on(durable(number))
        await pass_on(delta(0, "x" * number))
    await pass_on(durable(6))
    assert seqs(lagging) == [1, 2, 3, 4, 5, 6]
    for number in range(7, 12):
        await pass_on(durable(number))
    with pytest.raises(RuntimeError, match="was not read while others went on"):
        await anext(lagging)


async def test_an_iteration_that_was_cancelled_has_taken_nothing() -> None:
    feed = Feed(Timings(), None)
    events = feed.listen()
    for number in range(1, 20):
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        await feed.put(received(durable(number)))
        # It may just have been woken.
        for _ in range(number % 3):
            await asyncio.sleep(0)
        if waiting.cancel():
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (await anext(events)).envelope.seq == number
        else:
            assert waiting.result().envelope.seq == number


async def test_forgotten_iterations_hold_nothing() -> None:
    feed = Feed(Timings(), None)
    events = feed.listen()
    del events
    assert not feed._listeners
    left = feed.listen()
    left.close()
    await feed.put(received(durable(1)))
    with pytest.raises(StopAsyncIteration):
        await anext(left)
    assert (await anext(feed.listen())).envelope.seq == 1


async def test_texts_are_those_of_the_moment_and_late_deltas_begin_nothing() -> None:
    feed = Feed(Timings(), None)
    events = feed.listen()
    for frame in (delta(0, "One"), delta(0, "One two"), delta(0, "Uno", attempt=2), said(1, "Uno dos"), delta(0, "x")):
        await feed.put(received(frame))
    texts = [(await anext(events)).text for _ in range(5)]
    assert texts == ["One", "One two", "Uno", "Uno dos", ""]
    assert feed.texts == {}
    assert str(next(iter(feed._closed))) == ANSWER
    for number in range(2, 600):
        await feed.put(received(said(number, "", message_id=f"00000000-0000-0000-0000-{number:012}")))
        await anext(events)
    assert len(feed._closed) == 256
    for number in range(600, 1200):
        await feed.put(received(delta(0, "x", message_id=f"00000000-0000-0000-0000-{number:012}")))
        assert (await anext(events)).text == "x"
    assert len(feed.texts) == 256
