"""Addresses and shapes that other clients expect: each file adapts one of them to the services that all use."""

from __future__ import annotations

from aiohttp import web

from server.compat import chat, message_stream, threads

__all__ = ["add_routes"]


def add_routes(app: web.Application) -> None:
    """Add the routes of all other surfaces."""
    message_stream.add_routes(app)
    chat.add_routes(app)
    threads.add_routes(app)
