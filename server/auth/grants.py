"""What a stream was opened with: it is served as long as that holds."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Final

from msgspec import Struct

from protocol.parts import SessionRole
from server.auth.principals import LOCAL, Principal, Scope
from storage.sessions import Session

__all__ = ["OWNER", "Grant"]


class Grant(Struct, frozen=True):
    """Whose a stream is, what he may do over it, and until when it is served (None: as long as it lasts).

    `guest`: the session is another's, who may take the role back.
    """

    user_id: str
    role: SessionRole
    scope: Scope = "all"
    guest: bool = False
    expires_at: datetime | None = None

    @classmethod
    def of(cls, principal: Principal, session: Session) -> Grant:
        """For somebody who was given this session by `Access`."""
        guest = session.owner != principal.user_id
        return _shared(principal.user_id, session.role, principal.scope, guest, principal.expires_at)

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now


#: One object for all streams of a kind.
_shared: Final = lru_cache(maxsize=4096)(Grant)

#: That of the one user of a server without tokens.
OWNER: Final = Grant(LOCAL.user_id, "owner")
