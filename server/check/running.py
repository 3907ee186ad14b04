"""Running checks: all at once, each in bounded time, none able to spoil another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, TypeVar

from server.check.findings import Finding, error, note
from server.config import Config, Problem, Sections
from server.observe.redact import redact_text

__all__ = ["GRACE", "PATIENCE", "Check", "Context", "Findings", "Result", "in_thread", "run"]

#: Seconds that a check may wait for somebody: a database, an endpoint, a file that is loaded.
PATIENCE: Final = 8.0
#: Seconds that it may take beyond that. Then it is given up, whatever it waits for.
GRACE: Final = 4.0

T = TypeVar("T")

Findings: TypeAlias = AsyncGenerator[Finding, None]


@dataclass(frozen=True)
class Context:
    """What checks look at: the configuration as far as it is right, its mistakes, and the environment."""

    config: Config
    problems: Sequence[Problem]
    environ: Mapping[str, str]
    patience: float = PATIENCE
    grace: float = GRACE

    @property
    def doubtful(self) -> frozenset[str]:
        """The sections that have a mistake, so that what stands there instead is not what is meant."""
        if any(problem.source is None for problem in self.problems):
            # The file as a whole cannot be read: nobody knows what it says.
            return frozenset(Sections.__struct_fields__)
        return frozenset(problem.key.partition(".")[0].partition("[")[0] for problem in self.problems)


class Check(NamedTuple):
    """One check: its name, what it looks at, the sections that it cannot do without, and the function that looks."""

    name: str
    about: str
    needs: frozenset[str]
    find: Callable[[Context], Findings]


class Result(NamedTuple):
    """What one check has found."""

    check: Check
    findings: list[Finding]


async def run(checks: Sequence[Check], context: Context) -> list[Result]:
    """Run checks at the same time; the results are in the order of the checks."""
    found = await asyncio.gather(*(_findings(check, context) for check in checks))
    return [Result(check, findings) for check, findings in zip(checks, found, strict=True)]


async def _findings(check: Check, context: Context) -> list[Finding]:
    if doubtful := sorted(check.needs & context.doubtful):
        sections = " and ".join(f"[{name}]" for name in doubtful)
        return [note(f"not looked at, as {sections} has mistakes", "mend them, and run this again")]
    found = []
    bound = context.patience + context.grace
    try:
        async with asyncio.timeout(bound), aclosing(check.find(context)) as findings:
            async for finding in findings:
                found.append(finding.plain)  # noqa: PERF401 - what was found before the time was up counts
    except TimeoutError:
        found.append(error(f"this took longer than {bound:g} s", "something hangs: a disk, a network?"))
    except Exception as failure:  # noqa: BLE001 - whatever breaks a check, the others still tell what they have found
        text = redact_text(f"{type(failure).__name__}: {failure}")
        found.append(error(f"the check itself failed: {text}", "please report this"))
    return found


async def in_thread(function: Callable[[], T]) -> T:
    """Call a function that may block. When it hangs, nobody waits for its thread, not even the end of the process."""
    future: Future[T] = Future()

    def call() -> None:
        # From here on it cannot be cancelled, only not be waited for.
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function())
        except BaseException as failure:  # noqa: BLE001 - it is raised where it is awaited
            future.set_exception(failure)

    threading.Thread(target=call, name="check", daemon=True).start()
    return await asyncio.wrap_future(future)
