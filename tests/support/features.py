"""The feature table, and the pytest plugin that ties each of its rows to tests.

A test names the rows that it shows to be true: `@pytest.mark.feature("S21")`. An id that is no row stops the run at
collection. `pytest --features=table` (`make features`) prints the table with the tests of each row; with
`--features=check` (`make check`) only what is wrong. Either fails when a row that is claimed has no test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour that users can rely on.

    `done` is our claim that it is there and tested; `part` claims so much of it as it names, while the rest is to come.
    """

    id: str
    behaviour: str
    done: bool = False
    part: str = ""

    @property
    def claimed(self) -> bool:
        """Whether at least one test must show it."""
        return self.done or self.part != ""


_ROWS: Final = (
    # What chat clients, services and operators of such a server are used to.
    Row("S01", "user and assistant messages both arrive as message_created, the latter naming its agent", True),
    Row("S02", "a message_created says which message, whose role, what text and when", True),
    Row("S03", "every event has one envelope: type, payload, timestamp, session, and a cursor if durable", True),
    Row("S04", "service events frame the work: task start and end, direct calls, agent status, agent switches", True),
    Row("S05", "one hub serves all connections of a session", True),
    Row("S06", "an event is stored before anyone sees it, and a rolled-back one is never seen", True),
    Row("S07", "clients pass over event types that they do not know", True),
    Row("S08", "newline-delimited JSON for fetch readers that authenticate with a Bearer header", True),
    Row("S09", "each event type is described next to the endpoint that streams it", True),
    Row("S10", "a script creates a session, opens its stream, sends a message and sees both messages complete", True),
    Row("S11", "project-scoped chat routes, and their older unscoped forms, stream, send and list", True),
    Row("S12", "one request posts a message and streams events until its turn rests", True),
    Row("S13", "each message commits in its own transaction before its event shows, whatever the stream does", True),
    Row("S14", "errors roll back and release; nobody awaits model, client or socket holding a connection", True),
    Row("S15", "history only ever grows", True),
    Row("S16", "history and context are the same after a restart or a reconnect", True),
    Row("S17", "after a streamed turn the real database holds its messages", True),
    Row("S18", "a health endpoint", True),
    Row("S19", "agents can be listed, and a session's agent be read and switched, over REST", True),
    Row("S20", "sessions are created, listed and read over REST", True),
    Row("S21", "a session's history is read over REST", True),
    Row("S22", "a session's undecided approvals are read over REST", True),
    Row("S23", "metrics, audit log and statistics of events, whole and by session, over REST", True),
    Row("S24", "a user_message command, to a chosen agent if it says so", True),
    Row("S25", "a tool_result command ends a client tool's call with a result or an error", True),
    Row("S26", "a switch_agent command with its reason", True),
    Row("S27", "a hitl_decision command, with edited arguments or feedback", True),
    Row("S28", "every command has one service method and every route one reachable handler", True),
    Row("S29", "six stock agents, each with its own tools and file limits", True),
    Row("S30", "a policy decides which tools wait for a person, and nothing dangerous runs before the decision", True),
    Row("S31", "server-sent events carry their type in event: and one line of JSON in data:", True),
    Row("S32", "stream statistics: connections, events sent, sessions that someone follows", True),
    Row(
        "S33",
        "each user's turns, limits and agents are a space of their own, made on demand and evicted when idle",
        True,
    ),
    Row("S34", "an agent's SSE endpoint with unnamed frames, filtered by thread", True),
    Row("S35", "a message is posted to an agent's thread and acknowledged in the customary words", True),
    Row("S36", "an EventSource client that handles messages and errors and reconnects after a delay", True),
    Row("S37", "endpoints open to authorised users only; HTTPS", True),
    # Transports.
    Row("T01", "WebSocket first, SSE with POST when it fails, at once or later; clients choose by themselves", True),
    Row("T02", "either transport resumes at a cursor: no gap, no duplicate, live events wait for the replay", True),
    Row("T03", "the first frame agrees the heartbeat; each side finds a dead peer in bounded time", True),
    Row("T04", "a close code's range says whether to come back and how; SSE says the same in-band", True),
    Row("T05", "a slow client's memory is bounded, and it catches up"),
    Row("T06", "limits on size, rate and connections, each refusal with a code of its own"),
    Row("T07", "frames are batched; MessagePack is a second encoding; compression is a choice"),
    Row("T08", "a draining server spreads its clients over time and hands its turns over"),
    Row("T09", "who is on a session, and with which tools, is visible", True),
    Row("T10", "a session's clients may sit on different processes and hosts", part="processes of one host"),
    # Agents and tools.
    Row("A01", "text, reasoning and tool arguments stream as they are made", True),
    Row("A02", "tools run on the client under a lease, or on the server; either kind can need approval", True),
    Row(
        "A03", "approve, edit, reject or respond; standing permissions are listed and revoked; deadlines are data", True
    ),
    Row("A04", "a turn can be cancelled; a message during a turn waits, is refused, interrupts or steers", True),
    Row("A05", "an agent hands over by itself as well as on a client's word", True),
    Row("A06", "any OpenAI-compatible endpoint, agents and policies from a file, agents as Python functions", True),
    Row("A07", "tokens, cost and time are counted by turn, session and user", True),
    Row("A08", "retry, edit and branch: a session forks at any sequence number", True),
    Row("A09", "any agent process that speaks ACP is served from configuration alone"),
    # Everything around it.
    Row(
        "E01",
        "a command line to serve, chat, tail, list, issue tokens, migrate, check, verify, speak ACP",
        part="serve, chat, tail, sessions, migrate, check, config, docs",
    ),
    Row("E02", "typed client libraries for the browser and for Python", True),
    Row(
        "E03",
        "a web console: chat, tool calls, an editor for arguments under approval, live plots, audit",
        part="all but the live plots",
    ),
    Row("E04", "ACP over WebSocket and stdio, proved with the public SDKs' clients"),
    Row("E05", "an AG-UI endpoint, proved with the public client"),
    Row("E06", "OpenAPI and AsyncAPI documents made from the types, served and checked", True),
    Row("E07", "Prometheus metrics, structured logs, OpenTelemetry traces"),
    Row("E08", "an AHP endpoint: VS Code connects to the server as a remote agent host"),
    # Trust.
    Row(
        "R01",
        "tokens static and signed, tickets for EventSource, ownership, roles, Origin checks, safe defaults",
        part="all but signed tokens",
    ),
    Row("R02", "each decision is audited with the arguments asked for and the arguments executed", True),
    Row("R03", "a chaos suite, and a command that verifies a running deployment", part="the chaos suite"),
)

FEATURES: Final[Mapping[str, Row]] = {row.id: row for row in _ROWS}


@dataclass(slots=True)
class _Coverage:
    """Which tests of this run's collection name which row."""

    tests: dict[str, list[str]] = field(default_factory=lambda: {row_id: [] for row_id in FEATURES})

    def add(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            # A parametrised test counts once; its cases are the variants of one proof.
            name = item.nodeid.partition("[")[0]
            for row_id in feature_ids(item):
                if row_id not in FEATURES:
                    raise pytest.UsageError(f"{item.nodeid} names the feature row {row_id!r}, which does not exist")
                if name not in self.tests[row_id]:
                    self.tests[row_id].append(name)

    def unproved(self) -> list[Row]:
        return [row for row in FEATURES.values() if row.claimed and not self.tests[row.id]]


_COVERAGE: Final = pytest.StashKey[_Coverage]()


def feature_ids(item: pytest.Item) -> list[str]:
    """Return the ids that the test's `feature` marks name, in the order written."""
    return [str(row_id) for mark in item.iter_markers("feature") for row_id in mark.args]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--features`."""
    parser.addoption(
        "--features",
        choices=("table", "check"),
        help="collect only, and print the feature table or the claimed rows that no test names",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Deselect nothing when the table is asked for."""
    config.stash[_COVERAGE] = _Coverage()
    if config.getoption("features"):
        config.option.markexpr = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note each test's rows before anything is deselected; refuse ids that are no rows."""
    config.stash[_COVERAGE].add(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run nothing when only the table is asked for, unless the collection itself failed."""
    return True if session.config.getoption("features") and not session.testsfailed else None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail `--features` runs whose claims are not all named by a test."""
    config = session.config
    if config.getoption("features") and exitstatus == pytest.ExitCode.OK and config.stash[_COVERAGE].unproved():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what `--features` asked for."""
    mode = config.getoption("features")
    if not mode:
        return
    coverage = config.stash[_COVERAGE]
    if mode == "table":
        for line in _table(coverage):
            terminalreporter.write_line(line)
    for row in coverage.unproved():
        terminalreporter.write_line(f"{row.id} is claimed and no test names it: {row.behaviour}", red=True)


def _table(coverage: _Coverage) -> Iterable[str]:
    yield f"{'row':<4} {'claimed':<8} {'tests':>5}  behaviour"
    for row in FEATURES.values():
        tests = coverage.tests[row.id]
        yield f"{row.id:<4} {'yes' if row.done else 'in part' if row.part else '-':<8} {len(tests):>5}  {row.behaviour}"
        if row.part:
            yield f"{'':<21}(so far: {row.part})"
        for name in tests:
            yield f"{'':<21}{name}"
    claimed = sum(row.claimed for row in FEATURES.values())
    named = sum(bool(tests) for tests in coverage.tests.values())
    yield f"{len(FEATURES)} rows, {claimed} claimed, {named} named by tests"
