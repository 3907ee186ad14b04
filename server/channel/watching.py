"""What concerns calls that run at clients is told to whoever looks after them: in order, and off everybody's way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol
from uuid import UUID

import structlog

from protocol.errors import ErrorCode, ParleyError

__all__ = ["Watcher", "Watching"]

_log: Final = structlog.stdlib.get_logger("server.channel")

#: What waits to be told, at most; what is beyond is found by the turns' own look at clients that are gone.
_MOST: Final = 10_000


class Watcher(Protocol):
    """Looks after calls that run at clients: `server.turns.service.TurnService`."""

    async def client_joined(self, session_id: UUID, client_id: str) -> None:
        """A client is on the session that was not before, on any process."""

    async def client_left(self, session_id: UUID, client_id: str) -> None:
        """A client's last connection to the session has ended, or its process died."""

    async def tools_registered(self, session_id: UUID, client_id: str, names: Sequence[str]) -> None:
        """A client offers these tools from now on."""


class _Note(NamedTuple):
    what: Literal["joined", "left", "registered"]
    session_id: UUID
    client_id: str
    names: Sequence[str] = ()


class Watching:
    """Tells a watcher, one thing after the other; while the database is away it waits."""

    def __init__(self) -> None:
        #: Whom to tell; nobody while it is None.
        self.watcher: Watcher | None = None
        self._notes: deque[_Note] = deque(maxlen=_MOST)
        self._waiting = asyncio.Event()

    def joined(self, session_id: UUID, client_id: str) -> None:
        """A client is on a session in which calls of clients are open."""
        self._note(_Note("joined", session_id, client_id))

    def left(self, session_id: UUID, client_id: str) -> None:
        """A client has left a session in which calls of clients are open."""
        self._note(_Note("left", session_id, client_id))

    def registered(self, session_id: UUID, client_id: str, names: Sequence[str]) -> None:
        """A client offers tools."""
        self._note(_Note("registered", session_id, client_id, names))

    def again(self) -> None:
        """Go on where the database was away."""
        if self._notes:
            self._waiting.set()

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            await self._waiting.wait()
            await self.tell_all()

    async def tell_all(self) -> None:
        """Tell what there is, as far as the database is there."""
        self._waiting.clear()
        while self._notes:
            note = self._notes[0]
            try:
                await self._tell(note)
            except ParleyError as error:
                if error.code is ErrorCode.UNAVAILABLE:
                    # In order: a client that left is not to be taken for one that came.
                    return
                _log.warning("presence_not_told", what=note.what, reason=str(error))
            except Exception:  # noqa: BLE001 - the others are to be told in any case
                _log.exception("presence_not_told", what=note.what, session_id=str(note.session_id))
            if self._notes and self._notes[0] is note:
                self._notes.popleft()

    async def _tell(self, note: _Note) -> None:
        watcher = self.watcher
        if watcher is None:
            return
        match note.what:
            case "joined":
                await watcher.client_joined(note.session_id, note.client_id)
            case "left":
                await watcher.client_left(note.session_id, note.client_id)
            case "registered":
                await watcher.tools_registered(note.session_id, note.client_id, note.names)

    def _note(self, note: _Note) -> None:
        self._notes.append(note)
        self._waiting.set()
