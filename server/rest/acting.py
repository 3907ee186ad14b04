"""Commands that come as requests of their own: who sends them, and under which id."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import ID_PATTERN, ID_RULE
from server.auth import client_id, principal_of
from server.rest.openapi.parameters import IDEMPOTENCY_KEY
from server.turns.service import Origin
from storage.ids import new_id
from storage.sessions import Session

__all__ = ["TRANSPORT", "command_id", "given_key", "origin_of"]

#: What such commands say of how they came, in the audit.
TRANSPORT: Final = "rest"

_KEY: Final = re.compile(ID_PATTERN)


def given_key(request: web.Request) -> str | None:
    """The `Idempotency-Key` of the request, if it has one. Raises ParleyError(INVALID) when it is no valid id."""
    keys = request.headers.getall(IDEMPOTENCY_KEY, [])
    if len(keys) > 1:
        raise ParleyError(ErrorCode.INVALID, f"the header {IDEMPOTENCY_KEY} is given twice", path=IDEMPOTENCY_KEY)
    if keys and _KEY.search(keys[0]) is None:
        raise ParleyError(ErrorCode.INVALID, f"{IDEMPOTENCY_KEY}: it has {ID_RULE}", path=IDEMPOTENCY_KEY)
    return keys[0] if keys else None


def command_id(request: web.Request) -> str:
    """The command's id: the request's key, else a new one, which nobody can repeat."""
    return given_key(request) or str(new_id())


def origin_of(request: web.Request, session: Session) -> Origin:
    """Who sends the command."""
    return Origin(
        user_id=principal_of(request).user_id, client_id=client_id(request), transport=TRANSPORT, role=session.role
    )
