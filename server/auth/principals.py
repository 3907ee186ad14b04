"""Who a request speaks for."""

from __future__ import annotations

from typing import Final, Literal

from aiohttp import web
from msgspec import Struct

from server.observe.marks import USER_ID, mark

__all__ = ["LOCAL", "Principal", "principal_of"]


class Principal(Struct, frozen=True):
    """A user, and how we know: `local` is whoever can reach the loopback address, `token` brought a bearer token."""

    user_id: str
    kind: Literal["local", "token"]


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
