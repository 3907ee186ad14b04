"""Who a request speaks for."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

from aiohttp import web
from msgspec import Struct

from server.observe.marks import USER_ID, mark

__all__ = ["LOCAL", "Principal", "Scope", "principal_of"]

#: What a token is good for: `all` that its user may do, or to `read`.
Scope: TypeAlias = Literal["all", "read"]


class Principal(Struct, frozen=True):
    """A user, and how we know: `local` is whoever can reach the loopback address, the others brought what they say.

    What begins in his name ends at `expires_at`. `credential` tells which of the listed tokens was brought, and with
    `session_id` he is nobody in other sessions.
    """

    user_id: str
    kind: Literal["local", "token", "ticket", "login"]
    scope: Scope = "all"
    expires_at: datetime | None = None
    credential: bytes | None = None
    session_id: UUID | None = None

    def expired(self, now: datetime) -> bool:
        """Whether his time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def __repr__(self) -> str:
        # Without the credential: it is half of a secret.
        return f"Principal(user_id={self.user_id!r}, kind={self.kind!r}, scope={self.scope!r})"


_PRINCIPAL: Final = web.RequestKey("principal", Principal)

#: The one user of a server without tokens.
LOCAL: Final = Principal("local", "local")


def principal_of(request: web.Request) -> Principal:
    """The request's principal; every request that reaches a handler outside the public ones has one."""
    return request[_PRINCIPAL]


def set_principal(request: web.Request, principal: Principal) -> None:
    """For the middleware alone."""
    request[_PRINCIPAL] = principal
    mark(request, USER_ID, principal.user_id)
