"""The server that a browser visits: at one address, over restarts."""

from __future__ import annotations

from typing import Any

from tests.support.server import MakeServer, RunningServer


class Site:
    """A server that keeps its address and its database when it is stopped and started again."""

    def __init__(self, make_server: MakeServer, *, token: str = "", **options: Any) -> None:
        self.token = token
        self._make_server = make_server
        self._options = options
        self._server: RunningServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self._port}/"

    async def start(self) -> None:
        """Start it, on the port that it had."""
        self._server = await self._make_server(port=self._port, **self._options)
        self._port = self._server.port

    async def stop(self) -> None:
        """Stop it as SIGTERM does."""
        assert self._server is not None, "it was started"
        await self._server.stop()
