"""What an agent is: a function from a session's history to a stream of deltas.

An agent is called once a *step*. It reads ``AgentContext.history`` and yields deltas until it has said everything
(text) or asked for everything it needs (tool calls). The engine stores the outcome of the step, runs the tools, and
calls the agent again with the results in the history. An agent therefore keeps no state between calls: the same
context may be run a second time, by another process, after a crash (``attempt`` is then one higher).

The shortest agent is one async generator function::

    @agent(type="parrot", description="Repeats you.")
    async def parrot(context: AgentContext) -> AsyncIterator[AgentYield]:
        yield context.history[-1].content

Rules for authors:

- A plain ``str`` is a ``Text``; everything else must be one of the structs of ``AgentOutput``.
- ``Finish`` is optional. Without it the step ended with ``tool_calls`` when a tool was called, with ``stop`` otherwise.
- Wait with ``context.sleep`` and read the time from ``context.now``; both are injected, so that tests need no waiting.
- The engine closes the generator (``contextlib.aclosing``) when the step is cancelled or fails. Clean up in
  ``finally`` or ``async with``, never yield there, and never swallow ``asyncio.CancelledError`` or ``GeneratorExit``.
- Raise ``AgentError`` to end the turn with a ``turn_error`` event. It never becomes a message, so a provider's error
  is never fed back to a model as something the assistant said.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable
from uuid import NAMESPACE_URL, UUID, uuid5

from msgspec import Struct

from protocol.events import Executor, Role, ToolCallRequest

__all__ = [
    "ALL_TOOLS",
    "Agent",
    "AgentContext",
    "AgentDefinition",
    "AgentError",
    "AgentOutput",
    "AgentYield",
    "Finish",
    "FunctionAgent",
    "HistoryMessage",
    "Reasoning",
    "Role",
    "Text",
    "Tool",
    "ToolCallDelta",
    "ToolCallRequest",
    "ToolContext",
    "ToolSpec",
    "UsageReport",
    "agent",
]

ALL_TOOLS = "*"
"""In ``AgentDefinition.allowed_tools``: every tool on offer. No other pattern exists; names match whole."""

_AGENT_NAMESPACE = uuid5(NAMESPACE_URL, "urn:parley:agents")
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Text(Struct, frozen=True, gc=False):
    """The next piece of the answer. An empty text is legal and ignored."""

    text: str


class Reasoning(Struct, frozen=True, gc=False):
    """The next piece of the agent's visible reasoning."""

    text: str


class ToolCallDelta(Struct, frozen=True, gc=False):
    """A piece of a tool call's arguments, which are streamed as JSON text.

    ``index`` tells the calls of one step apart, counted from 0. The first delta of an index carries ``call_id`` and
    ``name``; later ones may leave them out. The pieces of ``arguments`` of one index, joined, are the JSON text.
    """

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str = ""


class UsageReport(Struct, frozen=True, gc=False):
    """Tokens used by this step so far; the last report of a step counts. `model` is the one that used them."""

    prompt_tokens: int
    completion_tokens: int
    model: str | None = None


class Finish(Struct, frozen=True, gc=False):
    """Why the step ended; nothing may be yielded after it."""

    reason: Literal["stop", "length", "tool_calls"]


AgentOutput: TypeAlias = Text | Reasoning | ToolCallDelta | UsageReport | Finish
"""What the engine receives from an agent."""

AgentYield: TypeAlias = str | AgentOutput
"""What a function under ``@agent`` may yield: a ``str`` stands for a ``Text``."""


class HistoryMessage(Struct, frozen=True, kw_only=True):
    """One message of the history, as an agent sees it (``server.agents.history`` makes and orders them).

    A ``tool`` message answers the call ``call_id`` of the assistant message before it, and ``name`` is the tool's.
    ``reasoning`` is what was thought before an assistant message; some endpoints insist on reading it again.
    """

    role: Role
    content: str
    reasoning: str | None = None
    name: str | None = None
    call_id: str | None = None
    tool_calls: tuple[ToolCallRequest, ...] = ()
    message_id: UUID | None = None
    agent_type: str | None = None


class ToolSpec(Struct, frozen=True, kw_only=True):
    """What a model is told about a tool, and what the policy needs to know about it.

    ``parameters`` is a JSON Schema of type ``object``. ``executor`` says where the tool runs: in this server, or at
    the client that registered it. ``read_only``: runs without a change to anything; ``idempotent``: may be run again
    after a crash; ``independent``: may run beside any other call of its step. All default to the careful answer.

    ``extra`` marks a tool from outside: of a client under a name of its own, or of another server. Agents get it
    whose ``extra_tools`` says so. ``agents``, where given, are the only ones that may call it, and need not name it.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    executor: Executor = "client"
    read_only: bool = False
    idempotent: bool = False
    independent: bool = False
    extra: bool = False
    agents: tuple[str, ...] | None = None


class AgentDefinition(Struct, frozen=True, kw_only=True):
    """An agent as data.

    ``allowed_tools`` are exact tool names, or ``("*",)`` for all. ``file_patterns`` limits the files that the agent
    may write; ``None`` is no limit. ``extra_tools``: it may also call what clients bring under names of their own, and
    what other servers offer. ``handoffs`` are the agent types that it may hand a turn to, ``delegates`` those that it
    may ask and go on itself. ``rerun`` says whether a step may be run again by another process after its own died;
    where not, the message is closed as ``interrupted``. ``model`` is the model that runs it, if that is another than
    the configured one.

    Raises ``ValueError`` for a type that is no plain name or that could be mistaken for an ``agent_id``.
    """

    type: str
    name: str
    description: str = ""
    prompt: str = ""
    allowed_tools: tuple[str, ...] = ()
    file_patterns: tuple[str, ...] | None = None
    extra_tools: bool = False
    handoffs: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()
    rerun: bool = True
    model: str | None = None

    def __post_init__(self) -> None:
        if not _TYPE.fullmatch(self.type) or _is_uuid(self.type):
            raise ValueError(f"agent type {self.type!r} must be a name of 1-64 characters [A-Za-z0-9._-], not a UUID")

    @property
    def agent_id(self) -> UUID:
        """The agent's stable id: a version 5 UUID (RFC 9562, section 5.5) of its type."""
        return uuid5(_AGENT_NAMESPACE, self.type)

    @property
    def has_file_restrictions(self) -> bool:
        """Whether the agent may write some files only."""
        return self.file_patterns is not None

    def allows_tool(self, name: str) -> bool:
        """Whether the agent may call the tool of exactly this name."""
        return name in self.allowed_tools or ALL_TOOLS in self.allowed_tools

    def may_call(self, tool: ToolSpec) -> bool:
        """Whether the agent may call this tool, named in its definition or not."""
        if tool.agents is not None:
            return self.type in tool.agents
        return self.allows_tool(tool.name) or (tool.extra and self.extra_tools)

    def allows_file(self, path: str) -> bool:
        """Whether the agent may write ``path``.

        A pattern without a slash is matched against the file's own name, one with a slash against the whole path.
        Matching is case-sensitive on every platform. No pattern matches a path that leads out of the workspace or that
        systems read in different ways: an absolute one, one with ``..``, a colon, or characters that do not print.
        """
        if self.file_patterns is None:
            return True
        if ":" in path or path.startswith("~") or not path.isprintable():
            return False
        parts = path.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or parts[-1] in {"", "."}:
            return False
        whole = "/".join(part for part in parts if part != ".")
        return any(fnmatchcase(whole if "/" in pattern else parts[-1], pattern) for pattern in self.file_patterns)


class AgentContext(Struct, frozen=True, kw_only=True):
    """Everything an agent may know about the step that it is asked to do.

    ``history`` holds the user's current message exactly once, and one result for every tool call. ``tools`` are the
    tools that may be called now. ``attempt`` counts from 1 and grows when a step is run again under the same
    ``message_id``; ``step`` counts the agent's calls within the turn, from 1. ``sleep`` takes seconds, ``now``
    returns an aware UTC time.
    """

    session_id: UUID
    turn_id: UUID
    message_id: UUID
    attempt: int
    step: int
    agent: AgentDefinition
    history: Sequence[HistoryMessage]
    tools: Sequence[ToolSpec]
    sleep: Callable[[float], Awaitable[None]]
    now: Callable[[], datetime]


class AgentError(Exception):
    """The step cannot be finished; it becomes a ``turn_error`` and the turn fails.

    ``code`` is a short snake_case name for programs, ``message`` is for people. ``retryable`` says whether the same
    step may succeed if the engine tries it again.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable


@runtime_checkable
class Agent(Protocol):
    """An agent: a definition, and a way to run one step."""

    @property
    def definition(self) -> AgentDefinition:
        """Who the agent is and what it may do."""

    def run(self, context: AgentContext) -> AsyncIterator[AgentOutput]:
        """Run one step. The caller closes the iterator (``aclose``) when it stops before the end."""


class ToolContext(Struct, frozen=True, kw_only=True):
    """What a server tool may know about its call. A tool receives it by annotating a parameter with this type."""

    session_id: UUID
    turn_id: UUID
    call_id: str
    agent_type: str
    now: Callable[[], datetime]
    owner: str | None = None


class Tool(Protocol):
    """A tool that the server runs itself."""

    @property
    def spec(self) -> ToolSpec:
        """What the model is told about it."""

    async def call(self, arguments_json: str, context: ToolContext) -> Any:
        """Run it and return a JSON value; raises ``server.agents.tools.ToolError`` for what the model should read."""


AgentFunction: TypeAlias = Callable[[AgentContext], AsyncGenerator[AgentYield, None]]
_OUTPUTS = (Text, Reasoning, ToolCallDelta, UsageReport, Finish)


class FunctionAgent:
    """An agent made from an async generator function, and the server tools that it brought with it."""

    def __init__(self, definition: AgentDefinition, function: AgentFunction, tools: Iterable[Tool] = ()) -> None:
        self.definition = definition
        self.tools = tuple(tools)
        self._function = function

    def with_definition(self, definition: AgentDefinition) -> FunctionAgent:
        """The same function under a definition that the configuration has changed."""
        return FunctionAgent(definition, self._function, self.tools)

    async def run(self, context: AgentContext) -> AsyncIterator[AgentOutput]:
        """Run the function, turning plain strings into ``Text``; the function is closed when this iterator is."""
        async with aclosing(self._function(context)) as stream:
            async for item in stream:
                if isinstance(item, str):
                    yield Text(item)
                elif isinstance(item, _OUTPUTS):
                    yield item
                else:
                    raise AgentError(
                        "invalid_output",
                        f"agent {self.definition.type!r} yielded {type(item).__name__}; expected a str, or one of "
                        + ", ".join(output.__name__ for output in _OUTPUTS),
                    )


def agent(
    type: str,  # noqa: A002 - the word that definitions, commands and configuration use
    *,
    name: str | None = None,
    description: str | None = None,
    tools: Iterable[str | Tool] = (),
    **more: Any,
) -> Callable[[AgentFunction], FunctionAgent]:
    """Make an agent from an async generator function.

    ``tools`` may mix names of tools that others provide and ``@tool`` functions of your own, which are registered
    with the agent. ``name`` defaults to the type, ``description`` to the function's docstring. ``more`` are other
    fields of ``AgentDefinition`` (``prompt``, ``file_patterns``, ``handoffs``, ``rerun``).

    Raises ``TypeError`` if the function is not an async generator function: one with ``yield`` under ``async def``.
    """
    listed = tuple(tools)
    own = tuple(item for item in listed if not isinstance(item, str))

    def decorate(function: AgentFunction) -> FunctionAgent:
        if not inspect.isasyncgenfunction(function):
            raise TypeError(f"@agent needs an async generator function: 'async def {_name_of(function)}' with 'yield'")
        definition = AgentDefinition(
            type=type,
            name=name or type,
            description=description if description is not None else inspect.getdoc(function) or "",
            allowed_tools=tuple(item if isinstance(item, str) else item.spec.name for item in listed),
            **more,
        )
        return FunctionAgent(definition, function, own)

    return decorate


def _name_of(function: object) -> str:
    return getattr(function, "__name__", repr(function))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
