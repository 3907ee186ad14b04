"""Waiting for other people's code no longer than was said, whatever it does about being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

__all__ = ["LEAVE_PATIENCE", "within"]

LEAVE_PATIENCE: Final = 5.0
"""Seconds that cancelled code may take to clean up; then it is left to itself."""

T = TypeVar("T")

_log: Final = structlog.get_logger(__name__)
#: Those that were left: a task that nobody holds may vanish in the middle.
_left: Final[set[asyncio.Task[Any]]] = set()


async def within(seconds: float, work: Coroutine[Any, Any, T], name: str) -> T:
    """The result of `work`, or TimeoutError once it has taken that long; `name` is for the log.

    Code that swallows its cancellation is left running and its result dropped, as nothing can end it. `asyncio.timeout`
    would wait for it, for ever. Raises what the work raises; a CancelledError of its own comes as RuntimeError, so that
    it cannot be taken for the caller's.
    """
    task = asyncio.create_task(_guarded(work))
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _give_up(task, name)
        raise
    if not task.done():
        await _give_up(task, name)
        raise TimeoutError
    if task.cancelled():
        raise RuntimeError("CancelledError")
    result, error = task.result()
    if error is not None:
        raise error
    return result  # type: ignore[return-value] # there is one where there is no error


async def _guarded(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """Keep what the work raises to its caller: out of a task, SystemExit ends the loop."""
    try:
        return await work, None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is raised where it is awaited
        return None, error


async def _give_up(task: asyncio.Task[Any], name: str) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=LEAVE_PATIENCE)
    if not task.done():
        _log.error("cancellation_ignored", tool=name)
        _left.add(task)
        task.add_done_callback(_left.discard)
