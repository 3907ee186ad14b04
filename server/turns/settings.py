"""The `[turns]` section of the configuration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["TurnSettings"]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class TurnSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of turns. Times are in seconds."""

    #: Calls of the agent in one turn.
    max_steps: Annotated[int, Meta(ge=1, le=1000)] = 25
    #: How often a step is begun before its message is closed as interrupted.
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 5
    #: Tool calls in one step.
    max_calls: Annotated[int, Meta(ge=1, le=1000)] = 64
    #: Where a message is cut off (finish reason `length`).
    max_message_chars: Annotated[int, Meta(ge=1000, le=10_000_000)] = 200_000
    #: Messages that may wait for one session.
    queue_limit: Annotated[int, Meta(ge=1, le=1024)] = 100
    #: Messages that an agent is shown.
    history_limit: Annotated[int, Meta(ge=1, le=100_000)] = 400
    #: How long an agent may take over one step.
    step_timeout: Seconds = 600
    #: After how long a dead process's turns are taken over.
    lease_seconds: Seconds = 10
    #: How often the texts of messages being written are kept.
    checkpoint_interval: Seconds = 0.25
