"""Threads for tools that block: none keeps the process from ending."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


def in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call a function that blocks in a thread of its own; the future is done when the thread is.

    The loop's own threads are few, are shared with whoever looks up names, and are waited for at the end. Raises
    RuntimeError when the system has no more threads.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
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
            if not future.done():
                settle()
                # Where nobody waits any more it is no loss.
                future.exception()

        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(arrive)

    threading.Thread(target=work, name="parley-client-tool", daemon=True).start()
    return future
