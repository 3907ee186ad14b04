"""What comes of a call: a value, or an error; what the model reads of it, and what the log says."""

from __future__ import annotations

from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from protocol.events import ToolResultEvent
from protocol.parts import Executor
from server.turns import records
from storage.calls import CallRow
from storage.ids import new_id
from storage.log import NewEvent
from storage.moves import Call, NewMessage

__all__ = [
    "CANCELLED",
    "DEADLINE",
    "EXPIRED",
    "INTERRUPTED",
    "NO_EXECUTOR",
    "Result",
    "rejected",
    "result_event",
    "result_message",
    "shown_executor",
]

CANCELLED: Final = "Cancelled by the user before it ran to its end."
INTERRUPTED: Final = "The server stopped while this was running. It may or may not have taken effect."
NO_EXECUTOR: Final = "No client of this session offers the tool {name}, and none came in time to run it."
DEADLINE: Final = "The client that was to run this did not answer in time. It may or may not have taken effect."
EXPIRED: Final = "Nobody approved this in time, so it was not run."
_REJECTED: Final = "The user rejected this call, so it was not run."
_EDITED: Final = "[The user changed the arguments of this call before it ran. What ran: {arguments}]\n"


class Result(Struct, frozen=True):
    """A value, or an error that the model reads; how long it took in milliseconds, if it ran."""

    value: Any = None
    error: str | None = None
    duration_ms: int | None = None

    @property
    def state(self) -> Literal["completed", "failed", "cancelled"]:
        """What the call is by that."""
        if self.error is None:
            return "completed"
        return "cancelled" if self.error == CANCELLED else "failed"

    @property
    def text(self) -> str:
        """What the model reads."""
        if self.error is not None:
            return self.error
        return self.value if isinstance(self.value, str) else msgspec.json.encode(self.value).decode()


def rejected(feedback: str | None) -> Result:
    """A person said no, and perhaps why."""
    return Result(error=f"{_REJECTED} They said: {feedback}" if feedback else _REJECTED)


def shown_executor(call: Call | CallRow) -> Executor:
    """Who runs a call, in the words of the wire, where another agent is the server's affair."""
    return "client" if call.executor == "client" else "server"


def result_event(turn_id: UUID, call: Call | CallRow, result: Result, client_id: str | None = None) -> NewEvent:
    """The call's one result, as the log tells it."""
    return records.event(
        ToolResultEvent(
            call_id=str(call.call_id),
            turn_id=turn_id,
            name=call.name,
            executor=shown_executor(call),
            result=result.value,
            error=result.error,
            duration_ms=result.duration_ms,
            client_id=client_id,
        )
    )


def result_message(
    call: Call | CallRow, result: Result, ordinal: int, *, thread: UUID | None = None, turn_id: UUID | None = None
) -> NewMessage:
    """The call's one result, as the model reads it: it is told when a person changed what was run."""
    note = "" if call.final_arguments is None else _EDITED.format(arguments=call.final_arguments)
    return NewMessage(
        message_id=new_id(),
        ordinal=ordinal,
        role="tool",
        content=note + result.text,
        name=call.name,
        call_id=call.call_id,
        thread=thread,
        turn_id=turn_id,
    )
