"""A thread with a loop of its own, for code that has none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

__all__ = ["ClosedError", "Portal"]

T = TypeVar("T")


class ClosedError(ConnectionError):
    """The client was closed."""

    def __init__(self) -> None:
        super().__init__("the client was closed")


class Portal:
    """Runs coroutines in a background thread, from whatever other thread, and waits for them.

    Exceptions come back as they were raised. A KeyboardInterrupt while waiting cancels what was waited for.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._new = True

    @property
    def running(self) -> bool:
        """Whether there is a thread."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread; returns once it is ready. Raises RuntimeError the second time."""
        if not self._new:
            raise RuntimeError("a client is used once; call connect_sync() again")
        self._new = False
        ready: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._thread = threading.Thread(target=_serve, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        self._loop = ready.result()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something to its end.

        Raises ClosedError when the thread is stopped, ConnectionError when it was not started, RuntimeError in the
        thread itself, where waiting would be for ever.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this is the client's own thread, which cannot wait for itself; use `connect` there")
        future: concurrent.futures.Future[T] | None = None
        try:
            with self._lock:
                if self._loop is None:
                    work.close()
                    raise ConnectionError("the client is not connected; use it in `with`") if self._new else ClosedError
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClosedError from None
        except BaseException:
            # Either it failed, or we were interrupted: then nobody waits for it any more.
            if future is not None:
                future.cancel()
            raise

    def stop(self) -> None:
        """End the thread, and whatever still runs in it. May be called again."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def _serve(ready: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.call_soon(ready.set_result, loop)
        loop.run_forever()
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        # Without waiting for the threads that look up names: one of them may take minutes.
        loop.close()


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
