"""The hub: order, replay, live, and nothing lost or repeated between them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import pytest

from protocol.cursor import Cursor
from protocol.envelope import Event
from protocol.errors import ErrorCode, ParleyError
from protocol.events import AgentStatusChanged, Connected, MessageDelta, ResyncRequired, Sync
from protocol.framing import Framing, frame_many
from server.channel.settings import ChannelSettings
from server.channel.subscriber import Wire
from storage.commits import Committed
from tests.channel.fakes import WIRES, Desk, body, encoding_of, ws_messages
from tests.support.clock import settle

MESSAGE = UUID(int=99)


def delta(offset: int, text: str, *, attempt: int = 1, message_id: UUID = MESSAGE) -> MessageDelta:
    return MessageDelta(message_id=message_id, attempt=attempt, part="content", offset=offset, text=text)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.feature("T02", "T03")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_stream_opens_with_connected_then_replay_then_sync_then_live(desk: Desk, wire: Wire) -> None:
    for number in range(1, 4):
        desk.store(body(number))
    peer = desk.listen(1, wire=wire)
    await settle(30)
    desk.commit(body(4))
    await settle(30)
    assert peer.types == ["connected", "message_created", "message_created", "sync", "message_created"]
    assert peer.seqs == [2, 3, 4]
    encoding = encoding_of(wire.framing)
    connected = peer.events[0].decode(encoding)
    assert isinstance(connected, Connected)
    assert (connected.client_id, connected.cursor, connected.server_version) == ("c1", "e1.1", "1.2.3")
    assert connected.heartbeat_interval_ms == 15_000
    assert connected.limits.max_command_bytes == 1 << 20
    assert peer.events[3].decode(encoding) == Sync(from_="e1.1", through="e1.3")


@pytest.mark.parametrize("wire", [WIRES[3], WIRES[4]], ids=str)
async def test_connected_and_durable_events_alone_move_the_cursor_of_a_browser(desk: Desk, wire: Wire) -> None:
    desk.store(body(1))
    peer = desk.listen(0, wire=wire)
    await settle(30)
    ids = [line for line in peer.transport.data.split(b"\n") if line.startswith(b"id: ")]
    assert ids == [b"id: e1.0", b"id: e1.1"]


async def test_without_a_cursor_the_stream_begins_now(desk: Desk) -> None:
    desk.store(body(1), body(2))
    peer = desk.listen()
    await settle(30)
    desk.commit(body(3))
    await settle(30)
    assert peer.seqs == [3]
    connected = peer.events[0].decode()
    assert isinstance(connected, Connected)
    assert connected.cursor == "e1.2"


async def test_commits_out_of_order_go_out_in_order_and_once(desk: Desk) -> None:
    peer = desk.listen(0)
    await settle(30)
    first, second, third = (desk.store(body(number)) for number in (1, 2, 3))
    for committed in (third, second, second, first, third):
        desk.hub.commit(committed)
    await settle(30)
    assert peer.seqs == [1, 2, 3]


@pytest.mark.feature("T10")
async def test_a_gap_is_read_from_the_log_at_once(desk: Desk) -> None:
    peer = desk.listen(0)
    await settle(30)
    desk.store(body(1))
    reads = desk.log.reads
    desk.commit(body(2))
    await settle(30)
    assert peer.seqs == [1, 2]
    assert desk.log.reads == reads + 1


@pytest.mark.feature("T10")
async def test_the_poll_finds_what_nobody_told_of(desk: Desk) -> None:
    await desk.hub.start()
    peer = desk.listen(0)
    await settle(30)
    desk.store(body(1), body(2))
    await settle(30)
    assert peer.seqs == []
    await desk.advance(1.0)
    assert peer.seqs == [1, 2]
    desk.store(body(3))
    desk.hub.wake(desk.session_id)
    await settle(30)
    assert peer.seqs == [1, 2, 3]
    await desk.hub.stop()


async def test_a_commit_between_the_reading_of_the_session_and_the_subscription_is_not_lost(desk: Desk) -> None:
    session = desk.log.session()
    desk.commit(body(1))
    peer = desk.listen(session=session)
    await settle(30)
    assert peer.seqs == [1]


async def test_a_cursor_ahead_of_what_was_emitted_here_waits_for_it(desk: Desk) -> None:
    other = desk.listen(0)
    await settle(30)
    desk.store(body(1), body(2))
    peer = desk.listen(2)
    await settle(30)
    desk.commit(body(3))
    await settle(30)
    assert peer.seqs == [3]
    assert other.seqs == [1, 2, 3]


@pytest.mark.parametrize(
    ("after", "reason"),
    [(Cursor("other", 1), "epoch_changed"), (Cursor("e1", 3), "ahead"), (3, "ahead")],
)
async def test_a_cursor_that_cannot_be_served_is_answered_by_name(desk: Desk, after: object, reason: str) -> None:
    desk.store(body(1), body(2))
    peer = desk.listen(after)
    await settle(30)
    desk.commit(body(3))
    await settle(30)
    assert peer.types == ["connected", "resync_required", "sync", "message_created"]
    resync = peer.events[1].decode()
    assert isinstance(resync, ResyncRequired)
    assert (resync.reason, resync.cursor) == (reason, "e1.2")
    assert peer.seqs == [3]


async def test_a_restored_log_sends_everybody_back_to_start_afresh(desk: Desk) -> None:
    peer = desk.listen(0)
    await settle(30)
    desk.log.epoch = "e2"
    newcomer = desk.listen()
    await settle(30)
    assert peer.transport.ended is not None
    assert peer.transport.ended[0].may_reconnect
    desk.hub.commit(Committed(desk.session_id, "e3", desk.store(body(1)).events))
    assert newcomer.transport.ended is not None


@pytest.mark.feature("S05", "T07")
async def test_each_wire_is_framed_once_and_each_subscriber_written_to_once_a_turn(desk: Desk) -> None:
    peers = [desk.listen(wire=WIRES[number % 3], client_id=f"c{number}") for number in range(1_000)]
    await settle(30)
    before = desk.hub.counters.framings
    writes = [len(peer.transport.writes) for peer in peers]
    for number in range(20):
        desk.commit(body(number))
    await settle(30)
    assert desk.hub.counters.framings == before + 3
    assert [len(peer.transport.writes) - before for peer, before in zip(peers, writes, strict=True)] == [1] * 1_000
    assert Counter(tuple(peer.seqs) for peer in peers) == {tuple(range(1, 21)): 1_000}


async def test_events_are_encoded_once_whatever_the_number_of_clients(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()

    def counting(events: Sequence[Event], framing: Framing) -> bytes:
        calls[framing] += 1
        return frame_many(events, framing)

    monkeypatch.setattr("server.channel.subscriber.frame_many", counting)
    for number in range(1_000):
        desk.listen(wire=WIRES[number % len(WIRES)])
    await settle(30)
    calls.clear()
    desk.commit(body(1))
    await settle(30)
    assert calls == {"ws-json": 1, "ws-json-batch": 1, "ws-msgpack": 1, "sse": 2, "ndjson": 1}


@pytest.mark.feature("A01")
async def test_deltas_of_one_turn_that_fit_together_go_out_as_one(desk: Desk) -> None:
    peer = desk.listen()
    await settle(30)
    for offset, letter in enumerate("hello"):
        desk.hub.delta(desk.session_id, delta(offset, letter))
    await settle(30)
    assert peer.types == ["connected", "sync", "message_delta"]
    assert peer.text(MESSAGE) == "hello"


async def test_merging_deltas_keeps_the_order_of_everything(desk: Desk) -> None:
    peer = desk.listen()
    await settle(30)
    desk.hub.delta(desk.session_id, delta(0, "a"))
    desk.commit(body(1))
    desk.hub.delta(desk.session_id, delta(1, "b"))
    desk.hub.transient(desk.session_id, "agent_status_changed", AgentStatusChanged(agent_type="coder", status="idle"))
    desk.hub.delta(desk.session_id, delta(2, "c"))
    await settle(30)
    assert peer.types[2:] == [
        "message_delta",
        "message_created",
        "message_delta",
        "agent_status_changed",
        "message_delta",
    ]


@pytest.mark.feature("A01", "T02")
async def test_who_joins_in_mid_answer_gets_the_text_so_far_as_one_delta(desk: Desk) -> None:
    desk.hub.delta(desk.session_id, delta(0, "so far "))
    desk.hub.delta(desk.session_id, delta(7, "🙂 "))
    peer = desk.listen(0)
    await settle(30)
    desk.hub.delta(desk.session_id, delta(10, "and on"))
    await settle(30)
    assert peer.types == ["connected", "sync", "message_delta", "message_delta"]
    assert peer.text(MESSAGE) == "so far 🙂 and on"
    assert [one.text for one in desk.hub.live(desk.session_id)] == ["so far 🙂 and on"]


async def test_a_closed_message_is_forgotten_and_with_it_a_channel_without_listeners(desk: Desk) -> None:
    desk.hub.delta(desk.session_id, delta(0, "text"))
    assert desk.hub.stats().messages_being_written == 1
    desk.hub.commit(desk.store(body(1)), closes=MESSAGE)
    assert desk.hub.stats().messages_being_written == 0
    assert desk.hub._channels == {}
    peer = desk.listen(0)
    await settle(30)
    assert peer.types == ["connected", "message_created", "sync"]


async def test_a_higher_attempt_starts_the_message_afresh(desk: Desk) -> None:
    desk.hub.delta(desk.session_id, delta(0, "first try"))
    desk.hub.delta(desk.session_id, delta(0, "second", attempt=2))
    desk.hub.delta(desk.session_id, delta(9, "late", attempt=1))
    peer = desk.listen()
    await settle(30)
    assert peer.text(MESSAGE) == "second"


@pytest.mark.feature("T05")
async def test_regression_07_one_full_socket_never_blocks_the_broadcast(desk: Desk) -> None:
    stuck = desk.listen(wire=Wire("ws-json"), room=0)
    quick = desk.listen(wire=Wire("ws-json"), client_id="c2")
    await settle(30)
    for number in range(1, 101):
        desk.commit(body(number, 4_000))
        await settle(2)
    assert quick.seqs == list(range(1, 101))
    assert stuck.transport.get_write_buffer_size() < 3 * 65_536, (
        "what is kept for a slow client does not grow with what it lacks"
    )
    stuck.transport.unstick()
    await settle(200)
    assert stuck.seqs == list(range(1, 101))
    assert stuck.types.count("sync") == 1, "catching up again is no second opening"


@pytest.mark.feature("T02")
async def test_regression_07_what_is_committed_during_the_replay_comes_after_it_and_once(desk: Desk) -> None:
    for number in range(1, 51):
        desk.store(body(number, 8_000))
    desk.log.gate = asyncio.Event()
    peer = desk.listen(0)
    await settle(30)
    for number in range(51, 61):
        desk.commit(body(number))
        await settle(1)
    assert peer.types == ["connected"]
    desk.log.gate.set()
    await settle(200)
    desk.commit(body(61))
    await settle(30)
    assert peer.seqs == list(range(1, 62))


@pytest.mark.feature("T02")
@pytest.mark.parametrize("stored", [0, 3])
@pytest.mark.parametrize("turns", range(12))
async def test_regression_07_no_turn_of_the_loop_lies_between_replay_and_live(
    desk: Desk, turns: int, stored: int
) -> None:
    desk.hub.delta(desk.session_id, delta(0, "a"))
    for number in range(stored):
        desk.store(body(number))
    peer = desk.listen(0)
    await settle(turns)
    desk.hub.delta(desk.session_id, delta(1, "b"))
    desk.commit(body(4))
    desk.hub.delta(desk.session_id, delta(2, "c"))
    await settle(30)
    assert peer.seqs == list(range(1, stored + 2))
    assert peer.text(MESSAGE) == "abc"


@pytest.mark.feature("T02")
async def test_regression_06_a_reconnect_with_a_cursor_repeats_nothing_and_loses_nothing(desk: Desk) -> None:
    # Ten events of one instant: only a number tells them apart.
    desk.store(*(body(number) for number in range(1, 11)))
    first = desk.listen(0)
    await settle(30)
    cursor = first.events[6].cursor
    assert cursor is not None
    again = desk.listen(Cursor(*(part if not part.isdigit() else int(part) for part in cursor.split("."))))  # type: ignore[arg-type]
    await settle(30)
    assert again.seqs == list(range(first.events[6].seq + 1, 11))  # type: ignore[operator]
    assert again.transport.data.count(b"message_created") == 4


@pytest.mark.feature("T02")
async def test_regression_35_numbers_belong_to_the_session_and_not_to_the_connection(desk: Desk) -> None:
    first = desk.listen(0)
    await settle(30)
    desk.commit(body(1), body(2))
    await settle(30)
    desk.hub.unsubscribe(first.subscriber)
    desk.commit(body(3))
    second = desk.listen(2, client_id="c2")
    third = desk.listen(0, client_id="c3")
    await settle(30)
    assert (first.seqs, second.seqs, third.seqs) == ([1, 2], [3], [1, 2, 3])
    assert {event.seq: event.payload for event in third.events if event.seq}[2] == [
        event.payload for event in first.events if event.seq
    ][1]


@pytest.mark.feature("T05", "A01")
async def test_a_slow_reader_of_a_long_answer_gets_it_merged_and_whole(desk: Desk) -> None:
    peer = desk.listen(room=2_000)
    await settle(30)
    piece = "é🙂" * 200
    offset = 0
    for number in range(400):
        desk.hub.delta(desk.session_id, delta(offset, f"{number}:{piece}"))
        offset += len(f"{number}:") + 3 * 200
        await settle(2)
    assert peer.subscriber.state == "catching_up"
    sent = peer.types.count("message_delta")
    assert sent < 400
    peer.transport.unstick()
    await settle(30)
    assert peer.subscriber.state == "live"
    assert peer.types.count("message_delta") < sent + 20
    assert peer.text(MESSAGE) == "".join(f"{number}:{piece}" for number in range(400))


@pytest.mark.feature("T05")
async def test_a_socket_that_takes_nothing_for_write_timeout_is_closed_as_slow_consumer(desk: Desk) -> None:
    await desk.hub.start()
    peer = desk.listen(room=0)
    other = desk.listen(client_id="c2", wire=Wire("sse"))
    await desk.advance(15.0)
    assert peer.transport.ended is None
    await desk.advance(7.0)
    assert peer.transport.ended is not None
    assert peer.transport.ended[0] is ErrorCode.SLOW_CONSUMER
    assert other.transport.ended is None
    assert desk.hub.stats().closed == {"slow_consumer": 1}
    await desk.hub.stop()


@pytest.mark.feature("T05", "T03")
async def test_a_slow_reader_whose_bytes_move_is_alive(desk: Desk) -> None:
    await desk.hub.start()
    peer = desk.listen(room=0)
    await settle(30)
    for number in range(20):
        desk.commit(body(number, 10_000))
    await settle(30)
    for _ in range(20):
        await desk.advance(10.0)
        peer.transport.take(1_000)
    assert peer.transport.ended is None
    await desk.hub.stop()


@pytest.mark.feature("T03")
async def test_regression_36_a_peer_that_falls_silent_is_found_without_a_write_of_ours(desk: Desk) -> None:
    await desk.hub.start()
    silent, speaking = desk.listen(), desk.listen(client_id="c2")
    stream = desk.listen(client_id="c3", wire=Wire("sse"))
    for _ in range(31):
        await desk.advance(1.0)
        speaking.subscriber.heard_at = desk.clock.monotonic()
    assert silent.transport.ended is not None
    assert silent.transport.ended[0] is ErrorCode.STALE
    assert speaking.transport.ended is None
    assert stream.transport.ended is None, "an event stream has no way to speak; its socket finds out"
    await desk.hub.stop()


async def test_while_its_command_is_handled_a_peer_is_not_taken_for_dead(desk: Desk) -> None:
    await desk.hub.start()
    peer = desk.listen()
    peer.subscriber.busy = True
    await desk.advance(100.0)
    assert peer.transport.ended is None
    await desk.hub.stop()


@pytest.mark.feature("T03")
@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_heartbeats_come_at_the_interval_of_connected_on_every_wire(desk: Desk, wire: Wire) -> None:
    await desk.hub.start()
    peer = desk.listen(wire=wire)
    for _ in range(3):
        peer.subscriber.heard_at = desk.clock.monotonic()
        await desk.advance(15.0)
    assert peer.types == ["connected", "sync", "heartbeat", "heartbeat", "heartbeat"]
    if wire.is_websocket:
        opcodes = [opcode for opcode, _ in ws_messages(peer.transport.data)]
        assert opcodes.count(9) == 3, "a ping goes with each, which browsers answer by themselves"
    await desk.hub.stop()


async def test_a_lost_database_leaves_streams_open_and_replays_wait_for_it(desk: Desk) -> None:
    await desk.hub.start()
    desk.store(body(1), body(2))
    desk.log.away = True
    peer = desk.listen(0)
    await desk.advance(20.0)
    assert peer.types == ["connected", "heartbeat"]
    desk.log.away = False
    peer.subscriber.heard_at = desk.clock.monotonic()
    await desk.advance(6.0)
    assert peer.seqs == [1, 2]
    assert peer.types[-1] == "sync"
    await desk.hub.stop()


async def test_a_thousand_that_come_back_at_one_place_cost_one_read(desk: Desk) -> None:
    desk.store(*(body(number) for number in range(10)))
    peers = [desk.listen(3, client_id=f"c{number}", wire=WIRES[number % 6]) for number in range(1_000)]
    await settle(50)
    assert desk.log.reads == 1
    assert all(peer.seqs == list(range(4, 11)) for peer in peers)


async def test_a_deleted_sessions_streams_end_for_good(desk: Desk) -> None:
    peer = desk.listen()
    await settle(30)
    desk.hub.end_session(desk.session_id)
    assert peer.types[-1] == "disconnect"
    assert peer.transport.ended is not None
    assert peer.transport.ended[0] is ErrorCode.SESSION_GONE
    assert not peer.transport.ended[1].reconnect


async def test_the_poll_ends_streams_of_a_session_that_others_deleted(desk: Desk) -> None:
    peer = desk.listen()
    await settle(30)

    async def none_of_them(session_ids: Sequence[UUID]) -> dict[UUID, int]:
        return {}

    desk.log.heads = none_of_them  # type: ignore[method-assign]
    await desk.hub.poll()
    assert peer.transport.ended is not None
    assert peer.transport.ended[0] is ErrorCode.SESSION_GONE


async def test_who_replays_a_log_that_was_emptied_is_sent_to_find_out_why(desk: Desk) -> None:
    await desk.hub.start()
    desk.store(body(1))
    session = desk.log.session()
    desk.log.events.clear()
    peer = desk.listen(0, session=session)
    await desk.advance(2.0)
    assert peer.transport.ended is not None
    assert peer.transport.ended[0].may_reconnect
    await desk.hub.stop()


@pytest.mark.feature("T04", "T08")
async def test_closing_tells_everybody_in_band_and_spreads_their_return(desk: Desk) -> None:
    peers = [desk.listen(wire=wire, client_id=f"c{number}") for number, wire in enumerate(WIRES)]
    await settle(30)
    desk.commit(body(1))
    await desk.hub.close(retry_after=2.0)
    waits = []
    for peer in peers:
        assert peer.types[-2:] == ["message_created", "disconnect"], "what was emitted comes before the end"
        assert peer.transport.ended is not None
        code, farewell = peer.transport.ended
        assert code is ErrorCode.SHUTDOWN
        assert farewell.reconnect
        waits.append(farewell.retry_after_ms)
    assert len(set(waits)) == len(peers)
    assert all(wait is not None and 2_000 <= wait < 4_000 for wait in waits)
    with pytest.raises(ParleyError) as caught:
        desk.hub.enter(desk.session_id)
    assert caught.value.code is ErrorCode.SHUTDOWN
    await desk.hub.stop()
    await desk.hub.stop()


@pytest.mark.feature("T06")
async def test_streams_are_limited_for_the_session_and_in_all() -> None:
    desk = Desk(ChannelSettings(max_connections=3, max_session_connections=2))
    one, two, three = (UUID(int=number) for number in (1, 2, 3))
    desk.hub.enter(one)
    desk.hub.enter(one)
    with pytest.raises(ParleyError) as caught:
        desk.hub.enter(one)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert caught.value.retry_after is not None
    desk.hub.enter(two)
    with pytest.raises(ParleyError, match="server has too many"):
        desk.hub.enter(three)
    desk.hub.leave(two)
    desk.hub.enter(three)
    assert desk.hub.stats().connections_refused == 2


@pytest.mark.feature("S32")
async def test_statistics_count_connections_events_bytes_and_sessions(desk: Desk) -> None:
    peers = [desk.listen(wire=wire, client_id=f"c{number}") for number, wire in enumerate(WIRES)]
    await settle(30)
    desk.commit(body(1), body(2))
    await settle(30)
    stats = desk.hub.stats()
    assert stats.connections == {"websocket": 3, "sse": 2, "ndjson": 1}
    assert stats.sessions_with_subscribers == 1
    assert stats.events_sent == 6 * 4
    assert stats.bytes_sent == sum(len(peer.transport.data) for peer in peers)
    for peer in peers:
        desk.hub.unsubscribe(peer.subscriber)
    after = desk.hub.stats()
    assert after.connections == {}
    assert after.sessions_with_subscribers == 0
    assert (after.events_sent, after.bytes_sent) == (stats.events_sent, stats.bytes_sent)


async def test_a_lost_connection_is_swept_out(desk: Desk) -> None:
    await desk.hub.start()
    peer = desk.listen(wire=Wire("sse"))
    await settle(30)
    peer.transport.lose()
    await desk.advance(1.0)
    assert desk.hub.stats().connections == {}
    assert peer.subscriber.closed()
    await desk.hub.stop()


async def test_a_channel_nobody_listens_to_costs_nothing(desk: Desk) -> None:
    desk.commit(body(1))
    assert desk.hub._channels == {}
    peer = desk.listen()
    desk.hub.unsubscribe(peer.subscriber)
    desk.hub.unsubscribe(peer.subscriber)
    assert desk.hub._channels == {}
    await settle(30)
