"""The channel's addresses."""

from __future__ import annotations

from aiohttp import web

from server.channel.sse import events
from server.channel.uplink import commands
from server.channel.websocket import websocket

__all__ = ["add_routes"]


def add_routes(app: web.Application) -> None:
    """Add the two streams and the uplink; the services are looked for in the application at each request."""
    # Routes of a session are tried in this order, and commands are asked for most often.
    app.router.add_post("/sessions/{session}/commands", commands)
    # A HEAD request to a stream would never end.
    app.router.add_get("/sessions/{session}/ws", websocket, allow_head=False)
    app.router.add_get("/sessions/{session}/events", events, allow_head=False)
