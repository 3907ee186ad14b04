"""Who is asking, from where, and what is theirs."""

from __future__ import annotations

from server.auth.access import Access, client_id
from server.auth.credentials import Credentials
from server.auth.grants import Grant
from server.auth.logins import Logins
from server.auth.middleware import (
    add_public,
    add_public_get,
    authenticate,
    is_public,
    open_to_readers,
    open_to_tickets,
)
from server.auth.origins import Gatekeeper
from server.auth.principals import LOCAL, Principal, principal_of
from server.auth.query import has_query
from server.auth.tickets import Tickets
from server.auth.tokens import BEARER_PROTOCOL, Tokens, Verifier

__all__ = [
    "BEARER_PROTOCOL",
    "LOCAL",
    "Access",
    "Credentials",
    "Gatekeeper",
    "Grant",
    "Logins",
    "Principal",
    "Tickets",
    "Tokens",
    "Verifier",
    "add_public",
    "add_public_get",
    "authenticate",
    "client_id",
    "has_query",
    "is_public",
    "open_to_readers",
    "open_to_tickets",
    "principal_of",
]
