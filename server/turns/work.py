"""Work that a user may stop: an agent's step, a tool's call."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

__all__ = ["CANCEL_PATIENCE", "Work"]

#: How long an agent or a tool may take to end once it is cancelled, in seconds; then its turn ends without it.
CANCEL_PATIENCE: Final = 10.0

_log = structlog.get_logger(__name__)


class Work:
    """Other people's code in a task of its own. One that does not let itself be cancelled is left behind, in time."""

    def __init__(self, work: Coroutine[Any, Any, None], of: str) -> None:
        """`of` names whose code it is, for the log."""
        self._task = asyncio.create_task(work)
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._of = of

    def cancel(self) -> None:
        """Let it end now; once more does no harm."""
        self._task.cancel()
        asyncio.get_running_loop().call_later(CANCEL_PATIENCE, _settle, self._given_up)

    async def ended(self) -> bool:
        """Wait until it has ended; whether it came to its own end. Raises what it raised."""
        try:
            await asyncio.wait({self._task, self._given_up}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The server stops: what this turn does must not outlive it.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_PATIENCE)
            raise
        finally:
            _settle(self._given_up)
        if not self._task.done():
            _log.error("cancellation_ignored", agent=self._of)
            return False
        if self._task.cancelled():
            return False
        self._task.result()
        return True


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
