"""Who is asking, from where, and what is theirs."""

from __future__ import annotations

from server.auth.access import Access, client_id
from server.auth.middleware import add_public_get, authenticate
from server.auth.origins import Gatekeeper
from server.auth.principals import LOCAL, Principal, principal_of
from server.auth.query import has_query
from server.auth.tokens import BEARER_PROTOCOL, Tokens

__all__ = [
    "BEARER_PROTOCOL",
    "LOCAL",
    "Access",
    "Gatekeeper",
    "Principal",
    "Tokens",
    "add_public_get",
    "authenticate",
    "client_id",
    "has_query",
    "principal_of",
]
