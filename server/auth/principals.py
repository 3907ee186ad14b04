"""Who a request speaks for."""

from __future__ import annotations

from typing import Final, Literal

from aiohttp import web
from msgspec import Struct

__all__ = ["LOCAL", "Principal", "principal_of"]

_KEY: Final = "principal"


class Principal(Struct, frozen=True):
    """A user, and how we know: `local` is whoever can reach the loopback address, `token` brought a bearer token."""

    user_id: str
    kind: Literal["local", "token"]


#: The one user of a server without tokens.
LOCAL: Final = Principal("local", "local")


def principal_of(request: web.Request) -> Principal:
    """The request's principal; every request that reaches a handler outside the public ones has one."""
    principal = request[_KEY]
    assert isinstance(principal, Principal), "the middleware puts nothing else there"
    return principal


def set_principal(request: web.Request, principal: Principal) -> None:
    """For the middleware alone."""
    request[_KEY] = principal
    request["user_id"] = principal.user_id
