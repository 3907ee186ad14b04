"""Whether there is a query to look into."""

from __future__ import annotations

from aiohttp import web

__all__ = ["has_query"]


def has_query(request: web.BaseRequest) -> bool:
    """Whether the request's URL has a query.

    To be asked before `request.query`: without one that makes an empty mapping, which is kept as long as the request
    and is 0.3 KiB of each idle stream.
    """
    return bool(request.rel_url.raw_query_string)
