"""The `[turns]` section of the configuration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["TurnSettings"]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class TurnSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of turns. Times are in seconds.

    `max_steps`: calls of the agent in one turn. `max_attempts`: how often a step is begun before its message is closed
    as interrupted. `max_calls`: tool calls in one step. `max_message_chars`: where a message is cut off (finish reason
    `length`). `queue_limit`: messages that may wait for one session. `history_limit`: messages that an agent is shown.
    `step_timeout`: how long an agent may take over one step. `lease_seconds`: after how long a dead process's turns are
    taken over. `checkpoint_interval`: how often the texts of messages being written are kept.
    """

    max_steps: Annotated[int, Meta(ge=1, le=1000)] = 25
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 5
    max_calls: Annotated[int, Meta(ge=1, le=1000)] = 64
    max_message_chars: Annotated[int, Meta(ge=1000, le=10_000_000)] = 200_000
    queue_limit: Annotated[int, Meta(ge=1, le=1024)] = 100
    history_limit: Annotated[int, Meta(ge=1, le=100_000)] = 400
    step_timeout: Seconds = 600
    lease_seconds: Seconds = 10
    checkpoint_interval: Seconds = 0.25
