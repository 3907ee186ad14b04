"""Claims: the steps that a worker holds, and what ends a claim."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

from msgspec import Struct

__all__ = ["AnsweredError", "Claim", "LostClaimError", "NewsError", "claims_of"]


class LostClaimError(Exception):
    """The step belongs to somebody else by now, or is gone with its session: stop, and write nothing more."""


class NewsError(Exception):
    """Something happened to the turn's calls that the writer has not seen: nothing was written, look again."""

    def __init__(self, news: int) -> None:
        super().__init__(f"news {news}")
        self.news = news


class AnsweredError(Exception):
    """The call that this turn was to answer has its result already: end the turn without a `parent_result`."""


class Claim(Struct, kw_only=True):
    """A step that a worker holds. `attempt` fences its writes; `revision` counts them, and the claims, of the turn.

    `news` is how many things that happened to the turn's calls were known when it was claimed. `parent_call` is the
    call of another turn that this one answers, `depth` how many such calls it stands below.
    """

    session_id: UUID
    turn_id: UUID
    step: int
    message_id: UUID
    state: Literal["running", "tools"]
    worker_id: UUID
    attempt: int
    agent_type: str
    user_message_id: UUID
    turn_created_at: datetime
    owner: str
    revision: int = 0
    content: str = ""
    reasoning: str = ""
    cancel_requested: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    news: int = 0
    switches: int = 0
    depth: int = 0
    parent_call: UUID | None = None
    cost: Decimal | None = None

    def begin_next(self, message_id: UUID) -> None:
        """The step is done; the claim is now of the next one, which that same transaction created."""
        self.step += 1
        self.message_id = message_id
        self.state = "running"
        self.attempt = 1
        self.content = self.reasoning = ""


#: The columns of a claim in the order in which the statements return them (`claimed` in `sql/queries/fragments.sql`).
_COLUMNS: Final = (
    "session_id",
    "turn_id",
    "step",
    "message_id",
    "state",
    "worker_id",
    "attempt",
    "agent_type",
    "user_message_id",
    "turn_created_at",
    "owner",
    "revision",
    "content",
    "reasoning",
    "cancel_requested",
    "prompt_tokens",
    "completion_tokens",
    "news",
    "switches",
    "depth",
    "parent_call",
    "cost",
)


def claims_of(rows: Iterable[Any]) -> list[Claim]:
    """The claims that a statement returned, as rows or as one column of records; what follows them is left out."""
    return [Claim(**dict(zip(_COLUMNS, row, strict=False))) for row in rows]
