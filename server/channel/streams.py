"""What all streams begin with: whose session it is, who listens, from where on."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

from aiohttp import web

from protocol.cursor import Cursor, parse_cursor
from protocol.errors import ErrorCode, ParleyError
from protocol.events import AgentInfo, ClientInfo
from server.agents.interface import AgentDefinition
from server.agents.registry import Registry
from server.auth import Grant, has_query, principal_of
from server.auth import client_id as client_id_of
from server.channel.settings import ChannelSettings
from server.channel.subscriber import Subscriber, Transport
from server.services import SERVICES, Services
from storage.ids import new_id
from storage.sessions import Session

__all__ = ["Opening", "agent_info", "open_stream", "opening_of", "tune"]

_TCP_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)


class Opening(NamedTuple):
    """A request for a stream, checked: everything that may be refused was refused before the transport is set up."""

    services: Services
    session: Session
    client_id: str
    after: Cursor | int | None
    grant: Grant
    #: Who else is on the session.
    clients: Sequence[ClientInfo]

    def subscriber(self, transport: Transport) -> Subscriber:
        """The subscriber for a transport that is ready to be written to."""
        hub = self.services.hub
        return Subscriber(transport, self.client_id, hub.settings, now=hub.clock.monotonic(), grant=self.grant)

    def begin(self, subscriber: Subscriber) -> None:
        """Let the subscriber listen, and others know."""
        services, session = self.services, self.session
        agent = agent_info(services.registry, session.current_agent)
        services.hub.subscribe(session, subscriber, self.after, agent, self.clients)
        if not services.presence.join(session, self.client_id, self.grant.user_id, subscriber.transport.name):
            services.hub.refuse(session.session_id, self.client_id)


async def open_stream(request: web.Request, *, last_event_id: bool) -> Opening:
    """Check a request for a stream; `last_event_id` says whether that header counts (it beats `after`).

    Raises ParleyError: NOT_FOUND, SESSION_GONE, INVALID for a parameter that cannot be read, FORBIDDEN.
    """
    client_id = client_id_of(request)
    after = _cursor(request, last_event_id=last_event_id)
    session = await request.app[SERVICES].access.session(request)
    return await opening_of(request, session, client_id, after)


async def opening_of(
    request: web.Request, session: Session, client_id: str | None, after: Cursor | int | None
) -> Opening:
    """The opening of a stream of a session that the request may read; a client without an id is given one.

    Raises ParleyError FORBIDDEN when the id is another user's on this session.
    """
    services = request.app[SERVICES]
    grant = Grant.of(principal_of(request), session)
    client_id = client_id or str(new_id())
    clients = await services.presence.arriving(session.session_id, client_id, grant.user_id)
    return Opening(services, session, client_id, after, grant, clients)


def agent_info(registry: Registry, agent_type: str) -> AgentInfo:
    """The acting agent; one that is configured no longer is known by its type alone."""
    try:
        definition = registry.get(agent_type).definition
    except ParleyError:
        definition = AgentDefinition(type=agent_type, name=agent_type)
    return AgentInfo(type=definition.type, agent_id=definition.agent_id, name=definition.name)


def tune(request: web.Request, settings: ChannelSettings) -> None:
    """Let the kernel give up on a peer that acknowledges nothing (RFC 5482); heartbeats see to it that it is asked."""
    transport = request.transport
    if transport is None:
        return
    transport.set_write_buffer_limits(high=settings.high_water, low=settings.high_water // 4)
    sock = transport.get_extra_info("socket")
    if sock is not None and _TCP_USER_TIMEOUT is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
        patience = max(2 * settings.heartbeat_interval, settings.write_timeout)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, round(patience * 1000))


def _cursor(request: web.Request, *, last_event_id: bool) -> Cursor | int | None:
    # A browser's EventSource comes back with the URL it began with, so its header is the newer of the two.
    text = request.headers.get("Last-Event-ID", "") if last_event_id else ""
    name, path = "Last-Event-ID", "Last-Event-ID"
    if not text:
        values = request.query.getall("after", []) if has_query(request) else []
        if len(values) > 1:
            raise ParleyError(ErrorCode.INVALID, "the query parameter 'after' is given twice", path="?after")
        if not values:
            return None
        text, name, path = values[0], "after", "?after"
    try:
        return parse_cursor(text)
    except ParleyError as error:
        raise ParleyError(error.code, f"{name}: {error.message}", path=path) from None
