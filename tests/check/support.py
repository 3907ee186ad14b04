"""Running one check on a configuration of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from server.check import CHECKS, GRACE, Context, Finding, run
from server.config import read

__all__ = ["context", "found", "looked", "said"]

#: More than people have: the machine may be busy with something else. Seconds.
PATIENCE = 40.0


def context(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
    grace: float = GRACE,
    **flags: object,
) -> Context:
    """What a check looks at; a flag `server__port` sets `server.port`."""
    values = {name.replace("__", "."): value for name, value in flags.items()}
    config, problems = read(values, environ=environ or {}, file=file)
    return Context(config, problems, environ or {}, patience, grace)


async def looked(name: str, context: Context) -> list[Finding]:
    """What the check of that name finds."""
    (check,) = [check for check in CHECKS if check.name == name]
    (result,) = await run([check], context)
    return result.findings


def found(name: str, context: Context) -> list[Finding]:
    """The same without a loop."""
    return asyncio.run(looked(name, context))


def said(findings: list[Finding], *levels: str) -> list[str]:
    """The findings of some levels (all but `ok` unless given) as text."""
    wanted = levels or ("note", "warning", "error")
    return [f"{each.level}: {each.what} -> {each.advice}" for each in findings if each.level in wanted]
