"""The command `refresh_token`: streams go on with a newer token."""

from __future__ import annotations

import msgspec

from protocol.commands import RefreshToken
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack
from server.auth.grants import Grant
from server.auth.principals import Principal, Scope
from server.auth.roles import role_for
from server.auth.tokens import Verifier, verified
from server.channel.hub import Hub
from server.clock import Clock
from storage.sessions import Session

__all__ = ["Refresher"]


class Refresher:
    """Lets a client's streams on a session be served for longer, or not as long, as a newer token says."""

    def __init__(self, verifier: Verifier | None, hub: Hub, clock: Clock) -> None:
        self._verifier = verifier
        self._hub = hub
        self._clock = clock

    async def refresh(self, session: Session, command: RefreshToken, user_id: str, client_id: str | None) -> Ack:
        """Serve this user's streams of the client, those in this process, until the token expires.

        A token never gives a stream more than it was opened with; one for reading leaves its user to observe. Raises
        ParleyError, and everything stays as it was: UNAUTHORIZED, TOKEN_EXPIRED, FORBIDDEN for another user's token,
        INVALID when the client has no name, NOT_SUPPORTED where nobody is asked for tokens.
        """
        if self._verifier is None:
            raise ParleyError(
                ErrorCode.NOT_SUPPORTED, "this server asks nobody for a token, so none expires", path="$.type"
            )
        principal = await verified(self._verifier, command.token, self._clock.now())
        if principal.user_id != user_id:
            raise ParleyError(ErrorCode.FORBIDDEN, "this token is another user's", path="$.token")
        if client_id is None:
            raise ParleyError(ErrorCode.INVALID, "say whose stream: the query lacks 'client_id'", path="?client_id")
        for stream in self._hub.listeners_of(session.session_id):
            if stream.client_id == client_id and stream.grant.user_id == user_id:
                stream.grant = _renewed(stream.grant, principal)
        return Ack(id=command.id, status="accepted")


def _renewed(grant: Grant, principal: Principal) -> Grant:
    scope: Scope = "read" if "read" in {grant.scope, principal.scope} else "all"
    return msgspec.structs.replace(
        grant, role=role_for(scope, grant.role), scope=scope, expires_at=principal.expires_at
    )
