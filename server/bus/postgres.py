"""The bus over LISTEN and NOTIFY: nothing to install, and nothing said while nobody is there to hear it.

Everybody listens to one channel for all and to one of its own. Hints (ids alone) go to all, texts being written to the
processes that want to hear their session (`interests.py`). What a turn of the loop said goes out in one statement once
the turn is over, never in the transaction that wrote: NOTIFY in there would make commits wait for each other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import structlog

from protocol.errors import ErrorCode, ParleyError
from protocol.events import MessageDelta, Payload
from server.bus.hearing import Hearing
from server.bus.interests import Interests
from server.bus.interface import BusState, BusStats, Ear
from server.bus.outbox import Outbox
from server.bus.packets import Bye, Closed, Hello, Item, Stir, Transient, Want, Writing, pack
from server.bus.peers import Peers
from server.bus.settings import BusSettings
from server.clock import Clock
from storage.listen import MAX_PAYLOAD, Line

__all__ = ["PostgresBus"]

_log: Final = structlog.stdlib.get_logger("server.bus")

_ALL: Final = "parley_bus"
#: Payloads in one statement.
_MOST_PAYLOADS: Final = 64
#: Pauses before the next try to connect, in seconds; the last one repeats, each is shortened by chance.
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: How long what was said to all may take to be heard by whoever said it. Longer, and nobody hears anything: a pooler
#: between us and the database that lends connections to others takes our listening along.
_ECHO_PATIENCE: Final = 5.0
_LAST_WORDS: Final = 1.0
#: A connection that held for so long is no failed try.
_STEADY: Final = 10.0


class PostgresBus:
    """One process's end of the bus. `address` is what `Database.open` takes, asked for at each connection."""

    def __init__(
        self,
        address: Callable[[], str | Mapping[str, Any]],
        worker_id: UUID,
        clock: Clock,
        settings: BusSettings | None = None,
    ) -> None:
        self.on_stir: Callable[[UUID], None] = lambda turn_id: None
        self._address = address
        self._me = worker_id
        self._clock = clock
        self._settings = settings or BusSettings()
        self._interests = Interests(self._settings.interest)
        self._peers = Peers(2 * self._settings.look_interval)
        self._outbox = Outbox()
        self._ear: Ear
        self._hearing: Hearing
        self._line: Line | None = None
        self._running: asyncio.Task[None] | None = None
        self._echo = asyncio.Event()
        self._connections = 0
        self._sent = 0
        self._payloads = 0
        #: Whether there is anybody to talk to: the one question that is asked at every piece of every message.
        self._silent = True

    # --- life

    def attach(self, ear: Ear) -> None:
        """Whom to tell what is heard."""
        self._ear = ear
        self._hearing = Hearing(self._me, ear, self)

    async def start(self) -> None:
        """Begin to listen, and go on trying. Idempotent."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="bus")

    async def stop(self) -> None:
        """Say what is left to be said, and good-bye. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @property
    def state(self) -> BusState:
        """How it is at this moment."""
        if self._line is None:
            return "away"
        return "connected" if self._peers else "alone"

    @property
    def alone(self) -> bool:
        """Whether no other process is there, as far as is known; true before the first look."""
        return not self._peers

    def stats(self) -> BusStats:
        """What was said and heard since the start."""
        return BusStats(
            state=self.state,
            peers=len(self._peers),
            sent=self._sent,
            payloads=self._payloads,
            heard=self._hearing.heard,
            dropped=self._outbox.dropped,
            foreign=self._hearing.foreign,
            reconnects=max(0, self._connections - 1),
        )

    # --- what is said

    def hint(self, session_id: UUID, seq: int) -> None:
        """Events up to `seq` were committed (0: some were)."""
        if not self._silent:
            self._outbox.hint(session_id, seq)

    def delta(self, session_id: UUID, delta: MessageDelta) -> None:
        """A piece of a message that is being written here."""
        if self._silent:
            return
        if self._interests.wanted_by(session_id):
            self._outbox.delta(session_id, delta)
        elif self._interests.should_probe(session_id, self._clock.monotonic()):
            # Whoever answers gets this piece with the text so far.
            self._outbox.say(Writing(session_id))

    def closed(self, session_id: UUID, message_id: UUID, attempt: int) -> None:
        """This process writes the message no longer, and it is not complete."""
        self.say(Closed(session_id, message_id, attempt))

    def transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        """Something that is true only now."""
        if not self._silent:
            self.say(Transient.of(session_id, event_type, payload))

    def stir(self, turn_id: UUID) -> None:
        """A turn that another process may run has news."""
        self.say(Stir(turn_id))

    def follow(self, session_id: UUID) -> None:
        """Somebody here listens to the session from now on."""
        self.say(Want(session_id, text=True))

    def say(self, item: Item) -> None:
        """Something for all."""
        if not self._silent:
            self._outbox.say(item)

    # --- what was heard, and concerns the bus itself

    def came(self, peer: UUID) -> bool:
        """Something was heard of a process; whether it is new."""
        new = self._peers.heard(peer, self._clock.monotonic())
        if new:
            _log.info("bus_peer_came", peer=str(peer))
            self._interests.forget(peer)
            self._settle()
        return new

    def went(self, peer: UUID) -> None:
        """A process said good-bye."""
        self._peers.left(peer, self._clock.monotonic())
        self._interests.forget(peer)
        self._settle()

    def wanted(self, session_id: UUID, peer: UUID) -> None:
        """A process wants to hear a session."""
        self._interests.want(session_id, peer, self._clock.monotonic())

    def tell(self, peer: UUID, *items: Item) -> None:
        """Something for one process alone."""
        if not self._silent:
            self._outbox.tell(peer, *items)

    def asked(self, session_id: UUID, peer: UUID) -> None:
        """A process asks who wants to hear a session, and somebody listens to it here."""
        self._interests.tell(session_id, peer, self._clock.monotonic())
        # That it asks means that it has not told us, or not all.
        self.tell(peer, Want(session_id, text=True))

    def hears(self, session_id: UUID, peer: UUID) -> None:
        """A piece was heard of a session that is listened to here: the wish for more is renewed in time."""
        now = self._clock.monotonic()
        if self._interests.should_renew(session_id, peer, now):
            self._interests.tell(session_id, peer, now)
            self.tell(peer, Want(session_id, text=False))

    def lacks(self, session_id: UUID, peer: UUID) -> None:
        """A piece was heard that continues nothing known here: ask for what lies before it."""
        if self._interests.should_ask(session_id, self._clock.monotonic()):
            self.tell(peer, Want(session_id, text=True))

    def echoed(self) -> None:
        """Something that we said to all came back to us."""
        self._echo.set()

    # --- inside

    async def _run(self) -> None:
        tries = 0
        while True:
            began = self._clock.monotonic()
            reason = await self._connect()
            if self._clock.monotonic() - began >= _STEADY:
                tries = 0
            if not tries:
                _log.warning("bus_away", reason=reason)
            await self._clock.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)] * random.uniform(0.5, 1.0))  # noqa: S311
            tries += 1

    async def _connect(self) -> str:
        """Connect, and talk over the line until it is lost; why it was."""
        try:
            line = await Line.open(self._address(), [_ALL, _own(self._me)], self._take)
        except ParleyError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - the server works without a bus; a mistake of ours is logged whole
            _log.exception("bus_failed")
            return str(error)
        try:
            return await self._serve(line)
        except asyncio.CancelledError:
            await self._take_leave(line)
            raise
        finally:
            self._line = None
            self._settle()
            await line.close()

    async def _take_leave(self, line: Line) -> None:
        self.say(Bye())
        with suppress(ParleyError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self._send(line, texts=True)

    async def _serve(self, line: Line) -> str:
        """Talk over a line until it is lost; why it was."""
        reason = ""
        try:
            await self._begin(line)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look(line), name="bus:look")
                tasks.create_task(self._say(line), name="bus:say")
                tasks.create_task(self._say_texts(line), name="bus:texts")
                await line.lost.wait()
                raise ParleyError(ErrorCode.UNAVAILABLE, "the connection was lost")
        except* ParleyError as group:
            reason = str(group.exceptions[0])
        except* Exception as group:  # noqa: BLE001 - the server works without a bus, and this one begins anew
            _log.exception("bus_failed")
            reason = str(group.exceptions[0])
        return reason

    async def _begin(self, line: Line) -> None:
        await self._look_once(line)
        self._line = line
        self._connections += 1
        self._settle()
        if self._connections > 1:
            _log.info("bus_back")
            self._ear.on_missed()

    async def _look(self, line: Line) -> None:
        """See who is there, again and again; whoever is not alone says that it is there."""
        introduced = False
        while True:
            if self._peers and not introduced:
                introduced = True
                await self._introduce()
            await self._clock.sleep(self._settings.look_interval)
            await self._look_once(line)

    async def _look_once(self, line: Line) -> None:
        now = self._clock.monotonic()
        for peer in self._peers.seen(await line.others(self._me), now):
            _log.info("bus_peer_seen", peer=str(peer))
            self._interests.forget(peer)
            self._ear.on_missed()
        self._interests.prune(now)
        self._settle()

    async def _introduce(self) -> None:
        self._echo.clear()
        self._outbox.say(Hello())
        # Others may have begun to listen, or stopped to hear, while we did not know of each other.
        for session_id in self._ear.writing():
            self._outbox.say(Writing(session_id))
        echo = asyncio.create_task(self._echo.wait())
        patience = asyncio.create_task(self._clock.sleep(_ECHO_PATIENCE))
        try:
            await asyncio.wait({echo, patience}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            heard = echo.done()
            echo.cancel()
            patience.cancel()
            await asyncio.gather(echo, patience, return_exceptions=True)
        if not heard:
            raise ParleyError(ErrorCode.UNAVAILABLE, "NOTIFY does not reach LISTEN: is a pooler in between?")

    async def _say(self, line: Line) -> None:
        while True:
            await self._outbox.urgent.wait()
            await self._send(line, texts=False)

    async def _say_texts(self, line: Line) -> None:
        while True:
            await self._outbox.texts.wait()
            await self._send(line, texts=True)
            await self._clock.sleep(self._settings.rollup)

    async def _send(self, line: Line, *, texts: bool) -> None:
        direct, broadcast = self._outbox.take(self._interests.wanted_by, texts=texts)
        self._sent += len(broadcast) + sum(map(len, direct.values()))
        messages = [
            (channel, payload)
            for channel, items in (*((_own(peer), items) for peer, items in direct.items()), (_ALL, broadcast))
            for payload in pack(self._me, items, MAX_PAYLOAD)
        ]
        self._payloads += len(messages)
        for first in range(0, len(messages), _MOST_PAYLOADS):
            await line.notify(messages[first : first + _MOST_PAYLOADS])

    def _take(self, _channel: str, payload: str) -> None:
        self._hearing.take(payload)

    def _settle(self) -> None:
        """Find out anew whether there is anybody to talk to."""
        silent = self._line is None or not self._peers
        if silent and not self._silent:
            self._outbox.clear()
        self._silent = silent


def _own(worker_id: UUID) -> str:
    return f"{_ALL}_{worker_id.hex}"
