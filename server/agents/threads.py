"""Threads for tools: none waits for another, and none keeps the process from ending.

The loop's own executor has a handful of threads, which the database driver shares to look up its host. Tools that hang
would take them from everybody else, and Python waits for each of them at its end, without a bound.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

__all__ = ["MAX_THREADS", "TooManyThreadsError", "in_thread"]

MAX_THREADS: Final = 256
"""Calls that may run in threads at once, those counted that were given up and have not ended."""

_T = TypeVar("_T")


class TooManyThreadsError(Exception):
    """So many calls run, or hang, that there is no thread for another."""


class _Threads:
    """The threads of the process; belongs to its loop."""

    def __init__(self) -> None:
        self.running = 0

    def enter(self) -> None:
        if self.running >= MAX_THREADS:
            raise TooManyThreadsError
        self.running += 1

    def leave(self) -> None:
        self.running -= 1


_threads: Final = _Threads()


async def in_thread(function: Callable[[], _T]) -> _T:
    """The result of a function that blocks, called in a thread of its own with the caller's context variables.

    Cancelling drops the result; the function itself cannot be stopped, not even by the end of the process, which does
    not wait for it. Raises what the function raises, or TooManyThreadsError.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(function)
        except BaseException as error:  # noqa: BLE001 - whatever it was, it is the caller's
            # A future takes every exception but this one, which ends iterations.
            failure = RuntimeError("StopIteration") if isinstance(error, StopIteration) else error
            deliver(lambda: future.set_exception(failure))
        else:
            deliver(lambda: future.set_result(result))

    def deliver(settle: Callable[[], None]) -> None:
        def arrive() -> None:
            _threads.leave()
            if not future.done():
                settle()

        # The loop may be closed by now; then nobody waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(arrive)

    _threads.enter()
    try:
        threading.Thread(target=work, name="parley-tool", daemon=True).start()
    except RuntimeError:
        # The system has no more threads.
        _threads.leave()
        raise TooManyThreadsError from None
    return await future
