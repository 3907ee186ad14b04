"""Is what is written in file and environment what is meant?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from server.check.findings import Finding, error, note, ok, warning
from server.check.running import Context, Findings
from server.config import strays
from server.config.environment import ENVIRONMENT, is_link
from server.config.shown import entries

__all__ = ["find"]


async def find(context: Context) -> Findings:
    """Mistakes in the file and in variables, and variables that nobody reads."""
    for problem in context.problems:
        where = f"in {problem.source}" if problem.source else "there"
        yield error(f"{problem.key}: {problem.reason}", f"mend it {where}")
    if not context.problems:
        yield ok(_summary(context))
    for finding in _variables(context):
        yield finding


def _summary(context: Context) -> str:
    kinds: Counter[str] = Counter(entry.source.kind for entry in entries(context.config))
    counts = [
        f"{kinds[kind]} {place}"
        for kind, place in (
            ("file", "in the file"),
            ("environment", "in the environment"),
            ("borrowed", "borrowed from OpenAI's variables"),
            ("flag", "on the command line"),
        )
        if kinds[kind]
    ]
    file = context.config.file
    return f"{file or 'no file'}; keys set: {', '.join(counts) or 'none'}"


def _variables(context: Context) -> Iterator[Finding]:
    for stray in strays(context.environ):
        if stray.meant is None:
            yield note(f"nothing reads the variable {stray.name}", "`parley serve --help` lists those that are read")
        else:
            yield warning(f"nothing reads the variable {stray.name}", f"did you mean {stray.meant}?")
    for name in sorted(ENVIRONMENT):
        if is_link(name, context.environ.get(name, "")):
            yield note(
                f"{name}={context.environ[name]} is passed over: Kubernetes sets it for a service named parley",
                f"set {ENVIRONMENT[name].key} in the file, or enableServiceLinks: false",
            )
