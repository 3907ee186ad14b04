"""`POST /sessions/{session}/commands`: what the WebSocket takes, for clients that read their events elsewhere.

One command is answered by its ack, or refused by a problem with the same status. An array is handled in order and
stops at the first refusal; its answer lists a result for each:

    {"results": [{"status": 200, "ack": {...}}, {"status": 409, "error": {...}}, {"status": 424, "error": {...}}]}

with the status 200 when all were accepted and 207 when not; 424 marks those that were not tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web
from msgspec import Struct

from protocol.commands import Cancel, Command, QueueUpdate, SwitchAgent, UserMessage
from protocol.envelope import Encoding
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack
from server.auth import client_id as client_id_of
from server.auth import principal_of
from server.channel.handling import carry_out
from server.channel.settings import ChannelSettings
from server.rest.responses import json_response
from server.services import SERVICES, Services
from server.turns.service import Origin
from storage.sessions import Session

__all__ = ["CommandResult", "CommandResults", "commands"]

_ENCODINGS: Final[dict[str, Encoding]] = {
    "application/json": "json",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
}

#: Commands whose own statement looks at the session's owner and deletion, under its lock.
_STORED: Final = (UserMessage, Cancel, SwitchAgent, QueueUpdate)

_NOT_TRIED: Final = ParleyError(
    ErrorCode.NOT_TRIED, "the commands of a request are handled in order, up to the first that is refused"
)


class CommandResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one command of an array: `ack`, or `error` as a problem (RFC 9457)."""

    status: int
    ack: Ack | None = None
    error: dict[str, Any] | None = None


class CommandResults(Struct, frozen=True, kw_only=True):
    """What became of the commands of an array, in its order."""

    results: list[CommandResult]


async def commands(request: web.Request) -> web.StreamResponse:
    """Send a command, or an array of them.

    Those of an array are handled in order up to the first that is refused.
    """
    services = request.app[SERVICES]
    settings = services.hub.settings
    client_id = client_id_of(request)
    encoding = _encoding(request)
    session = await services.access.session_to_command(request)
    await _check_client(request, session, client_id)
    data = await _body(request, settings)
    if not _is_array(data, encoding):
        command = await services.decoding.command(data, encoding, settings)
        session = await _as_known_now(request, session, [command])
        origin = _origin(request, session, client_id)
        return json_response(await carry_out(services, session, command, origin))
    items = await services.decoding.commands(data, encoding, settings)
    if not items:
        raise ParleyError(ErrorCode.INVALID, "the array has no command", path="$")
    session = await _as_known_now(request, session, items)
    origin = _origin(request, session, client_id)
    results = await _handle_all(services, session, items, origin)
    status = 207 if any(result.error is not None for result in results) else 200
    return json_response(CommandResults(results=results), status=status)


def _origin(request: web.Request, session: Session, client_id: str | None) -> Origin:
    user_id = principal_of(request).user_id
    return Origin(user_id=user_id, client_id=client_id, transport="http", role=session.role)


async def _check_client(request: web.Request, session: Session, client_id: str | None) -> None:
    """Refuse whoever speaks for another user's client. The owner may do all that his guests' clients may."""
    user_id = principal_of(request).user_id
    if client_id is not None and user_id != session.owner:
        await request.app[SERVICES].presence.check(session.session_id, client_id, user_id)


async def _as_known_now(request: web.Request, session: Session, items: Sequence[Command | ParleyError]) -> Session:
    """The session, looked for again when a command is not stored, so that no statement finds out that it is gone."""
    if all(isinstance(item, _STORED) for item in items):
        return session
    return await request.app[SERVICES].access.session(request, "observer")


async def _handle_all(
    services: Services, session: Session, items: Sequence[Command | ParleyError], origin: Origin
) -> list[CommandResult]:
    results: list[CommandResult] = []
    for item in items:
        if results and results[-1].error is not None:
            results.append(_refused(_NOT_TRIED))
            continue
        try:
            if isinstance(item, ParleyError):
                raise item
            results.append(CommandResult(status=200, ack=await carry_out(services, session, item, origin)))
        except ParleyError as error:
            results.append(_refused(error))
    return results


def _refused(error: ParleyError) -> CommandResult:
    return CommandResult(status=error.code.status, error=error.to_problem())


def _encoding(request: web.Request) -> Encoding:
    encoding = _ENCODINGS.get(request.content_type)
    if encoding is None:
        raise web.HTTPUnsupportedMediaType(reason="commands come as application/json or application/msgpack")
    return encoding


async def _body(request: web.Request, settings: ChannelSettings) -> bytes:
    """The body, never more of it than the limit; its sender has `command_timeout` for it."""
    limit = settings.max_command_bytes
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    if request.content.is_eof():
        # It came together with the head, as nearly all do.
        data = request.content.read_nowait()
        if len(data) > limit:
            raise _too_large(limit)
        return data
    body = bytearray()
    try:
        async with asyncio.timeout(settings.command_timeout):
            async for part in request.content.iter_any():
                body += part
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise ParleyError(ErrorCode.STALE, "the body did not come in time") from None
    return bytes(body)


def _too_large(limit: int) -> ParleyError:
    return ParleyError(ErrorCode.TOO_LARGE, f"at most {limit} bytes are allowed")


def _is_array(data: bytes, encoding: Encoding) -> bool:
    """Whether the body begins like an array: `[`, or MessagePack's fixarray, array 16 or array 32."""
    if encoding == "json":
        return data.lstrip(b" \t\r\n")[:1] == b"["
    first = data[0] if data else 0
    return first & 0xF0 == 0x90 or first in {0xDC, 0xDD}
