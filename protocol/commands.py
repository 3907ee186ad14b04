"""What a client may ask for: one type a command, told apart by `type`.

Commands come from outside, so every field says what it allows and unknown fields are refused: a misspelt option must
not silently do nothing. Rules that bind several fields stand in `__post_init__`; their message names the fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Meta, Struct

from protocol.ids import ID_PATTERN

__all__ = [
    "COMMANDS",
    "STORED",
    "TOOL_NAME_PATTERN",
    "AgentRef",
    "CallId",
    "Cancel",
    "Command",
    "CommandId",
    "Decision",
    "HitlDecision",
    "OnBusy",
    "Ping",
    "QueueUpdate",
    "RefreshToken",
    "RegisterTools",
    "Remember",
    "SwitchAgent",
    "TextPart",
    "ToolDescription",
    "ToolProgress",
    "ToolResult",
    "UserMessage",
    "text_of",
]

CommandId: TypeAlias = Annotated[
    str, Meta(pattern=ID_PATTERN, description="Made by the client, unique in the session; a repeat gets the same reply")
]
AgentRef: TypeAlias = Annotated[str, Meta(pattern=ID_PATTERN, description="An agent's type")]
CallId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256, description="The tool call's id")]
ClientSequence: TypeAlias = Annotated[
    int, Meta(ge=1, le=2**53 - 1, description="The client's own count of its commands; a gap is refused")
]
Prose: TypeAlias = Annotated[str, Meta(max_length=65_536)]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]

TOOL_NAME_PATTERN: Final = r"^[A-Za-z0-9_.-]{1,64}$(?!\n)"

OnBusy: TypeAlias = Literal["enqueue", "reject", "interrupt", "steer"]
Decision: TypeAlias = Literal["approve", "edit", "reject", "respond"]


class _Command(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"):
    """What all commands share."""

    id: CommandId
    n: ClientSequence | None = None


class TextPart(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="text"
):
    """One piece of a message that is given in parts."""

    text: Text


class UserMessage(_Command, frozen=True, kw_only=True, tag="user_message"):
    """Say something to the agent. `on_busy` decides what happens when a turn is running already."""

    content: Text | Annotated[list[TextPart], Meta(min_length=1, max_length=1024)]
    agent_type: AgentRef | None = None
    on_busy: OnBusy = "enqueue"


class ToolResult(_Command, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool that this client ran has returned: `result`, or `error` as a text the model can read."""

    call_id: CallId
    result: Any = None
    error: Annotated[str, Meta(min_length=1, max_length=65_536)] | None = None

    def __post_init__(self) -> None:
        if self.error is not None and self.result is not None:
            raise ValueError("a tool result has `result` or `error`, not both")


class SwitchAgent(_Command, frozen=True, kw_only=True, tag="switch_agent"):
    """Let another agent answer from the next turn on."""

    agent_type: AgentRef
    reason: Prose | None = None
    confidence: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class Remember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Make the decision a rule. `arguments` maps an argument's name to a glob (`*`, `?`) that its text must match."""

    scope: Literal["call", "session", "user"]
    tool: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    arguments: Annotated[dict[str, str], Meta(max_length=32)] | None = None


class HitlDecision(_Command, frozen=True, kw_only=True, tag="hitl_decision"):
    """Decide about one tool call that waits for a person; the first decision wins."""

    call_id: CallId
    decision: Decision
    modified_arguments: dict[str, Any] | None = None
    feedback: Prose | None = None
    remember: Remember | None = None

    def __post_init__(self) -> None:
        if (self.decision == "edit") != (self.modified_arguments is not None):
            raise ValueError("`modified_arguments` go with the decision `edit`, and only with it")
        if self.decision == "respond" and not self.feedback:
            raise ValueError("the decision `respond` needs `feedback`, which becomes the call's result")
        if self.remember is not None and self.decision not in ("approve", "reject"):
            raise ValueError("only `approve` and `reject` can be remembered")


class Cancel(_Command, frozen=True, kw_only=True, tag="cancel"):
    """Stop the running turn, or only if it is `turn_id`."""

    turn_id: UUID | None = None


class QueueUpdate(_Command, frozen=True, kw_only=True, tag="queue_update"):
    """Put the waiting messages into another order, or take one of them back."""

    order: Annotated[list[UUID], Meta(min_length=1, max_length=1024)] | None = None
    remove: UUID | None = None

    def __post_init__(self) -> None:
        if (self.order is None) == (self.remove is None):
            raise ValueError("a queue update has exactly one of `order` and `remove`")
        if self.order is not None and len(set(self.order)) != len(self.order):
            raise ValueError("`order` names a message twice")


class ToolDescription(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tool that this client can run; `parameters` is a JSON Schema of its arguments object.

    `read_only`: changes nothing, and may run beside others that change nothing; `idempotent`: a second run changes
    nothing more; `independent`: may run beside any other call of its step.
    """

    name: Annotated[str, Meta(pattern=TOOL_NAME_PATTERN)]
    description: Annotated[str, Meta(max_length=16_384)] = ""
    parameters: dict[str, Any]
    read_only: bool = False
    idempotent: bool = False
    independent: bool = False


class RegisterTools(_Command, frozen=True, kw_only=True, tag="register_tools"):
    """Say which tools this client can run, in place of what it said before; an empty list takes all back."""

    tools: Annotated[list[ToolDescription], Meta(max_length=256)]

    def __post_init__(self) -> None:
        if len({tool.name for tool in self.tools}) != len(self.tools):
            raise ValueError("`tools` names a tool twice")


class ToolProgress(_Command, frozen=True, kw_only=True, tag="tool_progress"):
    """Say how far a tool is, which also renews this client's lease on the call; `fraction` is 0 to 1."""

    call_id: CallId
    message: Prose | None = None
    fraction: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class RefreshToken(_Command, frozen=True, kw_only=True, tag="refresh_token"):
    """Go on with a newer token, before the present one expires."""

    token: Annotated[str, Meta(min_length=1, max_length=16_384)]

    def __repr__(self) -> str:
        # Commands are logged; tokens must not be.
        return f"RefreshToken(id={self.id!r}, token=...)"


class Ping(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="ping"
):
    """Ask for a sign of life."""

    id: CommandId | None = None
    n: ClientSequence | None = None


Command: TypeAlias = (
    UserMessage
    | ToolResult
    | SwitchAgent
    | HitlDecision
    | Cancel
    | QueueUpdate
    | RegisterTools
    | ToolProgress
    | RefreshToken
    | Ping
)

#: The commands by their `type`, in the order of the documents.
COMMANDS: Final[dict[str, type[Command]]] = {
    "user_message": UserMessage,
    "tool_result": ToolResult,
    "switch_agent": SwitchAgent,
    "hitl_decision": HitlDecision,
    "cancel": Cancel,
    "queue_update": QueueUpdate,
    "register_tools": RegisterTools,
    "tool_progress": ToolProgress,
    "refresh_token": RefreshToken,
    "ping": Ping,
}

#: The commands whose effect and reply are stored: a repeat of their id gets the stored reply.
STORED: Final[frozenset[type[Command]]] = frozenset(
    {UserMessage, ToolResult, SwitchAgent, HitlDecision, Cancel, QueueUpdate}
)


def text_of(content: str | list[TextPart]) -> str:
    """A message's content as one text; parts are joined without anything between them."""
    return content if isinstance(content, str) else "".join(part.text for part in content)
