"""Whatever happens in whatever order: all events once and in order for everybody, and the right texts at the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from protocol.delta import utf16_len
from protocol.events import MessageDelta
from server.channel.settings import ChannelSettings
from storage.commits import Committed
from tests.channel.fakes import WIRES, Desk, Peer, body
from tests.support.clock import settle

#: Small, so that every bound is met within a few steps.
SETTINGS = ChannelSettings(high_water=600, page_bytes=400, ring_bytes=900, reorder_events=3)

Step = tuple[str, int, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["store", "tell", "tell", "tell again", "join", "take", "unstick", "delta", "close", "turn", "turn", "poll"]
        ),
        st.integers(0, 7),
        st.integers(0, 700),
    ),
    min_size=1,
    max_size=60,
)


@dataclass
class World:
    """A hub, what was stored and not yet told, who listens since when, and the messages being written."""

    desk: Desk = field(default_factory=lambda: Desk(SETTINGS))
    untold: list[Committed] = field(default_factory=list)
    told: list[Committed] = field(default_factory=list)
    peers: list[tuple[Peer, int]] = field(default_factory=list)
    texts: dict[UUID, str] = field(default_factory=dict)
    attempts: dict[UUID, int] = field(default_factory=dict)

    async def step(self, step: Step) -> None:
        action, choice, size = step
        match action:
            case "store":
                self.untold.append(self.desk.store(*(body(number, size) for number in range(choice % 3 + 1))))
            case "tell" if self.untold:
                committed = self.untold.pop(choice % len(self.untold))
                self.told.append(committed)
                self.desk.hub.commit(committed)
            case "tell again" if self.told:
                self.desk.hub.commit(self.told[choice % len(self.told)])
            case "join":
                head = len(self.desk.log.events)
                after = None if choice == 7 else size % (head + 1)
                wire = WIRES[choice % len(WIRES)]
                peer = self.desk.listen(after, wire=wire, room=size if choice % 2 else None)
                self.peers.append((peer, peer.subscriber.position))
            case "take" if self.peers:
                peer, _ = self.peers[choice % len(self.peers)]
                if peer.transport._room is not None:
                    peer.transport.take(size)
            case "unstick" if self.peers:
                self.peers[choice % len(self.peers)][0].transport.unstick()
            case "delta":
                self.delta(UUID(int=choice % 2 + 1), "é🙂x"[size % 3] * (size % 50 + 1), restart=size > 650)
            case "close":
                self.close(UUID(int=choice % 2 + 1))
            case "poll":
                await self.desk.hub.poll()
            case _:
                await settle(choice % 3 + 1)

    def delta(self, message_id: UUID, text: str, *, restart: bool) -> None:
        if restart or message_id not in self.texts:
            self.attempts[message_id] = self.attempts.get(message_id, 0) + 1
            self.texts[message_id] = ""
        known = self.texts[message_id]
        self.texts[message_id] = known + text
        self.desk.hub.delta(
            self.desk.session_id,
            MessageDelta(
                message_id=message_id,
                attempt=self.attempts[message_id],
                part="content",
                offset=utf16_len(known),
                text=text,
            ),
        )

    def close(self, message_id: UUID) -> None:
        if self.texts.pop(message_id, None) is not None:
            committed = self.desk.store(body(0))
            self.told.append(committed)
            self.desk.hub.commit(committed, closes=message_id)


async def play(steps: list[Step]) -> None:
    world = World()
    for step in steps:
        await world.step(step)
    for peer, _ in world.peers:
        peer.transport.unstick()
    await settle(50)
    # What nobody told of is found by the poll.
    await world.desk.hub.poll()
    for _ in range(10):
        await world.desk.advance(5.0)
    head = len(world.desk.log.events)
    for peer, begin in world.peers:
        assert peer.seqs == list(range(begin + 1, head + 1))
        assert peer.types[0] == "connected"
        assert peer.types.count("sync") == 1
        assert peer.subscriber.state == "live"
        for message_id, text in world.texts.items():
            assert peer.text(message_id) == text
    stored = {event.seq: event.body for event in world.desk.log.events}
    for peer, _ in world.peers:
        if peer.transport.wire.framing != "ws-msgpack":
            assert all(bytes(event.payload) == stored[event.seq] for event in peer.events if event.seq is not None)
    await world.desk.hub.stop()


@given(STEPS)
def test_every_subscriber_gets_every_event_once_and_in_order_and_ends_with_the_right_texts(steps: list[Step]) -> None:
    asyncio.run(play(steps))
