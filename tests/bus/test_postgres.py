"""The bus on a real PostgreSQL: what is said arrives once, in order, and nothing is said to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from protocol.events import MessageDelta, PresenceChanged, Warning_
from protocol.parts import ClientInfo
from server.bus.local import LocalBus
from server.bus.packets import Hello, Hint, Piece, encode_item, pack
from server.bus.postgres import PostgresBus
from server.clock import SystemClock
from storage.listen import MAX_PAYLOAD
from storage.pool import Database
from tests.bus.ears import PATIENCE, Company, NotingEar, probe
from tests.support.database import Cluster

SESSION, OTHER, MESSAGE = uuid4(), uuid4(), uuid4()


@pytest.fixture
async def company(cluster: Cluster) -> AsyncIterator[Company]:
    name = await cluster.create()
    database = Database()
    await database.open(cluster.connect_args(name))
    company = Company(database, cluster.connect_args(name))
    yield company
    await company.stop()
    await database.close()
    await cluster.drop(name)


def delta(offset: int, text: str) -> MessageDelta:
    return MessageDelta(message_id=MESSAGE, attempt=1, part="content", offset=offset, text=text)


class Eavesdropper:
    """Somebody else on the database, who hears everything that is said to all, and may say anything."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def listen(self) -> None:
        await self.connection.add_listener("parley_bus", lambda *said: self.heard.put_nowait(said[3]))

    async def say(self, payload: str) -> None:
        await self.connection.execute("SELECT pg_notify('parley_bus', $1)", payload)

    async def next(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.heard.get()


@pytest.fixture
async def eavesdropper(company: Company) -> AsyncIterator[Eavesdropper]:
    connection = await asyncpg.connect(**company.address)
    eavesdropper = Eavesdropper(connection)
    await eavesdropper.listen()
    yield eavesdropper
    await connection.close()


async def test_a_process_that_is_alone_says_nothing(company: Company, eavesdropper: Eavesdropper) -> None:
    bus, _ = await company.join()
    assert (bus.state, bus.alone) == ("alone", True)
    bus.hint(SESSION, 1)
    bus.delta(SESSION, delta(0, "text"))
    bus.transient(SESSION, "warning", Warning_(code="c", message="m"))
    bus.stir(MESSAGE)
    bus.follow(SESSION)
    bus.closed(SESSION, MESSAGE, 1)
    await bus.stop()
    # Notifications are heard in order, so this one would come after all that was said before.
    await eavesdropper.say("mine")
    assert await eavesdropper.next() == "mine"
    assert (bus.stats().sent, bus.stats().payloads) == (0, 0)


@pytest.mark.feature("T10")
async def test_a_new_process_is_noticed_at_once(company: Company) -> None:
    one, ear = await company.join()
    assert one.alone
    # Nobody looks at the table for an hour: it is what the new one says of itself that is heard.
    two, _ = await company.join()
    await ear.until(lambda: not one.alone)
    assert (one.state, two.state) == ("connected", "connected")
    await two.stop()
    await probe(lambda: one.alone)


@pytest.mark.feature("T10")
async def test_what_a_turn_of_the_loop_said_goes_out_together_and_in_order(company: Company) -> None:
    (one, _), (two, ear) = await company.pair()
    before = one.stats()
    for seq in (1, 2, 3):
        one.hint(SESSION, seq)
    one.hint(OTHER, 0)
    one.stir(MESSAGE)
    one.transient(SESSION, "warning", Warning_(code="c", message="m"))
    one.closed(SESSION, MESSAGE, 4)
    await ear.until(lambda: bool(ear.closed))
    assert ear.hints == [(SESSION, 3), (OTHER, 0)]
    assert ear.stirred == [MESSAGE]
    assert ear.transients == [("warning", Warning_(code="c", message="m"))]
    assert ear.closed == [(MESSAGE, 4)]
    after = one.stats()
    assert (after.sent - before.sent, after.payloads - before.payloads) == (5, 1)
    assert two.stats().foreign == 0


@pytest.mark.feature("T10", "A01")
async def test_texts_go_where_somebody_listens_and_begin_with_what_was_written_before(company: Company) -> None:
    (one, mine), (two, ear) = await company.pair()
    ear.followed.add(SESSION)
    # Nobody has said yet that he listens; who does is asked, and gets what was written until then.
    mine.written[SESSION] = [delta(0, "It was ")]
    one.delta(SESSION, delta(0, "It was "))
    await ear.until(lambda: ear.text == "It was ")
    one.delta(SESSION, delta(7, "a dark "))
    one.delta(SESSION, delta(14, "and stormy night"))
    one.delta(OTHER, delta(0, "nobody listens to this"))
    await ear.until(lambda: ear.text == "It was a dark and stormy night")
    assert {one.message_id for one in ear.deltas} == {MESSAGE}
    assert ear.deltas[-1].text == "a dark and stormy night", "pieces that follow each other are one"
    assert two.stats().dropped == 0


async def test_who_begins_to_listen_is_given_the_text_so_far_at_once(company: Company) -> None:
    (_, mine), (two, ear) = await company.pair()
    mine.written[SESSION] = [delta(0, "x" * 50_000)]
    ear.followed.add(SESSION)
    two.follow(SESSION)
    await ear.until(lambda: len(ear.text) == 50_000)


async def test_a_piece_that_was_lost_is_asked_for(company: Company) -> None:
    (one, mine), (two, ear) = await company.pair()
    ear.followed.add(SESSION)
    two.follow(SESSION)
    two.hint(SESSION, 1)
    await mine.until(lambda: bool(mine.hints))
    mine.written[SESSION] = [delta(0, "one two three")]
    one.delta(SESSION, delta(8, "three"))
    await ear.until(lambda: ear.text == "one two three")


async def test_what_is_larger_than_a_payload_arrives(company: Company) -> None:
    (one, _), (_, ear) = await company.pair()
    client = ClientInfo(client_id="c", transport="sse", tools=[f"tool_{number:060}" for number in range(256)])
    one.transient(SESSION, "presence_changed", PresenceChanged(change="joined", client=client, clients=1))
    one.stir(MESSAGE)
    await ear.until(lambda: bool(ear.stirred))
    ((_, changed),) = ear.transients
    assert isinstance(changed, PresenceChanged)
    assert changed.client == client


@pytest.mark.feature("T10")
async def test_regression_29_a_connection_that_is_cut_comes_back_and_everything_is_looked_at(company: Company) -> None:
    (one, mine), (two, ear) = await company.pair()
    for _ in range(3):
        missed, reconnects = (mine.missed, ear.missed), (one.stats().reconnects, two.stats().reconnects)
        assert await company.cut() >= 2
        await probe(lambda: (one.stats().reconnects, two.stats().reconnects) > reconnects)  # noqa: B023
        await mine.until(lambda: mine.missed > missed[0])  # noqa: B023
        await ear.until(lambda: ear.missed > missed[1])  # noqa: B023
        await probe(lambda: one.state == two.state == "connected")
        ear.hints.clear()
        while not ear.hints:
            # The other one may still be on its way back.
            one.hint(SESSION, 9)
            await asyncio.sleep(0)
        assert ear.hints[0] == (SESSION, 9)


async def test_a_stranger_can_say_anything_and_changes_nothing(company: Company, eavesdropper: Eavesdropper) -> None:
    (one, _), (_, ear) = await company.pair()
    for payload in ("", "hello", "{}", '["x",[]]', "[[[[", '{"origin":1}'):
        await eavesdropper.say(payload)
    await eavesdropper.say(f'["{uuid4()}",[["nonsense"],["h",1],7,["t","{SESSION}","message_created",{{}}]]]')
    one.stir(MESSAGE)
    await ear.until(lambda: bool(ear.stirred))
    assert (ear.hints, ear.transients, ear.deltas) == ([], [], [])
    assert one.stats().foreign == 6


async def test_what_we_said_ourselves_is_not_heard(company: Company, eavesdropper: Eavesdropper) -> None:
    (one, mine), (_, ear) = await company.pair()
    one.hint(SESSION, 1)
    await ear.until(lambda: bool(ear.hints))
    await eavesdropper.say(next(pack(uuid4(), [encode_item(Hint(OTHER, 2))], MAX_PAYLOAD)))
    await mine.until(lambda: bool(mine.hints))
    assert mine.hints == [(OTHER, 2)]


async def test_a_process_that_listens_anew_is_asked_again_what_it_wants(
    company: Company, eavesdropper: Eavesdropper
) -> None:
    (one, mine), (_, ear) = await company.pair()
    stranger = UUID(int=7)
    await eavesdropper.say(next(pack(stranger, [encode_item(Hello())], MAX_PAYLOAD)))
    await mine.until(lambda: one.stats().peers == 2)
    missed = mine.missed
    await eavesdropper.say(next(pack(stranger, [encode_item(Hello())], MAX_PAYLOAD)))
    await mine.until(lambda: mine.missed > missed)
    # A stranger's text for a session that nobody listens to is not even looked at.
    piece = Piece(OTHER, MESSAGE, 1, "content", None, 0, "text")
    await eavesdropper.say(next(pack(stranger, [encode_item(piece), encode_item(Hint(OTHER, 1))], MAX_PAYLOAD)))
    await ear.until(lambda: bool(ear.hints))
    assert ear.deltas == []


async def test_a_bus_without_a_database_is_away_and_no_error() -> None:
    bus = PostgresBus(lambda: {"host": "/nowhere", "user": "nobody", "database": "none"}, uuid4(), SystemClock())
    bus.attach(NotingEar())
    await bus.start()
    await bus.start()
    bus.hint(SESSION, 1)
    assert bus.state == "away"
    await bus.stop()
    await bus.stop()


async def test_a_server_by_itself_needs_no_bus() -> None:
    bus = LocalBus()
    bus.attach(NotingEar())
    await bus.start()
    bus.hint(SESSION, 1)
    bus.delta(SESSION, delta(0, "text"))
    bus.closed(SESSION, MESSAGE, 1)
    bus.transient(SESSION, "warning", Warning_(code="c", message="m"))
    bus.stir(MESSAGE)
    bus.follow(SESSION)
    assert (bus.state, bus.alone, bus.stats().sent) == ("alone", True, 0)
    bus.on_stir(MESSAGE)
    await bus.stop()


async def test_a_bus_that_does_not_hear_itself_is_away(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a pooler, which gives the connection that listens to somebody else."""
    _, ear = await company.join()
    monkeypatch.setattr("server.bus.postgres._ECHO_PATIENCE", 0.01)

    async def swallow(*_: object) -> None:
        """It is said to nobody."""

    monkeypatch.setattr("storage.listen.Line.notify", swallow)
    deaf, _ = await company.join()
    await probe(lambda: deaf.state == "away")
    monkeypatch.undo()
    await ear.until(lambda: ear.missed > 0)
    await probe(lambda: deaf.state == "connected")
