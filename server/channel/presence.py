"""Who is on which session, on all processes, and which tools they offer.

A client is on a session while it has a connection to it, at whatever process; several connections are one client. What
this process knows is written to a table, many at once and behind everybody's back: connecting waits for none of it.
While no other process is there, nobody reads the table either.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct

from protocol.commands import RegisterTools, ToolDescription
from protocol.errors import ErrorCode, ParleyError
from protocol.events import ClientInfo, Payload, PresenceChanged
from protocol.parts import SessionRole
from server.bus import Bus
from server.channel.offered import Checker
from server.channel.tasks import Tasks
from server.channel.watching import Watcher, Watching
from server.clock import Clock
from storage.presence import Arrival, Departed, PresenceTable, Present, Tools
from storage.sessions import Session

__all__ = ["Offer", "Presence", "Watcher"]

_log: Final = structlog.stdlib.get_logger("server.channel")

#: Rows written by one statement.
_PAGE: Final = 1_000
#: How often the table is compared with what is so, and looked at for clients of dead processes, in seconds.
_SWEEP: Final = 3.0
#: The pause after a failed write, in seconds; the next sweep tries again anyway.
_PAUSE: Final = 1.0
#: In sessions with more clients than this, their coming and going is not announced: it would be news for everybody
#: about everybody.
_ANNOUNCED: Final = 64
#: Bytes of all the tools that this process keeps.
_ALL_TOOLS_BYTES: Final = 64 << 20

_Key: TypeAlias = tuple[UUID, str]
_tools_of: Final = msgspec.json.Decoder(list[ToolDescription])


class Offer(Struct, frozen=True, kw_only=True):
    """A client that is on the session now, and the tools that it registered, at `tools_at`."""

    client_id: str
    tools: Sequence[ToolDescription]
    tools_at: datetime


class _Client:
    """A client that is at this process."""

    __slots__ = ("connections", "role", "tools", "transport", "user_id")

    def __init__(self, user_id: str, role: SessionRole, transport: str) -> None:
        self.user_id = user_id
        self.role = role
        self.transport = transport
        self.connections = 0
        self.tools: Tools | None = None


class Presence:
    """The clients of all sessions, as far as this process has, or can find, them.

    `tell` shows a transient event to everybody on a session, wherever they are; `refuse` ends the connections here of
    a client whose name another user has.
    """

    def __init__(
        self,
        table: PresenceTable,
        bus: Bus,
        clock: Clock,
        *,
        tell: Callable[[UUID, str, Payload], None],
        refuse: Callable[[UUID, str], None],
        max_tools: int,
    ) -> None:
        self.watching = Watching()
        self._table = table
        self._bus = bus
        self._clock = clock
        self._tell = tell
        self._refuse = refuse
        self._checker = Checker(max_tools)
        self._rooms: dict[UUID, dict[str, _Client]] = {}
        self._tools_bytes = 0
        #: What is to be written: how it is by then, counts.
        self._changed: dict[_Key, None] = {}
        self._changes = asyncio.Event()
        self._lock = asyncio.Lock()
        self._asked: dict[UUID, asyncio.Future[list[Present]]] = {}
        self._tasks = Tasks()
        self._started = False
        #: Whether all that clients here registered is known here, by whatever process they did.
        self._whole = True

    # --- life

    async def start(self) -> None:
        """Begin to write, and to look after the table. The database must be there. Idempotent."""
        if not self._started:
            self._started = True
            self._tasks.run(self._keep_writing(), "presence")
            self._tasks.run(self._keep_sweeping(), "presence sweep")
            self._tasks.run(self.watching.run(), "presence watch")

    async def stop(self) -> None:
        """Write what is left, and end every task. Idempotent."""
        if self._started:
            self._started = False
            try:
                async with asyncio.timeout(_PAUSE):
                    await self._write()
                    await self.watching.tell_all()
            except (ParleyError, TimeoutError):
                # The lease runs out, and others see that this process is gone.
                _log.debug("presence_left_behind")
        await self._tasks.stop()

    # --- who comes and goes

    async def arriving(self, session_id: UUID, client_id: str, user_id: str) -> list[ClientInfo]:
        """Who else is on a session that a client is about to join. Raises FORBIDDEN when its name is another user's."""
        present = await self._present(session_id)
        if any(one.client_id == client_id and one.user_id != user_id for one in present):
            raise _taken(client_id)
        return [_info(one) for one in present if one.here and one.client_id != client_id]

    def join(self, session: Session, client_id: str, user_id: str, transport: str) -> bool:
        """A client has one more connection here; False when its name is another user's, and then it has not."""
        room = self._rooms.setdefault(session.session_id, {})
        client = room.get(client_id)
        if client is None:
            client = room[client_id] = _Client(user_id, session.role, transport)
            self._change((session.session_id, client_id))
        elif client.user_id != user_id:
            return False
        client.connections += 1
        return True

    def leave(self, session_id: UUID, client_id: str, user_id: str) -> None:
        """A connection that was let in by `join` has ended."""
        room = self._rooms.get(session_id, {})
        client = room.get(client_id)
        if client is None or client.user_id != user_id:
            return
        client.connections -= 1
        if not client.connections:
            self._keep_tools(client, None)
            del room[client_id]
            if not room:
                del self._rooms[session_id]
            self._change((session_id, client_id))

    # --- who is there

    async def here(self, session_id: UUID) -> list[ClientInfo]:
        """Who is on the session, each client once."""
        return [_info(one) for one in await self._present(session_id) if one.here]

    async def offers(self, session_id: UUID) -> list[Offer]:
        """Who offers tools on the session, the latest registration first. No read of the database while alone."""
        if self._alone() and self._whole:
            own = [client.tools for client in self._rooms.get(session_id, {}).values() if client.tools is not None]
            found = sorted(((one.client_id, one.tools_at, one.tools) for one in own), key=_when, reverse=True)
        else:
            found = await self._table.offers(session_id)
        return [
            Offer(client_id=client_id, tools=_tools_of.decode(tools), tools_at=tools_at)
            for client_id, tools_at, tools in found
        ]

    async def register(self, session: Session, command: RegisterTools, client_id: str | None, user_id: str) -> None:
        """The client offers these tools in place of those before, as long as it is on the session.

        Raises ParleyError: INVALID and TOO_LARGE for tools that cannot be taken, NOT_FOUND for a client that has no
        connection to the session, UNAVAILABLE.
        """
        encoded = await self._checker.check(command.tools)
        if self._tools_bytes + len(encoded) > _ALL_TOOLS_BYTES:
            raise ParleyError(ErrorCode.TOO_LARGE, "this server keeps as many tools as it may", path="$.tools")
        if client_id is None:
            raise ParleyError(ErrorCode.INVALID, "name the client whose stream is open", path="?client_id")
        tools = await self._register(session.session_id, client_id, user_id, command, encoded)
        self.watching.registered(session.session_id, client_id, tools.names)

    async def check(self, session_id: UUID, client_id: str, user_id: str) -> None:
        """Raise FORBIDDEN when a client's name is another user's."""
        if any(one.client_id == client_id and one.user_id != user_id for one in await self._present(session_id)):
            raise _taken(client_id)

    # --- inside: what is so

    def _alone(self) -> bool:
        return self._bus.state == "alone"

    async def _present(self, session_id: UUID) -> list[Present]:
        """Who is there, or was a moment ago; all who ask in a turn of the loop share a statement."""
        if self._alone():
            room = self._rooms.get(session_id, {})
            return [_present(session_id, client_id, client) for client_id, client in room.items()]
        asked = self._asked.get(session_id)
        if asked is None:
            if not self._asked:
                self._tasks.run(self._ask(), "presence ask")
            asked = self._asked[session_id] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(asked)

    async def _ask(self) -> None:
        asked, self._asked = self._asked, {}
        try:
            rows = await self._table.here(list(asked))
        except BaseException as error:  # noqa: BLE001 - it is the askers'
            for future in asked.values():
                if not future.done():
                    future.set_exception(error if isinstance(error, Exception) else ConnectionError())
                    future.exception()
            return
        found: dict[UUID, list[Present]] = {session_id: [] for session_id in asked}
        for row in rows:
            found[row.session_id].append(row)
        for session_id, future in asked.items():
            if not future.done():
                future.set_result(found[session_id])

    def _keep_tools(self, client: _Client, tools: Tools | None) -> None:
        self._tools_bytes += (0 if tools is None else len(tools.tools)) - (
            0 if client.tools is None else len(client.tools.tools)
        )
        client.tools = tools

    async def _register(
        self, session_id: UUID, client_id: str, user_id: str, command: RegisterTools, encoded: bytes
    ) -> Tools:
        names = tuple(tool.name for tool in command.tools)
        key = session_id, client_id
        # What `join` noted must be written before, and nothing of it in between.
        async with self._lock:
            if key in self._changed:
                await self._write_locked()
            row = await self._table.register(session_id, client_id, user_id, encoded, names)
            if row is None and client_id in self._rooms.get(session_id, {}):
                # The table was emptied, or our lease ran out for a while.
                self._changed[key] = None
                await self._write_locked()
                row = await self._table.register(session_id, client_id, user_id, encoded, names)
        if row is None:
            raise ParleyError(
                ErrorCode.NOT_FOUND,
                f"the client {client_id!r} has no stream open on this session; tools are offered as long as it has",
                path="?client_id",
            )
        tools = Tools(session_id, client_id, row.tools_at, encoded, names)
        client = self._rooms.get(session_id, {}).get(client_id)
        if client is not None and client.user_id == user_id:
            self._keep_tools(client, tools)
        info = ClientInfo(client_id=client_id, transport=row.transport, tools=list(names), role=_role(row.role))
        self._announce(session_id, "updated", info, row.clients)
        return tools

    # --- inside: what is written

    def _change(self, key: _Key) -> None:
        self._changed[key] = None
        self._changes.set()

    async def _keep_writing(self) -> None:
        while True:
            await self._changes.wait()
            try:
                await self._write()
            except ParleyError:
                await self._clock.sleep(_PAUSE)
            except Exception:  # noqa: BLE001 - the sweep finds what was not written
                _log.exception("presence_not_written")

    async def _write(self) -> None:
        async with self._lock:
            await self._write_locked()

    async def _write_locked(self) -> None:
        """Write what has changed until nothing has. What fails is changed still."""
        while self._changed:
            keys = list(self._changed)[:_PAGE]
            for key in keys:
                del self._changed[key]
            arrived = [(key, client) for key in keys if (client := self._client(key)) is not None]
            gone = [key for key in keys if self._client(key) is None]
            try:
                if gone:
                    self._departed(await self._table.leave(gone))
                if arrived:
                    await self._arrive([_arrival(key, client) for key, client in arrived])
            except BaseException:
                self._changed.update(dict.fromkeys(keys))
                raise
        self._changes.clear()

    async def _arrive(self, arrivals: Sequence[Arrival]) -> None:
        counts: dict[UUID, int] = {}
        for row in await self._table.join(arrivals):
            if row.taken:
                self._refuse(row.session_id, row.client_id)
                continue
            client = self._client((row.session_id, row.client_id))
            if client is not None:
                await self._restore(client, row.session_id, row.client_id, row.tools)
            if row.here:
                continue
            counts[row.session_id] = clients = counts.get(row.session_id, row.clients) + 1
            info = ClientInfo(
                client_id=row.client_id, transport=row.transport, tools=list(row.names), role=_role(row.role)
            )
            self._announce(row.session_id, "joined", info, clients)
            if row.awaited:
                self.watching.joined(row.session_id, row.client_id)
            if row.names:
                # In any case: a call may have begun to wait for them since the table was read.
                self.watching.registered(row.session_id, row.client_id, row.names)

    async def _restore(self, client: _Client, session_id: UUID, client_id: str, tools: Tools | None) -> None:
        """What the client registered: the table knows, unless it was emptied, and then we do."""
        if tools is not None:
            self._keep_tools(client, tools)
        elif client.tools is not None:
            known = client.tools
            await self._table.register(session_id, client_id, client.user_id, known.tools, known.names)

    def _departed(self, rows: Sequence[Departed]) -> None:
        gone = [row for row in rows if not row.here]
        leaving = Counter(row.session_id for row in gone)
        for row in gone:
            leaving[row.session_id] -= 1
            info = ClientInfo(
                client_id=row.client_id, transport=row.transport, tools=list(row.names), role=_role(row.role)
            )
            self._announce(row.session_id, "left", info, row.clients + leaving[row.session_id])
            if row.awaited:
                self.watching.left(row.session_id, row.client_id)

    def _announce(
        self, session_id: UUID, change: Literal["joined", "left", "updated"], info: ClientInfo, clients: int
    ) -> None:
        if clients <= _ANNOUNCED:
            self._tell(session_id, "presence_changed", PresenceChanged(change=change, client=info, clients=clients))

    def _client(self, key: _Key) -> _Client | None:
        return self._rooms.get(key[0], {}).get(key[1])

    # --- inside: what is looked after

    async def _keep_sweeping(self) -> None:
        while True:
            try:
                await self.sweep()
            except ParleyError as error:
                _log.debug("presence_sweep_missed", reason=str(error))
            except Exception:  # noqa: BLE001 - the next one comes soon
                _log.exception("presence_sweep_failed")
            await self._clock.sleep(_SWEEP)

    async def sweep(self) -> None:
        """Compare the table with what is so here, report clients whose process died, forget who left long ago."""
        alone = self._alone()
        async with self._lock:
            await self._write_locked()
            await self._compare()
        self._whole = alone
        departed = await self._table.bury()
        self._departed(departed)
        await self._table.purge()
        self.watching.again()

    async def _compare(self) -> None:
        """Write anew what the table has lost, and read what clients registered at other processes."""
        mine = await self._table.mine()
        if self._changed:
            # Somebody came or went meanwhile: the next sweep compares.
            return
        clients = [(session_id, client_id) for session_id, room in self._rooms.items() for client_id in room]
        if mine.clients != len(clients):
            _log.info("presence_written_anew", clients=len(clients), found=mine.clients)
            self._changed.update(dict.fromkeys(clients))
            await self._write_locked()
            return
        known = max(
            (client.tools.tools_at for room in self._rooms.values() for client in room.values() if client.tools),
            default=None,
        )
        if mine.tools_at is not None and mine.tools_at != known:
            for tools in await self._table.my_tools(known):
                client = self._client((tools.session_id, tools.client_id))
                if client is not None:
                    self._keep_tools(client, tools)


def _when(found: tuple[str, datetime, bytes]) -> datetime:
    return found[1]


def _arrival(key: _Key, client: _Client) -> Arrival:
    return Arrival(*key, client.user_id, client.role, client.transport)


def _present(session_id: UUID, client_id: str, client: _Client) -> Present:
    names = () if client.tools is None else client.tools.names
    return Present(
        session_id=session_id,
        client_id=client_id,
        user_id=client.user_id,
        role=client.role,
        transport=client.transport,
        names=names,
        here=True,
    )


def _info(one: Present) -> ClientInfo:
    return ClientInfo(client_id=one.client_id, transport=one.transport, tools=list(one.names), role=_role(one.role))


def _role(role: str) -> SessionRole:
    return "owner" if role == "owner" else "controller" if role == "controller" else "observer"


def _taken(client_id: str) -> ParleyError:
    return ParleyError(
        ErrorCode.FORBIDDEN, f"{client_id!r} is another user's client on this session", path="?client_id"
    )
