"""What other surfaces do by the channel's means: commands, and streams in words of their own."""

from __future__ import annotations

from aiohttp import web

from protocol.commands import Command
from protocol.events import Ack
from server.channel.handling import carry_out
from server.channel.sse import HttpStream, begin, is_chunked
from server.channel.streams import Opening
from server.compat.wires import OwnWire, Teller
from server.rest.acting import origin_of
from server.services import SERVICES
from storage.sessions import Session

__all__ = ["perform", "tell"]


async def perform(request: web.Request, session: Session, command: Command) -> Ack:
    """Carry out a command of the request, as everywhere. Raises ParleyError."""
    return await carry_out(request.app[SERVICES], session, command, origin_of(request, session))


async def tell(
    request: web.Request, opening: Opening, teller: Teller, stream: HttpStream | None = None
) -> web.StreamResponse:
    """Begin an event stream in the teller's words. Raises ParleyError when there is no place for it."""
    return await begin(request, opening, OwnWire(teller, chunked=is_chunked(request)), stream)
