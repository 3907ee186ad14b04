"""Names that stand in paths and headers, each described once."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from msgspec import Meta

from protocol.ids import ID_PATTERN

__all__ = ["HEADERS", "IDEMPOTENCY_KEY", "LAST_EVENT_ID", "PATH_PARAMETERS", "RESPONSE_HEADERS"]

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
LAST_EVENT_ID: Final = "Last-Event-ID"

#: What a `{name}` of a path holds, by its name.
PATH_PARAMETERS: Final[dict[str, Any]] = {
    "user": Annotated[str, Meta(min_length=1, max_length=128, description="The user's name")],
    "session": Annotated[str, Meta(pattern=ID_PATTERN, description="The session's UUID, or your own name for it")],
    "agent": Annotated[str, Meta(pattern=ID_PATTERN, description="The agent's type, or its `agent_id`")],
    "project": Annotated[str, Meta(pattern=ID_PATTERN, description="The project's UUID, or your own name for it")],
    "approval": Annotated[UUID, Meta(description="The approval's id")],
    "call": Annotated[UUID, Meta(description="The tool call's id")],
    "message": Annotated[UUID, Meta(description="The message's id")],
    "rule": Annotated[UUID, Meta(description="The rule's id")],
}

#: Request headers that routes look at.
HEADERS: Final[dict[str, Any]] = {
    IDEMPOTENCY_KEY: Annotated[
        str,
        Meta(
            pattern=ID_PATTERN,
            description="Becomes the command's id: a repeat has no second effect and gets the same answer",
        ),
    ],
    LAST_EVENT_ID: Annotated[
        str, Meta(description="The last `id:` that was received; goes before the parameter that says the same")
    ],
}

#: Response headers.
RESPONSE_HEADERS: Final[dict[str, Any]] = {
    "Etag": Annotated[str, Meta(description="What this version of it is called")],
    "Location": Annotated[str, Meta(description="Where it is")],
    "Retry-After": Annotated[int, Meta(ge=1, description="When to come back, in seconds")],
}
