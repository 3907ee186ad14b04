"""A commit whose answer is lost on its way back has happened, and must look to everybody as if it had been answered."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import ErrorCode, ParleyError
from tests.chaos.clients import Follower
from tests.support.checker import Ledger, View
from tests.support.server import RunningServer


class _Near:
    """A server of this process, as a follower knows servers."""

    def __init__(self, server: RunningServer) -> None:
        self.http = server.client
        self._url = server.url

    async def address(self) -> str:
        return self._url


@pytest.mark.feature("S06", "A01")
async def test_a_message_whose_commit_went_unanswered_is_no_longer_being_written(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = server.services.db
    lost: list[str] = []
    fetchrow = database.fetchrow

    async def losing(name: str, *arguments: Any) -> Any:
        row = await fetchrow(name, *arguments)
        if name == "advance" and not lost:
            lost.append(name)
            raise ParleyError(ErrorCode.UNAVAILABLE, "the answer was lost", retry_after=0.1)
        return row

    monkeypatch.setattr(database, "fetchrow", losing)
    session = await server.create_session()
    status, _ = await server.command(session, type="user_message", content="show emoji")
    assert status == 200
    await server.services.turns._engine.idle()
    assert lost
    assert [message["role"] for message in await server.history(session)] == ["user", "assistant"]
    assert server.services.hub.stats().messages_being_written == 0

    late = View(Ledger(session), "late")
    await Follower(_Near(server), late, "ndjson").once()  # type: ignore[arg-type]
    assert (late.seq, late.unfinished) == (4, set())
