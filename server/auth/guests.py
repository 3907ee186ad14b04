"""Streams of users whose session it is not: they end when the membership does, in whatever process they are.

Whoever changes a membership ends its streams here at once (`dismiss`). In other processes a look at the members, once
a second, does: one statement for all sessions that have guests, and none where there is no guest.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

import structlog

from protocol.errors import ErrorCode, ParleyError
from protocol.parts import SessionRole
from server.auth.roles import role_for
from server.channel.hub import Hub
from server.channel.subscriber import Subscriber
from server.clock import Clock
from storage.members import Members

__all__ = ["Guests"]

_log: Final = structlog.stdlib.get_logger("server.auth")


class Guests:
    """Watches over the streams of members in this process."""

    def __init__(self, members: Members, hub: Hub, clock: Clock, interval: float) -> None:
        """`interval` is in seconds."""
        self._members = members
        self._hub = hub
        self._clock = clock
        self._interval = interval
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look. Idempotent."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="guests")

    async def stop(self) -> None:
        """Look no longer. Idempotent; over when it returns."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def dismiss(self, session_id: UUID, user_id: str, role: SessionRole | None) -> None:
        """A member has another role by now, or none: his streams in this process end, and may come back with it."""
        for stream in self._hub.listeners_of(session_id):
            if stream.grant.user_id == user_id:
                self._end(stream, role)

    async def look(self) -> None:
        """Compare the streams of guests with the memberships once."""
        guests = [(session_id, stream) for session_id, stream in self._hub.listeners() if stream.grant.guest]
        if not guests:
            return
        roles = await self._members.roles(list({session_id for session_id, _ in guests}))
        for session_id, stream in guests:
            role = roles.get((session_id, stream.grant.user_id))
            if role is None or role_for(stream.grant.scope, role) != stream.grant.role:
                self._end(stream, role)

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            try:
                await self.look()
            except ParleyError as error:
                _log.debug("members_unknown", reason=str(error))
            except Exception:  # noqa: BLE001 - whatever this look met, there is a next one
                _log.exception("looking at members failed")

    def _end(self, stream: Subscriber, role: SessionRole | None) -> None:
        if role is None:
            self._hub.end(stream, ErrorCode.FORBIDDEN, "you are no member of this session any more")
        else:
            self._hub.end(stream, ErrorCode.STALE, f"you are {role} of this session now")
