"""What other processes say, as subscribers here see it: every event and piece once, in order, whatever got lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from protocol.events import AgentStatusChanged, ApprovalRequired, MessageDelta, Payload, ToolDispatched
from server.bus import BusState, BusStats, Ear
from tests.channel.fakes import Desk
from tests.support.clock import settle

MESSAGE, STRANGER = UUID(int=1), UUID(int=2)


class NotingBus:
    """Notes what is said; what is heard is said to its `ear` by the test."""

    def __init__(self) -> None:
        self.on_stir: Callable[[UUID], None] = lambda turn_id: None
        self.said: list[tuple[object, ...]] = []
        self.ear: Ear
        self.state: BusState = "connected"
        self.alone = False

    def attach(self, ear: Ear) -> None:
        self.ear = ear

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def stats(self) -> BusStats:
        return BusStats(state=self.state)

    def hint(self, session_id: UUID, seq: int) -> None:
        self.said.append(("hint", seq))

    def delta(self, session_id: UUID, delta: MessageDelta) -> None:
        self.said.append(("delta", delta.text))

    def closed(self, session_id: UUID, message_id: UUID, attempt: int) -> None:
        self.said.append(("closed", message_id, attempt))

    def transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        self.said.append(("transient", event_type))

    def stir(self, turn_id: UUID) -> None:
        self.said.append(("stir", turn_id))

    def follow(self, session_id: UUID) -> None:
        self.said.append(("follow", session_id))


class Open:
    """What is open, as the tables would say; the database is away for the first few questions."""

    def __init__(self, *payloads: Payload, away: int = 0) -> None:
        self.payloads = payloads
        self.away = away
        self.asked: list[str] = []

    async def of(self, session_id: UUID, client_id: str) -> Sequence[Payload]:
        self.asked.append(client_id)
        if len(self.asked) <= self.away:
            raise ParleyError(ErrorCode.UNAVAILABLE, "away")
        return self.payloads


@pytest.fixture
def bus() -> NotingBus:
    return NotingBus()


@pytest.fixture
def desk(bus: NotingBus) -> Desk:
    desk = Desk()
    desk.hub.connect(bus)
    return desk


def delta(offset: int, text: str, *, attempt: int = 1, message_id: UUID = MESSAGE) -> MessageDelta:
    return MessageDelta(message_id=message_id, attempt=attempt, part="content", offset=offset, text=text)


def message(message_id: UUID = MESSAGE) -> bytes:
    return msgspec.json.encode({"message_id": message_id, "role": "assistant", "content": "x"})


@pytest.mark.feature("T10")
async def test_what_happens_here_is_said_and_what_is_heard_is_not_said_again(desk: Desk, bus: NotingBus) -> None:
    session_id = desk.session_id
    desk.listen()
    await settle(30)
    assert bus.said == [("follow", session_id)]
    desk.hub.delta(session_id, delta(0, "mine"))
    desk.hub.close_message(session_id, MESSAGE)
    desk.hub.close_message(session_id, MESSAGE)
    desk.commit(message(), message())
    desk.hub.wake(session_id)
    desk.hub.transient(session_id, "agent_status_changed", AgentStatusChanged(agent_type="coder", status="idle"))
    said = [
        ("delta", "mine"),
        ("closed", MESSAGE, 1),
        ("hint", 2),
        ("hint", 0),
        ("transient", "agent_status_changed"),
    ]
    assert bus.said[1:] == said
    desk.store(message())
    bus.ear.on_hint(session_id, 3)
    bus.ear.on_delta(session_id, delta(0, "theirs", message_id=STRANGER))
    bus.ear.on_transient(session_id, "agent_status_changed", AgentStatusChanged(agent_type="coder", status="idle"))
    bus.ear.on_closed(session_id, STRANGER, 1)
    await settle(30)
    assert bus.said[1:] == said


async def test_a_commit_is_told_to_others_although_nobody_listens_here(desk: Desk, bus: NotingBus) -> None:
    desk.commit(message())
    assert bus.said == [("hint", 1)]


@pytest.mark.feature("T10", "S05")
async def test_a_hint_lets_the_log_be_read(desk: Desk, bus: NotingBus) -> None:
    peer = desk.listen()
    await settle(30)
    for seq in (2, 1, 4):
        desk.store(message())
        bus.ear.on_hint(desk.session_id, min(seq, len(desk.log.events)))
    desk.store(message())
    bus.ear.on_hint(desk.session_id, 0)
    await settle(30)
    assert peer.seqs == [1, 2, 3, 4]


async def test_a_hint_that_is_far_out_is_looked_into_before_it_is_believed(desk: Desk, bus: NotingBus) -> None:
    peer = desk.listen()
    await settle(30)
    desk.store(message())
    bus.ear.on_hint(desk.session_id, 2**50)
    await settle(30)
    assert peer.seqs == [1]
    reads = desk.log.reads
    await desk.advance(60.0)
    assert desk.log.reads == reads, "nothing is waited for that is not there"


@pytest.mark.feature("T10", "A01")
async def test_pieces_of_another_process_are_shown_once_whatever_is_repeated(desk: Desk, bus: NotingBus) -> None:
    peer = desk.listen()
    await settle(30)
    hear = bus.ear.on_delta
    assert hear(desk.session_id, delta(0, "It was "))
    assert hear(desk.session_id, delta(0, "It was a "))
    assert hear(desk.session_id, delta(3, "was"))
    assert not hear(desk.session_id, delta(15, "night")), "a gap is reported, and nothing of it shown"
    assert hear(desk.session_id, delta(0, "It was a dark "))
    assert hear(desk.session_id, delta(14, "night"))
    late = desk.listen(client_id="late")
    await settle(30)
    assert peer.text(MESSAGE) == late.text(MESSAGE) == "It was a dark night"


async def test_a_new_attempt_begins_afresh_and_an_old_one_is_not_heard(desk: Desk, bus: NotingBus) -> None:
    peer = desk.listen()
    await settle(30)
    hear = bus.ear.on_delta
    hear(desk.session_id, delta(0, "first try"))
    assert not hear(desk.session_id, delta(4, "try", attempt=2))
    hear(desk.session_id, delta(0, "second try", attempt=2))
    assert hear(desk.session_id, delta(9, " goes on"))
    await settle(30)
    assert peer.text(MESSAGE) == "second try"
    # It is taken over here, and the stale one still talks.
    desk.hub.delta(desk.session_id, delta(0, "third", attempt=3))
    hear(desk.session_id, delta(0, "second try again", attempt=2))
    bus.ear.on_closed(desk.session_id, MESSAGE, 3)
    await settle(30)
    assert peer.text(MESSAGE) == "third"
    assert [one.text for one in desk.hub.live(desk.session_id)] == ["third"]


async def test_the_durable_message_closes_what_another_process_wrote(desk: Desk, bus: NotingBus) -> None:
    desk.listen()
    await settle(30)
    bus.ear.on_delta(desk.session_id, delta(0, "text"))
    assert len(desk.hub.live(desk.session_id)) == 1
    desk.store(message())
    bus.ear.on_hint(desk.session_id, 1)
    await settle(30)
    assert desk.hub.live(desk.session_id) == []
    # What was still on its way comes too late, and opens nothing.
    assert bus.ear.on_delta(desk.session_id, delta(0, "text and more"))
    assert desk.hub.live(desk.session_id) == []


async def test_an_attempt_that_was_given_up_elsewhere_is_forgotten(desk: Desk, bus: NotingBus) -> None:
    desk.listen()
    await settle(30)
    bus.ear.on_delta(desk.session_id, delta(0, "text", attempt=2))
    bus.ear.on_closed(desk.session_id, MESSAGE, 1)
    assert len(desk.hub.live(desk.session_id)) == 1
    bus.ear.on_closed(desk.session_id, MESSAGE, 2)
    assert desk.hub.live(desk.session_id) == []


async def test_an_answer_never_comes_before_its_question(desk: Desk, bus: NotingBus) -> None:
    peer = desk.listen()
    await settle(30)
    desk.store(message(uuid4()), b"{}")
    bus.ear.on_hint(desk.session_id, 2)
    for offset, text in ((0, "an "), (3, "answer")):
        assert bus.ear.on_delta(desk.session_id, delta(offset, text))
    await settle(30)
    assert peer.types == ["connected", "sync", "message_created", "message_created", "message_delta"]
    assert peer.text(MESSAGE) == "an answer"


async def test_what_nobody_here_listens_to_is_not_kept(desk: Desk, bus: NotingBus) -> None:
    assert bus.ear.on_delta(desk.session_id, delta(5, "nobody"))
    assert not bus.ear.follows(desk.session_id)
    peer = desk.listen()
    await settle(30)
    assert bus.ear.follows(desk.session_id)
    bus.ear.on_delta(desk.session_id, delta(0, "theirs", message_id=STRANGER))
    desk.hub.delta(desk.session_id, delta(0, "mine"))
    assert [one.text for one in bus.ear.texts(desk.session_id)] == ["mine"], "others have what they wrote"
    desk.hub.unsubscribe(peer.subscriber)
    assert [one.text for one in desk.hub.live(desk.session_id)] == ["mine"]
    desk.hub.close_message(desk.session_id, MESSAGE)
    assert bus.ear.texts(desk.session_id) == ()


async def test_after_silence_everything_is_looked_at_once(desk: Desk, bus: NotingBus) -> None:
    peer = desk.listen()
    await settle(30)
    desk.store(message())
    bus.ear.on_missed()
    await settle(30)
    assert peer.seqs == [1]


APPROVAL = ApprovalRequired(
    approval_id=UUID(int=5),
    call_id="call",
    turn_id=UUID(int=6),
    message_id=MESSAGE,
    name="write_file",
    arguments={"path": "a"},
    arguments_hash="00",
    allowed_decisions=["approve"],
    expires_at=None,
)
DISPATCHED = ToolDispatched(
    call_id="call", turn_id=UUID(int=6), deadline=None, name="read_file", arguments={}, client_id="c1"
)


@pytest.mark.feature("A03", "T02")
async def test_who_joins_in_mid_turn_is_told_again_what_is_open(bus: NotingBus) -> None:
    desk, opened = Desk(), Open(APPROVAL, DISPATCHED, away=2)
    desk.hub.connect(bus, opened)
    desk.store(b"{}", event_type="task_started")
    busy = msgspec.structs.replace(desk.log.session(), active_turn=UUID(int=6))
    peer = desk.listen(0, session=busy)
    desk.hub.delta(desk.session_id, delta(0, "text"))
    # The database is away for a moment: that is waited for, as anywhere.
    for _ in range(3):
        await desk.advance(1.0)
    desk.commit(b"{}")
    await settle(30)
    assert peer.types == [
        "connected",
        "task_started",
        "sync",
        "approval_required",
        "tool_dispatched",
        "message_delta",
        "message_created",
    ]
    asked_again = [event for event in peer.events if event.event_type in {"approval_required", "tool_dispatched"}]
    assert {event.seq for event in asked_again} == {None}, "they are reminders, and have no number"
    assert [event.decode() for event in asked_again] == [APPROVAL, DISPATCHED]
    assert opened.asked == ["c1"] * 3


async def test_what_happens_while_it_is_asked_what_is_open_comes_after_it(bus: NotingBus) -> None:
    here = Desk()

    class Slow(Open):
        async def of(self, session_id: UUID, client_id: str) -> Sequence[Payload]:
            # Somebody decides, a moment after the tables were read.
            found = await super().of(session_id, client_id)
            here.commit(b"{}")
            return found

    here.hub.connect(bus, Slow(APPROVAL))
    peer = here.listen(session=msgspec.structs.replace(here.log.session(), active_turn=UUID(int=6)))
    await settle(30)
    assert peer.types == ["connected", "sync", "approval_required", "message_created"]


async def test_where_no_turn_is_under_way_nothing_is_asked(bus: NotingBus) -> None:
    desk, opened = Desk(), Open(APPROVAL)
    desk.hub.connect(bus, opened)
    desk.listen()
    await settle(30)
    assert opened.asked == []


async def test_a_writer_that_was_paused_shows_nothing_of_what_others_have_finished(desk: Desk, bus: NotingBus) -> None:
    peer = desk.listen()
    await settle(30)
    desk.hub.delta(desk.session_id, delta(0, "first "))
    await settle(30)
    # It slept past its lease; another process wrote the message again, and completed it.
    bus.ear.on_delta(desk.session_id, delta(0, "again", attempt=2))
    desk.hub.delta(desk.session_id, delta(6, "goes on"))
    desk.store(message())
    bus.ear.on_hint(desk.session_id, 1)
    await settle(30)
    desk.hub.delta(desk.session_id, delta(13, " and on"))
    await settle(30)
    assert peer.types == ["connected", "sync", "message_delta", "message_delta", "message_created"]
    assert peer.text(MESSAGE) == "again"
    assert desk.hub.live(desk.session_id) == []
