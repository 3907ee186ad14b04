"""Programs of the benchmarks as processes of their own: asked by a line of JSON, answering by another.

A child ends when its standard input does, so that none outlives the run, however that ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

__all__ = ["Child", "Handlers", "answer", "cpu_seconds", "pin", "raise_file_limit", "resident_bytes", "serve_parent"]

_ROOT: Final = Path(__file__).parents[2]
#: What any one answer may take, in seconds; a hang must fail and not stall.
_PATIENCE: Final = 120.0

Handlers: TypeAlias = Mapping[str, Callable[..., Awaitable[Any]]]


class Child:
    """A program `tests.benchmarks.<name>`, pinned to a core if there is more than one and that is asked for."""

    def __init__(self, name: str, *, core: int | None = None, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.{name}", json.dumps({"core": core, **options})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )

    async def ask(self, command: str, **arguments: Any) -> Any:
        """What the program answers; RuntimeError with its reason when it cannot."""
        request = json.dumps({"command": command, **arguments}).encode() + b"\n"
        async with asyncio.timeout(_PATIENCE):
            reply = await asyncio.get_running_loop().run_in_executor(None, self._exchange, request)
        if not reply:
            raise RuntimeError(f"{command}: the program ended with {self._process.poll()}")
        answered = json.loads(reply)
        if "error" in answered:
            raise RuntimeError(f"{command}: {answered['error']}")
        return answered["value"]

    def _exchange(self, request: bytes) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(request)
        self._process.stdin.flush()
        return self._process.stdout.readline()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # It has nothing to lose: its database is thrown away.
        self._process.kill()
        self._process.communicate()


def answer(value: Any = None, *, error: str | None = None) -> None:
    """Answer the parent."""
    reply = {"value": value} if error is None else {"error": error}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


async def serve_parent(handlers: Handlers) -> None:
    """Carry out what the parent asks, within a program that has an event loop, until the parent has gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    everything: Handlers = {"cpu": _cpu, "memory": _memory, **handlers}
    async for line in reader:
        request = json.loads(line)
        try:
            answer(await everything[request.pop("command")](**request))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            answer(error=f"{type(error).__name__}: {error}")
    os._exit(0)


async def _cpu() -> float:
    return cpu_seconds()


async def _memory() -> int:
    gc.collect()
    return resident_bytes()


def cpu_seconds() -> float:
    """What this process has used, in user and kernel mode."""
    return time.process_time()


def resident_bytes() -> int:
    """The memory of this process that is in RAM (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def pin(core: int | None) -> None:
    """Stay on one core, where the system can do that and has it."""
    if core is not None and hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def raise_file_limit() -> None:
    """As many sockets as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):  # a system may refuse its own maximum
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
