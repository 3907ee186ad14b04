"""What each role on a session may do."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from protocol.commands import Command, Ping, RefreshToken
from protocol.errors import ErrorCode, ParleyError
from protocol.parts import SessionRole
from server.auth.principals import Scope

__all__ = ["needs_of", "permit", "require", "role_for"]

_RANKS: Final[dict[SessionRole, int]] = {"observer": 0, "controller": 1, "owner": 2}

#: Commands that change nothing in the session.
_ANYBODYS: Final = (Ping, RefreshToken)

_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


def role_for(scope: Scope, role: SessionRole) -> SessionRole:
    """What somebody who has a role may be with what he brought: with a token for reading he observes."""
    return "observer" if scope == "read" else role


def needs_of(request: web.Request) -> SessionRole:
    """The least role for a request whose handler asks for none: too much rather than too little."""
    if request.method in _READING:
        return "observer"
    return "owner" if request.method == hdrs.METH_DELETE else "controller"


def require(role: SessionRole, least: SessionRole) -> None:
    """Raise ParleyError(FORBIDDEN) when the role is below the least one."""
    if _RANKS[role] < _RANKS[least]:
        wanted = "its owner" if least == "owner" else "its owner or a controller"
        raise ParleyError(ErrorCode.FORBIDDEN, f"you are {_article(role)} of this session; this is for {wanted} to do")


def permit(command: Command, role: SessionRole) -> None:
    """Raise ParleyError(FORBIDDEN) when somebody with this role may not give this command."""
    if not isinstance(command, _ANYBODYS):
        require(role, "controller")


def _article(role: SessionRole) -> str:
    return f"a {role}" if role == "controller" else f"an {role}"
